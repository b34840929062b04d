/** Gradient descent on a least-squares problem whose inputs the reader stretches and turns. */

import { descentSteps, eigen, secondMoment } from "../bn.js";

const LEVELS = [0.01, 0.1, 0.4, 1, 2.5]; // of the excess at the start
const TOLERANCE = 0.001; // fraction of the loss at which descent stops
const DOTS = 60; // of the first steps; the line goes to the end
const STRETCH = [0.15, 3]; // condition numbers up to 400
const REACH = 1.3; // from the minimum to the frame, in distances from it to the start

/** The targets are `weights`·z whatever the ellipse is: only the inputs x, stretched z, change. */
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
    x: { domain: [-4, 4], label: "weight of input 1" },
    y: { domain: [-3, 3], label: "weight of input 2" },
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
  const rate = stage.number({ name: "rate", label: "best learning rate η*" });
  const steps = stage.number({ name: "steps", label: "steps until 0.1 % of the loss is left" });
  const bound = stage.number({ name: "bound", label: "steps that suffice, (κ/4)·ln 1000" });

  return () => {
    const tips = axes();
    const stretch = ([u, v]) => [0, 1].map((k) => tips.long[k] * u + tips.short[k] * v);
    const x = z.map(stretch);
    // The same predictions w·x from stretched inputs: w·long = long·weight 1, and w·short alike.
    const white = choice.value === "whitened";
    const along = [weights[0] / shape.long ** 2, weights[1] / shape.short ** 2];
    const best = white ? weights : [0, 1].map((k) => along[0] * tips.long[k] + along[1] * tips.short[k]);
    const problem = descent(secondMoment(white ? z : x), best);
    kappa(problem.kappa, problem.kappa.toFixed(2));
    rate(problem.rate, problem.rate.toPrecision(3));
    steps(problem.steps, String(problem.steps));
    const enough = (problem.kappa / 4) * Math.log(1 / TOLERANCE);
    bound(enough, enough.toFixed(1));

    // The minimum is in the middle of the frame and the start inside, however long the way is.
    valley.frame(best, REACH * Math.hypot(...best));
    data.frame([0, 0], 6);

    const turn = Array.from({ length: 73 }, (_, i) => [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)]);
    const unit = turn.map(([u, v]) => [2 * u, 2 * v]);
    const color = white ? "white" : "plain";
    data.dots("inputs", white ? z : x, { color, r: 3, opacity: 0.7, inside: true });
    data.lines("ellipse", [white ? unit : unit.map(stretch)], { color, width: 1.5 });
    data.lines("axes", [[[0, 0], tips.long], [[0, 0], tips.short]], { color: "neutral", width: 1 });
    valley.lines("levels", LEVELS.map((level) => turn.map((u) => problem.level(level, u))), { color: "neutral", width: 1 });
    valley.lines("path", [problem.path], { color, width: 1.5 });
    valley.dots("steps", problem.path.slice(0, DOTS), { color, r: 2.5 });
    valley.words("labels", [
      { at: [0, 0], text: "start", dy: best[1] > 0 ? 18 : -10 },
      { at: best, text: "+", dy: 5 },
    ]);
    stage.say(sentence(white, problem));
  };
}

/** Descent from 0 on ½(w − best)ᵀH(w − best), at the best rate. */
function descent(hessian, best) {
  const { values, vectors } = eigen(hessian);
  const rate = 2 / (values[0] + values[1]);
  const along = vectors.map((v) => -(v[0] * best[0] + v[1] * best[1]));
  const excess = along.map((error, k) => (values[k] * error * error) / 2);
  const first = excess[0] + excess[1];
  const steps = descentSteps(values, excess, rate, TOLERANCE);
  const place = (errors) => [0, 1].map((k) => best[k] + errors[0] * vectors[0][k] + errors[1] * vectors[1][k]);
  const path = Array.from({ length: steps + 1 }, (_, t) =>
    place(along.map((error, k) => error * (1 - rate * values[k]) ** t)),
  );
  const level = (part, u) => place(values.map((value, k) => u[k] * Math.sqrt((2 * part * first) / value)));
  return { kappa: values[0] / values[1], rate, steps, path, level };
}

function sentence(white, { kappa, steps }) {
  if (white) return "Whitened inputs make a round bowl, whatever the ellipse was: one step arrives.";
  if (kappa < 1.5) return `The ellipse is almost a circle and the loss almost a round bowl: ${steps} ${steps === 1 ? "step" : "steps"}.`;
  const each = (steps / kappa).toFixed(1);
  const shape = kappa > 20 ? "A long ellipse makes a narrow valley" : "Stretch the ellipse and the valley narrows across it";
  return `${shape}: ${steps} steps, ${each} for each unit of κ. Then whiten.`;
}
