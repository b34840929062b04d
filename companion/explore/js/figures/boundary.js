/** The decision boundary of a trained network, once for each of some batches of a chosen size. */

import { mean, moments } from "../bn.js";
import { draws } from "../random.js";
import { contours } from "../vendor/d3.js";

const SIZES = [2, 4, 8, 16, 32, 64, 128, 256];
const BATCHES = 16;
const VIEW = { x: [-2, 3], y: [-1.6, 2.1] };
const GRID = [56, 44];
const MARGIN = 0.2; // the grid reaches over the view, so that contours close outside it

const dot = (a, b) => a[0] * b[0] + a[1] * b[1];

/** The network with its normalization folded into one scale and one shift for each hidden unit. */
function network({ weight, gamma, beta, out, bias, eps }, statistics) {
  const units = weight.map((w, j) => {
    const scale = gamma[j] / Math.sqrt(statistics[j].var + eps);
    return { w, scale, shift: beta[j] - statistics[j].mean * scale, out: out[j] };
  });
  return (x) =>
    units.reduce((sum, u) => sum + u.out * Math.max(u.scale * dot(u.w, x) + u.shift, 0), bias);
}

export function figure(stage, start) {
  const { points, classes, weight, m } = start;
  const size = stage.slider({ name: "m", label: "batch size m", values: SIZES, value: m });
  const probe = [...start.probe];
  const plot = stage.plot({
    x: { domain: VIEW.x, label: "input 1" },
    y: { domain: VIEW.y, label: "input 2" },
    height: 0.62,
    least: 290,
    most: 420,
  });
  plot.handle({
    name: "probe",
    label: "an example to classify: arrow keys move it",
    color: "plain",
    at: () => probe,
    text: () => `at ${probe[0].toFixed(2)}, ${probe[1].toFixed(2)}`,
    x: { step: 0.05, limits: VIEW.x },
    y: { step: 0.05, limits: VIEW.y },
    move: (x, y) => probe.splice(0, 2, x, y),
  });
  const votes = stage.number({ name: "votes", label: "batches that put the example in the class of the dots" });
  const logit = stage.number({ name: "logit", label: "its output at inference" });
  const flips = stage.number({ name: "flips", label: "data classified otherwise than at inference" });
  const noise = stage.number({ name: "noise", label: "mean squared noise of the output" });
  const scaled = stage.number({ name: "scaled", label: "the same × m" });

  const inputs = (indices) => weight.map((w) => moments(indices.map((i) => dot(w, points[i]))));
  const inference = network(start, inputs(points.map((_, i) => i)));
  const settled = points.map(inference);
  let networks = [];
  let drawn = 0;

  function draw() {
    drawn = size.value;
    const drawings = draws(start.seed, points.length, BATCHES * drawn);
    networks = Array.from({ length: BATCHES }, (_, k) =>
      network(start, inputs(drawings.slice(k * drawn, (k + 1) * drawn))),
    );
    const outputs = networks.map((net) => points.map(net));
    const squares = mean(outputs.map((out) => mean(out.map((z, i) => (z - settled[i]) ** 2))));
    const flipped = mean(outputs.map((out) => mean(out.map((z, i) => (z > 0 === settled[i] > 0 ? 0 : 1)))));
    flips(flipped, `${(100 * flipped).toFixed(1)} %`);
    noise(squares, squares.toPrecision(3));
    scaled(squares * drawn, (squares * drawn).toFixed(1));
  }

  return () => {
    if (drawn !== size.value) draw();
    const yes = networks.filter((net) => net(probe) > 0).length;
    votes(yes, `${yes} of ${BATCHES}`);
    logit(inference(probe), inference(probe).toFixed(2));
    const sides = [0, 1].map((k) => points.filter((_, i) => classes[i] === k));
    plot.dots("rings", sides[0], { color: "neutral", r: 3, hollow: true });
    plot.dots("dots", sides[1], { color: "neutral", r: 3 });
    plot.lines("batches", networks.flatMap(boundary), { color: "batch", width: 1.3, opacity: 0.75 });
    plot.lines("inference", boundary(inference), { color: "inference", width: 3.5 });
    stage.say(sentence(drawn, yes));
  };
}

/** Where the network's output is 0, as lines in the units of its inputs. */
function boundary(net) {
  const [columns, rows] = GRID;
  const across = ([low, high], part) => low - MARGIN + part * (high - low + 2 * MARGIN);
  const place = (i, j) => [across(VIEW.x, (i - 0.5) / (columns - 1)), across(VIEW.y, (j - 0.5) / (rows - 1))];
  const values = Array.from({ length: columns * rows }, (_, k) =>
    net(place((k % columns) + 0.5, Math.floor(k / columns) + 0.5)),
  );
  const [{ coordinates }] = contours().size(GRID).thresholds([0])(values);
  return coordinates.flat().map((ring) => ring.map(([i, j]) => place(i, j)));
}

function sentence(m, yes) {
  const probe = yes > 0 && yes < BATCHES ? "The class of the example depends on its batch." : "All batches agree on the example.";
  if (m <= 4) return `Batches of ${m}: every batch draws another boundary. ${probe}`;
  if (m >= 128) return `Batches of ${m}: the boundaries lie close to that of inference, the thick line. ${probe}`;
  return `Thin lines: 16 batches of ${m}; the thick line: inference. ${probe}`;
}
