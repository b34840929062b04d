/** The lines on which the units of a random layer bend, among flowers that can be moved. */

import { distances, kink, mean, moments } from "../bn.js";
import { draws } from "../random.js";

const SIZES = [4, 8, 32, 150];
const VIEW = { x: [-4, 10], y: [-3.2, 5.2] };
const REACH = 30; // half the length of a drawn line: it leaves the view on both sides
const FIXED = { mean: 0, var: 1 }; // without normalization

const dot = (a, b) => a[0] * b[0] + a[1] * b[1];

export function figure(stage, { points, weights, center, way, beta, sign, m, seed }) {
  const statistics = stage.choice({
    name: "statistics",
    label: "the layer is",
    options: { batch: "normalized over a batch", none: "not normalized" },
    value: way,
  });
  const sides = stage.choice({
    name: "sign", label: "γ is", options: { plus: "1", minus: "−1" }, value: sign,
  });
  const shift = stage.slider({
    name: "beta", label: "β of all units", min: -3, max: 3, step: 0.25, value: beta,
    format: (value) => value.toFixed(2),
  });
  const size = stage.slider({ name: "m", label: "flowers in the batch, m", values: SIZES, value: m });
  const batch = stage.slider({ name: "batch", label: "which batch", min: 1, max: 12, step: 1, value: 1 });
  const place = [...center];
  const plot = stage.plot({
    x: { domain: VIEW.x, label: "petal length, moved (cm)" },
    y: { domain: VIEW.y, label: "petal width, moved (cm)" },
    height: 0.62,
    least: 260,
    most: 420,
  });
  plot.handle({
    name: "flowers",
    label: "the mean of all flowers: arrow keys move them",
    color: "neutral",
    at: () => place,
    text: () => `at ${place[0].toFixed(2)}, ${place[1].toFixed(2)} cm`,
    x: { step: 0.25, limits: [-1, 7], snaps: [center[0]] },
    y: { step: 0.25, limits: [-1.5, 3.5], snaps: [center[1]] },
    move: (x, y) => place.splice(0, 2, x, y),
  });
  const shown = {
    cutting: stage.number({ name: "cutting", label: "lines with flowers on both sides" }),
    off: stage.number({ name: "off", label: "units that are 0 for every flower" }),
    distance: stage.number({ name: "distance", label: "mean squared distance of flowers from lines, cm²" }),
    least: stage.number({ name: "least", label: "the least for lines of these directions, cm²" }),
  };

  return () => {
    const normalized = statistics.value === "batch";
    const moved = points.map(([x, y]) => [x + place[0] - center[0], y + place[1] - center[1]]);
    const drawn = size.value === points.length ? moved : draws(seed + batch.value, points.length, size.value).map((i) => moved[i]);
    const parameters = { gamma: sides.value === "plus" ? 1 : -1, beta: shift.value, eps: 0 };
    const lines = weights.map((w) => kink(normalized ? moments(drawn.map((u) => dot(w, u))) : FIXED, parameters));
    const far = weights.map((w, j) => distances(moved, w, lines[j]));
    const counts = far.map((each) => each.filter((value) => value > 0).length);
    const cutting = counts.filter((count) => count > 0 && count < points.length).length;
    const off = counts.filter((count) => count === 0).length;
    const distance = mean(far.map((each) => mean(each.map((value) => value * value))));
    const least = mean(weights.map((w) => moments(moved.map((u) => dot(w, u))).var / dot(w, w)));
    shown.cutting(cutting, `${cutting} of ${weights.length}`);
    shown.off(off, `${off} of ${weights.length}`);
    shown.distance(distance, distance.toFixed(2));
    shown.least(least, least.toFixed(2));
    plot.dots("flowers", moved, { color: "neutral", r: 2.5, opacity: 0.6, inside: true });
    plot.dots("batch", normalized && drawn !== moved ? drawn : [], { color: "ink", r: 4, hollow: true, inside: true });
    plot.lines("lines", weights.map((w, j) => ends(w, lines[j].at)), { color: normalized ? "batch" : "plain", width: 1.8 });
    plot.dots("origin", [[0, 0]], { color: "ink", r: 3.5 });
    plot.words("words", [{ at: [0, 0], text: "origin", anchor: "end", dx: -8, dy: 16 }]);
    stage.say(sentence(normalized, shift.value, size.value === points.length, off));
  };
}

/** Two points of the line wᵀu = at, far outside the view. */
function ends(w, at) {
  const length = Math.hypot(...w);
  const foot = w.map((value) => (value * at) / length ** 2);
  return [-REACH, REACH].map((t) => [foot[0] - (t * w[1]) / length, foot[1] + (t * w[0]) / length]);
}

function sentence(normalized, beta, all, off) {
  if (!normalized && beta === 0) return "All lines go through the origin, wherever the flowers are. Drag the flowers: no line follows.";
  if (!normalized) return "β moves the lines off the origin. Where the flowers are, the lines do not know.";
  if (beta === 0 && all) return "All lines go through the mean of the flowers, and follow it. No other place is closer to the flowers.";
  if (beta === 0) return "All lines go through the mean of the batch. Another batch, and they move a little.";
  const switched = off > 0 ? ` ${off} of them are off: no flower is on their active side.` : "";
  return `β has pushed the lines from the mean, by |β/γ| standard deviations.${switched}`;
}
