/** The bias of a centred layer, while descent takes the mean for a constant, and while it does not. */

import { biasDescent } from "../bn.js";

const EVERY = [1, 2, 5, 10, 20, 60];
const HIGHEST = 40;

export function figure(stage, { u, t, steps, step, mean, rate, every }) {
  const way = stage.choice({
    name: "mean",
    label: "to descent the mean is",
    options: { constant: "a constant", inside: "part of the gradient" },
    value: mean,
  });
  const speed = stage.slider({
    name: "rate", label: "learning rate η", min: 0.05, max: 0.5, step: 0.05, value: rate,
    format: (value) => value.toFixed(2),
  });
  const renewal = stage.slider({
    name: "every", label: "one mean serves", values: EVERY, value: every,
    format: (value) => (value === 1 ? "1 step" : `${value} steps`),
  });
  const axis = { domain: [0, steps], label: "step" };
  const biases = stage.plot({
    title: "The bias b, in cm",
    x: { ...axis, label: "step: drag the point" },
    y: { domain: [-2, HIGHEST], label: "b" },
    height: 0.62,
  });
  const losses = stage.plot({
    title: "The loss",
    x: axis,
    y: { domain: [0, 1.5], label: "loss" },
    height: 0.62,
  });
  let path = [];
  biases.handle({
    name: "step",
    label: "step",
    color: "neutral",
    at: () => [step, path[step].b],
    text: () => `step ${step}: b = ${path[step].b.toFixed(2)}`,
    x: { step: 1, limits: [0, steps] },
    move: (chosen) => (step = chosen),
  });
  const shown = {
    b: stage.number({ name: "b", label: "bias b" }),
    loss: stage.number({ name: "loss", label: "loss" }),
    gradient: stage.number({ name: "gradient", label: "gradient that descent follows" }),
  };

  return () => {
    const inside = way.value === "inside";
    path = biasDescent(u, t, { rate: speed.value, steps, every: renewal.value, inside });
    const line = (name) => [path.map((state, k) => [k, state[name]])];
    const color = inside ? "batch" : "plain";
    biases.lines("bias", line("b"), { color, width: 2.5 });
    losses.lines("loss", line("loss"), { color, width: 2.5 });
    losses.lines("now", [[[step, 0], [step, 1.5]]], { color: "neutral", dash: "5 4", width: 1.5 });
    losses.dots("now-loss", [[step, path[step].loss]], { color, r: 5 });
    for (const [name, show] of Object.entries(shown)) {
      show(path[step][name], path[step][name].toFixed(3));
    }
    stage.say(sentence(inside, renewal.value, steps));
  };
}

function sentence(inside, every, steps) {
  if (inside) return "The gradient of b is 0. b stays where it is, and so does the loss: there is nothing to learn in b.";
  if (every === 1) return "b rises by the same step for ever. The loss does not notice: the new mean takes off what b has added.";
  if (every === steps) return "The mean stays that of the first step. Now b is an ordinary bias: it learns the targets’ mean, and rests.";
  return `For ${every} steps the loss falls. Then the mean is computed anew, and all that was gained is lost; b keeps drifting.`;
}
