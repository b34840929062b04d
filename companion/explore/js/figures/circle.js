/** The weights of a normalized unit under descent: a direction that turns, and a norm that only grows. */

import { secondMoment, unitDescent } from "../bn.js";

const STEPS = 10000;
const RATES = Array.from({ length: 13 }, (_, i) => 10 ** (i / 2 - 2));
const REACH = 5.6; // of the plane, in decades of the norm from 0.1 on
const START = [0.4, 2]; // the handle's distance from the middle: norms 0.25 to 10
const NEAR = 1; // degrees from the best direction
const SHOWN = [0, ...new Set(Array.from({ length: 161 }, (_, i) => Math.round(10 ** (i / 40))))];
const DEGREES = 180 / Math.PI;

/** The plane shows directions as they are, and norms by their logarithm. */
const placed = (w) => {
  const norm = Math.hypot(...w);
  return w.map((value) => (value / norm) * Math.max(1 + Math.log10(norm), 0));
};

export function figure(stage, { u, t, place, rate }) {
  let at = place;
  const moment = secondMoment(u);
  const toTarget = [0, 1].map((k) => u.reduce((total, row, i) => total + row[k] * t[i], 0) / t.length);
  const [a, b, c] = moment;
  const best = [c * toTarget[0] - b * toTarget[1], a * toTarget[1] - b * toTarget[0]];
  const speed = stage.slider({
    name: "rate", label: "learning rate η", values: RATES, value: rate,
    format: (value) => Number(value.toPrecision(2)).toLocaleString("en"),
  });
  const axis = { domain: [-REACH, REACH], hidden: true };
  const plane = stage.plot({
    title: "The weights: drag the start. Circles: norms 1, 10, 100, …",
    x: axis,
    y: axis,
    height: 1,
    margin: { left: 14, bottom: 14 },
  });
  const angles = stage.plot({
    title: "Angle from the best direction, in degrees",
    x: { domain: [1, STEPS], log: true, label: "steps taken", ticks: [1, 10, 100, 1000, 10000], format: (n) => n.toLocaleString("en") },
    y: { domain: [0, 180], label: "angle", ticks: [0, 45, 90, 135, 180] },
    margin: { right: 26 },
  });
  plane.handle({
    name: "start",
    label: "start",
    color: "ink",
    at: () => at,
    text: () => `norm ${norm(at).toPrecision(2)}, at ${Math.round(Math.atan2(at[1], at[0]) * DEGREES)}°`,
    x: { step: 0.05, limits: [-START[1], START[1]] },
    y: { step: 0.05, limits: [-START[1], START[1]] },
    move: (x, y) => {
      const length = Math.hypot(x, y) || 1;
      const within = Math.min(Math.max(length, START[0]), START[1]);
      at = [(x / length) * within, (y / length) * within];
    },
  });
  const shown = {
    first: stage.number({ name: "first", label: "effective rate η/‖w‖² at the start" }),
    second: stage.number({ name: "second", label: "and after one step" }),
    turned: stage.number({ name: "turned", label: "degrees that the first step turns" }),
    norm: stage.number({ name: "norm", label: "norm ‖w‖ at the end" }),
    steps: stage.number({ name: "steps", label: `steps until within ${NEAR}°` }),
  };

  return () => {
    plane.frame([0, 0], REACH);
    const start = at.map((value) => (value / Math.hypot(...at)) * norm(at));
    const path = unitDescent(moment, toTarget, start, { rate: speed.value, steps: STEPS });
    const away = path.map(({ w }) => angle(w, best));
    const arrived = away.findIndex((value) => value <= NEAR);
    const effective = [path[0], path[1]].map(({ w }) => speed.value / Math.hypot(...w) ** 2);
    const turned = angle(path[1].w, path[0].w);
    shown.first(effective[0], short(effective[0]));
    shown.second(effective[1], short(effective[1]));
    shown.turned(turned, short(turned));
    shown.norm(Math.hypot(...path[STEPS].w), short(Math.hypot(...path[STEPS].w)));
    shown.steps(arrived, arrived < 0 ? `more than ${STEPS.toLocaleString("en")}` : arrived.toLocaleString("en"));

    const round = Array.from({ length: 73 }, (_, i) => [Math.cos(i / 36 * Math.PI), Math.sin(i / 36 * Math.PI)]);
    const rings = [1, 2, 3, 4, 5].map((radius) => round.map((point) => point.map((value) => value * radius)));
    plane.lines("rings", rings, { color: "neutral", width: 1, opacity: 0.6 });
    const far = best.map((value) => (value / Math.hypot(...best)) * 6);
    plane.lines("best", [[[0, 0], far]], { color: "ink", dash: "5 4", width: 1.5 });
    const steps = SHOWN.map((step) => placed(path[step].w));
    plane.lines("path", [steps], { color: "batch", width: 1.5 });
    plane.dots("steps", steps, { color: "batch", r: 2.5 });
    plane.words("labels", [{ at: placed(best.map((value) => value * 1e3)), text: "best", dx: 24, dy: 14 }]);
    const line = SHOWN.slice(1).map((step) => [step, away[step]]);
    angles.lines("angle", [line], { color: "batch", width: 2.5 });
    stage.say(sentence(effective[0] * path[0].gradient * Math.hypot(...path[0].w), turned, arrived));
  };
}

/** The norm that a place in the plane stands for. */
const norm = (place) => 10 ** (Math.hypot(...place) - 1);

const angle = (v, w) => Math.abs(Math.atan2(v[0] * w[1] - v[1] * w[0], v[0] * w[0] + v[1] * w[1])) * DEGREES;

const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

/** `tangent` is ηe‖G‖, the tangent of the first turn. */
function sentence(tangent, turned, arrived) {
  const end = arrived < 0 ? "10,000 steps are not enough." : `${short(arrived)} ${arrived === 1 ? "step arrives" : "steps arrive"}.`;
  if (tangent < 0.3) return `Every step turns the weights a little, and they hardly grow: ${end}`;
  const first = `The first step turns the weights by ${turned.toFixed(0)}° and makes them ${short(Math.hypot(1, tangent))} times as long.`;
  return `${first} ${tangent > 3 ? "From there steps are short:" : "That is about right:"} ${end}`;
}
