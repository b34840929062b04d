/** γ, β and the batch size against the distance of a normalized feature from the feature itself. */

import { forward, mean, moments } from "../bn.js";

const SIZES = [2, 4, 8, 16, 32, 64, 128, 256];
const RINGS = [1, 2, 4, 8, 16]; // distances, in units of the feature

export function figure(stage, { x, eps, gamma, beta, m }) {
  const all = moments(x);
  const std = Math.sqrt(all.var + eps);
  const ranges = {
    gamma: { step: 0.05, limits: [-1, 7], snaps: [std] },
    beta: { step: 0.1, limits: [-2, 28], snaps: [all.mean] },
  };
  const slider = (name, label, value) => {
    const { step, limits, snaps } = ranges[name];
    const format = (number) => number.toFixed(2);
    return stage.slider({ name, label, min: limits[0], max: limits[1], step, snaps, value, format });
  };
  const scale = slider("gamma", "scale γ", gamma);
  const shift = slider("beta", "shift β", beta);
  const size = stage.slider({ name: "m", label: "batch size m", values: SIZES, value: m });

  const plane = stage.plot({
    title: "Choose γ and β",
    x: { domain: ranges.gamma.limits, label: "γ" },
    y: { domain: ranges.beta.limits, label: "β" },
    height: 0.62,
  });
  const lines = stage.plot({
    title: "What comes out",
    x: { domain: [5, 30], label: "input x" },
    y: { domain: [-4, 32], label: "output y" },
    height: 0.62,
  });
  plane.handle({
    name: "parameters",
    label: "γ and β: left and right change γ, up and down change β",
    at: () => [scale.value, shift.value],
    text: () => `γ = ${scale.value.toFixed(2)}, β = ${shift.value.toFixed(2)}`,
    x: ranges.gamma,
    y: ranges.beta,
    move: (newGamma, newBeta) => {
      scale.value = newGamma;
      shift.value = newBeta;
    },
  });
  const distance = stage.number({ name: "mse", label: "mean (y − x)²" });
  const cost = stage.number({ name: "cost", label: "left over at γ = σ, β = μ" });

  return () => {
    const [g, b] = [scale.value, shift.value];
    const batches = [];
    for (let first = 0; first < x.length; first += size.value) {
      batches.push(forward(x.slice(first, first + size.value), { gamma: g, beta: b, eps }));
    }
    const xHat = batches.flatMap((batch) => batch.xHat);
    const y = batches.flatMap((batch) => batch.y);
    const error = (values) => mean(values.map((value, i) => (value - x[i]) ** 2));
    const mse = error(y);
    const left = error(xHat.map((value) => std * value + all.mean));
    distance(mse, mse.toFixed(3));
    cost(left, left.toFixed(3));

    lines.lines("identity", [[[5, 5], [30, 30]]], { color: "neutral", width: 7, opacity: 0.45 });
    lines.dots("outputs", x.map((value, i) => [value, y[i]]), { color: "batch", r: 2.5, opacity: 0.8 });
    lines.words("labels", [{ at: [28.5, 28.5], text: "y = x", anchor: "end", dx: -12 }]);
    drawRings(plane, xHat, x, all.mean);
    plane.dots("target", [[std, all.mean]], { r: 6, hollow: true });
    plane.words("labels", [{ at: [std, all.mean], text: "γ = σ, β = μ", dy: -14 }]);
    stage.say(sentence(mse, size.value, x.length));
  };
}

/** Where the distance is the same: ellipses, for it is quadratic in γ and β and does not mix them. */
function drawRings(plane, xHat, x, mu) {
  const energy = mean(xHat.map((value) => value ** 2));
  const best = mean(xHat.map((value, i) => value * x[i])) / energy;
  const turn = Array.from({ length: 73 }, (_, i) => (i * Math.PI) / 36);
  const rings = RINGS.map((r) =>
    turn.map((angle) => [best + (r / Math.sqrt(energy)) * Math.cos(angle), mu + r * Math.sin(angle)]),
  );
  plane.lines("rings", rings, { color: "neutral", width: 1 });
}

function sentence(mse, m, all) {
  if (mse < 5e-4) return "The points lie on y = x: γ = σ and β = μ undo the normalization.";
  if (m === all) return "One line for all values, for they share one mean and one variance. It is not yet y = x.";
  return `Batches of ${m}: each has its own mean and variance, so no γ and β put all points on y = x.`;
}
