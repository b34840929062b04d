/** The gradient on its way down a random normalized stack, for a batch of a size that is chosen. */

import { gradientNorms } from "../bn.js";
import { draws } from "../random.js";

const SIZES = [5, 6, 8, 12, 16, 32];
const FINE = 2 ** 16; // values that a random number is drawn from
const HIGHEST = 3e5;

/** Random matrices, inputs and a gradient: uniform values of variance 1, the matrices' over n. */
function network(seed, width, deepest, most) {
  const drawn = draws(seed, FINE, width * (width * deepest + 2 * most));
  const values = drawn.map((value) => Math.sqrt(3) * ((2 * value + 1) / FINE - 1));
  let used = 0;
  const take = (count, scale = 1) => {
    used += count;
    return values.slice(used - count, used).map((value) => scale * value);
  };
  const rows = (count, each, scale) => Array.from({ length: count }, () => take(each, scale));
  const matrices = Array.from({ length: deepest }, () => rows(width, width, 1 / Math.sqrt(width)));
  return { matrices, inputs: rows(width, most), gradient: rows(width, most) };
}

export function figure(stage, { width, deepest, activation, m, depth, seed, growths }) {
  const chosen = stage.choice({
    name: "activation",
    label: "activation",
    options: { line: "none", sigmoid: "sigmoid", tanh: "tanh", relu: "ReLU" },
    value: activation,
  });
  const deep = stage.slider({ name: "depth", label: "layers", min: 5, max: deepest, step: 1, value: depth });
  const size = stage.slider({ name: "m", label: "batch size m", values: SIZES, value: m });
  const again = stage.slider({ name: "seed", label: "random network", min: 1, max: 9, step: 1, value: seed });
  const plot = stage.plot({
    title: "Norm of the gradient, as a multiple of its norm at the top",
    x: { domain: [0, deepest], label: "layers below the top" },
    y: { domain: [0.3, HIGHEST], log: true, ticks: [1, 10, 100, 1e3, 1e4, 1e5], format: power },
    height: 0.6,
    margin: { left: 34 },
  });
  const numbers = {
    growth: stage.number({ name: "growth", label: "measured factor per layer" }),
    predicted: stage.number({ name: "predicted", label: "predicted factor per layer" }),
    ratio: stage.number({ name: "ratio", label: "measured, bottom over top" }),
    predictedRatio: stage.number({ name: "predictedRatio", label: "predicted, bottom over top" }),
  };
  let drawn = {};

  return () => {
    if (drawn.seed !== again.value) {
      drawn = { seed: again.value, ...network(again.value, width, deepest, SIZES.at(-1)) };
    }
    const batch = (units) => units.map((values) => values.slice(0, size.value));
    const norms = gradientNorms(
      chosen.value, batch(drawn.inputs), drawn.matrices.slice(0, deep.value), batch(drawn.gradient),
    );
    const predicted = growths[chosen.value] * Math.sqrt((size.value - 2) / (size.value - 3));
    const ratio = norms.at(-1) / norms[0];
    const growth = ratio ** (1 / deep.value);
    numbers.growth(growth, growth.toFixed(3));
    numbers.predicted(predicted, predicted.toFixed(3));
    numbers.ratio(ratio, ratio.toPrecision(3));
    numbers.predictedRatio(predicted ** deep.value, (predicted ** deep.value).toPrecision(3));
    const line = Array.from({ length: deep.value + 1 }, (_, k) => [k, predicted ** k]);
    plot.lines("predicted", [line], { dash: "6 4", width: 1.5 });
    plot.dots("measured", norms.map((norm, k) => [k, norm / norms[0]]), { color: "batch", r: 4, inside: true });
    stage.say(sentence(chosen.value, size.value, growth, deep.value));
  };
}

const power = (value) => (value >= 1e3 ? `10${"⁰¹²³⁴⁵"[Math.round(Math.log10(value))]}` : String(value));

function sentence(activation, m, growth, depth) {
  const part = Math.sqrt((m - 2) / (m - 3));
  if (activation === "line") {
    return `Nothing is bent here: all growth comes from the batch of ${m}. Each layer multiplies the gradient by about ${growth.toFixed(2)}.`;
  }
  if (m <= 8) return `The batch of ${m} alone makes about ${part.toFixed(2)} per layer; what the activation bends comes on top.`;
  return `With ${m} values the batch adds little. ${depth} layers make ${(growth ** depth).toPrecision(2)} of the 1 at the top.`;
}
