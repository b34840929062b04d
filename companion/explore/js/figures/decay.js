/** Scale-invariant weights under descent with weight decay, and a drop of the learning rate. */

import { decayPath } from "../bn.js";

const ANGLES = [-4, -3, -2, -1, 0];
const LENGTHS = [-1, 0, 1];
const ten = (power) => ["10⁻⁴", "10⁻³", "0.01", "0.1", "1", "10"][power + 4];

export function figure(stage, { gradient, steps, step, rate, decay, start, drop }) {
  const eta = stage.slider({
    name: "rate", label: "learning rate η", values: [0.05, 0.1, 0.2, 0.4, 0.8, 1.6], value: rate,
  });
  const lambda = stage.slider({
    name: "decay", label: "weight decay λ", values: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1], value: decay,
  });
  const first = stage.slider({
    name: "start", label: "length at the start", values: [0.1, 0.2, 0.5, 1, 2, 5, 10], value: start,
  });
  const fall = stage.slider({
    name: "drop", label: "half way, η is divided by", values: [1, 2, 5, 10, 100], value: drop,
  });
  const x = { domain: [0, steps], label: "step" };
  const lengths = stage.plot({
    title: "The length r",
    x: { ...x, label: "step: drag the point" },
    y: { domain: [-1.3, 1.3], label: "r", ticks: LENGTHS, format: ten },
    height: 0.62,
    margin: { right: 22 },
  });
  const angles = stage.plot({
    title: "The angle of a step, in radians",
    x,
    y: { domain: [-4.4, 0.3], ticks: ANGLES, format: ten },
    height: 0.62,
    margin: { right: 22 },
  });
  let path = [];
  lengths.handle({
    name: "step",
    label: "step",
    color: "neutral",
    at: () => [step, Math.log10(path[step].r)],
    text: () => `step ${step}: r = ${path[step].r.toPrecision(3)}`,
    x: { step: 10, limits: [0, steps] },
    move: (chosen) => (step = chosen),
  });
  const shown = {
    r: stage.number({ name: "r", label: "length r" }),
    rest: stage.number({ name: "rest", label: "r*" }),
    angle: stage.number({ name: "angle", label: "angle of the step" }),
    restAngle: stage.number({ name: "restAngle", label: "arccos(1 − ηλ)" }),
    effective: stage.number({ name: "effective", label: "effective rate η/r²" }),
  };

  return () => {
    const half = steps / 2;
    const rates = [eta.value, eta.value / fall.value];
    const at = (t) => rates[t < half ? 0 : 1];
    path = decayPath(first.value, Array.from({ length: steps + 1 }, (_, t) => at(t)), lambda.value, gradient);
    const rests = rates.map((each) => equilibrium(each, lambda.value, gradient));
    const level = (name) => rests.map((rest, i) => [[i * half, 0], [(i + 1) * half, 0]].map(([t]) => [t, Math.log10(rest[name])]));
    const curve = (name) => [path.map((state, t) => [t, Math.log10(state[name])])];
    for (const [plot, name] of [[lengths, "r"], [angles, "angle"]]) {
      plot.lines("rest", level(name), { dash: "5 4", width: 1.5 });
      plot.lines("path", curve(name), { color: "batch", width: 2.5 });
    }
    angles.dots("now", [[step, Math.log10(path[step].angle)]], { color: "neutral", r: 5, inside: true });
    const [now, rest] = [path[step], rests[step < half ? 0 : 1]];
    const numbers = { r: now.r, rest: rest.r, angle: now.angle, restAngle: rest.angle, effective: at(step) / now.r ** 2 };
    for (const [name, value] of Object.entries(numbers)) shown[name](value, value.toPrecision(3));
    stage.say(sentence(now.r / rest.r, step >= half && fall.value > 1));
  };
}

function equilibrium(rate, decay, gradient) {
  const kept = rate * decay;
  return { r: Math.sqrt((rate * gradient) / Math.sqrt(kept * (2 - kept))), angle: 2 * Math.asin(Math.sqrt(kept / 2)) };
}

function sentence(ratio, dropped) {
  if (ratio < 0.98) return "The weights are short and their gradient is long: the steps make them longer, and turn them by more than at rest.";
  if (ratio < 1.02) return "Equilibrium: decay takes what the steps add, and the angle is that of ηλ alone. Where the weights started does not matter.";
  if (dropped) return "The rate has dropped, and the weights are too long for it: the steps turn them by less than at rest, until decay has shortened them.";
  return "The weights are long: the steps hardly turn them, and decay shortens them by the share ηλ a step.";
}
