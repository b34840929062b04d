/** A running mean of batches' means, beside the moving mean that it estimates, and its error against α. */

import { averageErrors, mean, moments, runningAverage } from "../bn.js";
import { draws } from "../random.js";

const SIZES = [2, 4, 8, 16, 32, 64, 128];
const HIGHEST = 10;

export function figure(stage, { x, seed, steps, step, rates, alpha, m, drift, beginning }) {
  const population = moments(x);
  const from = stage.choice({
    name: "beginning", label: "the start, 0, is", options: { kept: "kept", removed: "taken out" }, value: beginning,
  });
  const rate = stage.slider({ name: "alpha", label: "weight α of a new batch", values: rates, value: alpha });
  const size = stage.slider({ name: "m", label: "batch size m", values: SIZES, value: m });
  const speed = stage.slider({
    name: "drift", label: "the population moves, cm a step", min: 0, max: 0.05, step: 0.005, value: drift,
    format: (value) => value.toFixed(3),
  });
  const path = stage.plot({
    title: "The running mean",
    x: { domain: [0, steps], label: "step: drag the point" },
    y: { domain: [0, HIGHEST], label: "length, cm" },
    height: 0.62,
  });
  const errors = stage.plot({
    title: "Its expected error at this step",
    x: { domain: [rates[0], 1], log: true, ticks: [0.01, 0.1, 1], format: String, label: "α" },
    y: { domain: [0.01, 30], log: true, ticks: [0.01, 0.1, 1], format: String, label: "error, cm" },
    height: 0.62,
  });
  let running = [];
  path.handle({
    name: "step",
    label: "step",
    color: "inference",
    at: () => [step, running[step - 1]],
    text: () => `step ${step}: running mean ${running[step - 1].toFixed(2)}`,
    x: { step: 1, limits: [1, steps] },
    move: (chosen) => (step = chosen),
  });
  const shown = {
    exact: stage.number({ name: "exact", label: "exact mean" }),
    running: stage.number({ name: "running", label: "running mean" }),
    start: stage.number({ name: "start", label: "error from the start" }),
    lag: stage.number({ name: "lag", label: "from the lag" }),
    std: stage.number({ name: "std", label: "scatter (one σ)" }),
  };

  return () => {
    const m = size.value;
    const drawn = draws(seed, x.length, m * steps);
    const batches = Array.from({ length: steps }, (_, k) =>
      mean(drawn.slice(k * m, (k + 1) * m).map((i) => x[i])) + speed.value * (k + 1),
    );
    const removed = from.value === "removed";
    const exact = (k) => population.mean + speed.value * k;
    const parts = (a, k) =>
      averageErrors(a, k, { start: -exact(k), drift: speed.value, variance: population.var / m, removed });
    running = runningAverage(batches, rate.value, removed);

    const all = running.map((_, k) => k + 1);
    const edge = (side) => all.map((k) => {
      const { start, lag, std } = parts(rate.value, k);
      return [k, exact(k) + start + lag + 2 * side * std];
    });
    path.lines("band", [[...edge(-1), ...edge(1).reverse()]], { color: "inference", width: 0, fill: true });
    path.dots("batches", batches.map((value, k) => [k + 1, value]), { color: "batch", r: 2, opacity: 0.6, inside: true });
    path.lines("exact", [[0, steps].map((k) => [k, exact(k)])], { dash: "6 4", width: 1.5 });
    path.lines("running", [running.map((value, k) => [k + 1, value])], { color: "inference", width: 2.5 });

    const grid = Array.from({ length: 81 }, (_, i) => rates[0] ** (1 - i / 80));
    const curve = (size) => [grid.map((a) => [a, Math.max(size(parts(a, step)), 1e-6)])];
    errors.lines("bias", curve(({ start, lag }) => Math.abs(start + lag)), { color: "batch", dash: "6 4" });
    errors.lines("scatter", curve(({ std }) => std), { color: "batch", dash: "2 3" });
    errors.lines("total", curve(total), { color: "inference", width: 2.5 });
    const now = parts(rate.value, step);
    errors.lines("now", [[[rate.value, 0.01], [rate.value, 5]]], { color: "neutral", width: 1.5 });
    errors.dots("at", [[rate.value, total(now)]], { color: "inference", r: 5, inside: true });
    errors.words("names", [
      { at: [1, 30], text: "dashes: start and lag", anchor: "end", dy: 12 },
      { at: [1, 30], text: "dots: scatter", anchor: "end", dy: 28 },
    ]);
    const values = { exact: exact(step), running: running[step - 1], ...now };
    for (const [name, show] of Object.entries(shown)) show(values[name], short(values[name]));
    stage.say(sentence(now));
  };
}

const short = (value) => (Math.abs(value) < 5e-4 ? 0 : value).toFixed(3);

const total = ({ start, lag, std }) => Math.hypot(start + lag, std);

function sentence({ start, lag, std }) {
  const largest = Math.max(Math.abs(start), Math.abs(lag), std);
  if (Math.abs(start) === largest) return "Most of the error is the start: the average has not seen enough batches yet.";
  if (Math.abs(lag) === largest) return "Most of the error is lag: the average remembers a population that has moved on. A larger α forgets sooner.";
  return "Most of the error is scatter: the average holds too few values. A smaller α or a larger batch averages over more.";
}
