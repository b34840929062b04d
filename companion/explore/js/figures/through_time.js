/** Back through the steps of a normalized recurrence: the gradient, and what is predicted of it. */

import { forward, gradientThroughTime, recurrentFactor } from "../bn.js";

const GAMMAS = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.4, 2];
const RATIOS = [0, 0.05, 0.1, 0.2, 0.5, 1];
const LOWEST = -10;

export function figure(stage, { orthogonal, features, examples, stride, steps, back, start, gamma, ratio }) {
  const way = stage.choice({
    name: "start",
    label: "recurrent weights",
    options: { orthogonal: "orthogonal", identity: "the identity" },
    value: start,
  });
  const past = stage.slider({
    name: "gamma", label: "γ of the past", values: GAMMAS, value: gamma,
    format: (value) => value.toFixed(1),
  });
  const present = stage.slider({
    name: "ratio", label: "γ of the input, over that", values: RATIOS, value: ratio,
    format: (value) => (value === 0 ? "0: no input" : String(value)),
  });
  const plot = stage.plot({
    title: "The gradient, divided by the last step’s",
    x: { domain: [0, steps], label: "steps back: drag the point" },
    y: { domain: [LOWEST, 6], label: "power of 10" },
    height: 0.6,
  });
  // Example i sees at step t the image number i + stride·t.
  const inputs = Array.from({ length: steps + 3 }, (_, t) =>
    features[0].map((_, j) => {
      const unit = Array.from({ length: examples }, (_, i) => features[(i + stride * t) % features.length][j]);
      return forward(unit).xHat;
    }),
  );
  const identity = orthogonal.map((row, j) => row.map((_, k) => (j === k ? 1 : 0)));
  let path = [];
  plot.handle({
    name: "step",
    label: "steps back",
    color: "batch",
    at: () => [back, Math.max(path[back], LOWEST)],
    text: () => `${back} steps back: ${power(path[back])} of the gradient`,
    x: { step: 1, limits: [0, steps] },
    move: (chosen) => (back = chosen),
  });
  const shown = {
    share: stage.number({ name: "share", label: "share of the past ρ" }),
    factor: stage.number({ name: "factor", label: "predicted factor of a step χ" }),
    expected: stage.number({ name: "expected", label: "predicted for these steps" }),
    left: stage.number({ name: "left", label: "gradient that is left" }),
  };

  return () => {
    const weights = way.value === "identity" ? identity : orthogonal;
    const [gammaH, gammaX] = [past.value, past.value * present.value];
    const norms = gradientThroughTime(weights, inputs, { gammaH, gammaX });
    path = norms.map((norm) => Math.log10(norm / norms[0]));
    const share = 1 / (1 + present.value ** 2);
    const factor = recurrentFactor(Math.hypot(gammaH, gammaX), share);
    const values = { share, factor, expected: factor ** back, left: norms[back] / norms[0] };
    plot.lines("one", [[[0, 0], [steps, 0]]], { color: "neutral", width: 1 });
    const predicted = [[0, 0], [steps, steps * Math.log10(factor)]];
    plot.lines("predicted", [predicted], { color: "ink", dash: "6 4", width: 1.5 });
    plot.lines("gradient", [path.map((value, k) => [k, value])], { color: "batch", width: 2.5 });
    shown.share(share, share.toFixed(3));
    shown.factor(factor, factor.toFixed(3));
    shown.expected(values.expected, power(Math.log10(values.expected)));
    shown.left(values.left, power(path[back]));
    stage.say(sentence(way.value, factor, path[steps]));
  };
}

/** A number by its logarithm: as it is if it is near 1, else as a power of ten. */
function power(log) {
  if (Math.abs(log) < 3) return (10 ** log).toPrecision(2);
  const exponent = Math.floor(log);
  const digits = [...String(exponent)].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("");
  return `${(10 ** (log - exponent)).toFixed(1)} · 10${digits}`;
}

function sentence(start, factor, end) {
  const fate = end < -2 ? "vanishes" : end > 1 ? "grows" : "keeps its order of magnitude";
  if (start === "identity") {
    return `With the identity no unit hears of another, and the prediction, which is for units that mix, need not hold: the gradient ${fate}.`;
  }
  if (factor < 0.97) return `Each step puts new input in the place of old: the gradient ${fate}, as predicted.`;
  if (factor > 1.03) return `The tanh saturates, and the division by s more than makes up for it: the gradient ${fate}, as predicted.`;
  return `Nearly all of the past is kept, and the tanh is nearly straight: the gradient ${fate}, as predicted.`;
}
