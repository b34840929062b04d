/** Gradient descent on a least-squares problem whose inputs the reader stretches and turns. */

import { descentSteps, eigen, secondMoment } from "../bn.js";

const LEVELS = [0.01, 0.1, 0.4, 1, 2.5]; // of the excess at the start
const TOLERANCE = 0.001; // fraction of the loss at which descent stops
const SHOWN = 200; // steps of a path
const STRETCH = [0.2, 3];

export function figure(stage, { z, weights, long, short, angle, inputs }) {
  const shape = { long, short, angle };
  const choice = stage.choice({
    name: "inputs",
    label: "inputs",
    options: { raw: "as they are", whitened: "whitened" },
    value: inputs,
  });
  const data = stage.plot({
    title: "The inputs: drag the ellipse",
    x: { domain: [-8, 8], label: "input 1" },
    y: { domain: [-6, 6], label: "input 2" },
  });
  const valley = stage.plot({
    title: "The loss, and descent on it",
    x: { domain: [-4, 4], label: "weight 1" },
    y: { domain: [-3, 3], label: "weight 2" },
  });
  const axes = () => {
    const [cos, sin] = [Math.cos(shape.angle), Math.sin(shape.angle)];
    return { long: [shape.long * cos, shape.long * sin], short: [-shape.short * sin, shape.short * cos] };
  };
  const tip = (name, label, move) =>
    data.handle({
      name,
      label,
      color: "ink",
      at: () => axes()[name],
      text: () => `${label}, length ${shape[name].toFixed(2)}`,
      x: { step: 0.05, limits: [-3, 3] },
      y: { step: 0.05, limits: [-3, 3] },
      move,
    });
  const within = (length) => Math.min(Math.max(length, STRETCH[0]), STRETCH[1]);
  tip("long", "first axis", (x, y) => {
    shape.long = within(Math.hypot(x, y));
    shape.angle = Math.atan2(y, x);
  });
  tip("short", "second axis", (x, y) => {
    shape.short = within(-x * Math.sin(shape.angle) + y * Math.cos(shape.angle));
  });
  const kappa = stage.number({ name: "kappa", label: "condition number κ" });
  const rate = stage.number({ name: "rate", label: "learning rate" });
  const steps = stage.number({ name: "steps", label: "steps until 0.1 % of the loss is left" });

  return () => {
    const tips = axes();
    const stretch = ([u, v]) => [0, 1].map((k) => tips.long[k] * u + tips.short[k] * v);
    const x = z.map(stretch);
    // The same predictions from whitened inputs: w·x = (Mᵀw)·z for x = Mz.
    const white = choice.value === "whitened";
    const best = white
      ? [tips.long, tips.short].map((axis) => axis[0] * weights[0] + axis[1] * weights[1])
      : weights;
    const problem = descent(secondMoment(white ? z : x), best);
    kappa(problem.kappa, problem.kappa.toFixed(2));
    rate(problem.rate, problem.rate.toPrecision(3));
    steps(problem.steps, String(problem.steps));

    const turn = Array.from({ length: 73 }, (_, i) => [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)]);
    const unit = turn.map(([u, v]) => [2 * u, 2 * v]);
    const color = white ? "white" : "plain";
    data.dots("inputs", white ? z : x, { color, r: 3, opacity: 0.7, inside: true });
    data.lines("ellipse", [white ? unit : unit.map(stretch)], { color, width: 1.5 });
    data.lines("axes", [[[0, 0], tips.long], [[0, 0], tips.short]], { color: "neutral", width: 1 });
    valley.lines("levels", LEVELS.map((level) => turn.map((u) => problem.level(level, u))), { color: "neutral", width: 1 });
    valley.lines("path", [problem.path], { color, width: 1.5 });
    valley.dots("steps", problem.path, { color, r: 2.5 });
    valley.words("labels", [
      { at: [0, 0], text: "start", dy: 18 },
      { at: best, text: "+", dy: 5 },
    ]);
    stage.say(sentence(white, problem));
  };
}

/** Descent from 0 on ½(w − best)ᵀH(w − best), at nine tenths of the largest stable rate. */
function descent(hessian, best) {
  const { values, vectors } = eigen(hessian);
  const kappa = values[0] / values[1];
  // For equal eigenvalues the best rate is known, and arrives at once.
  const round = kappa - 1 < 1e-9;
  const rate = (round ? 1 : 1.8) / values[0];
  const along = vectors.map((v) => -(v[0] * best[0] + v[1] * best[1]));
  const excess = along.map((error, k) => (values[k] * error * error) / 2);
  const first = excess[0] + excess[1];
  const steps = descentSteps(values, excess, rate, TOLERANCE);
  const place = (errors) => [0, 1].map((k) => best[k] + errors[0] * vectors[0][k] + errors[1] * vectors[1][k]);
  const path = Array.from({ length: Math.min(steps, SHOWN) + 1 }, (_, t) =>
    place(along.map((error, k) => error * (1 - rate * values[k]) ** t)),
  );
  const level = (part, u) => place(values.map((value, k) => u[k] * Math.sqrt((2 * part * first) / value)));
  return { kappa, rate, steps, path, level };
}

function sentence(white, { kappa, steps }) {
  if (white) return "Whitened inputs make a round bowl, whatever the ellipse was: one step arrives.";
  if (kappa > 20) return `A long ellipse makes a narrow valley: descent bounces between its walls, ${steps} steps long.`;
  if (kappa < 2) return "The ellipse is almost a circle and the loss almost a round bowl.";
  return "Stretch the ellipse: the valley narrows across it, and the steps multiply. Then whiten.";
}
