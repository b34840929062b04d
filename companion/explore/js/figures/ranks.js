/** A batch split over ranks: variances averaged, against moments merged. */

import { mean, merge, moments } from "../bn.js";

const RANKS = 4;
const EMPTY = { m: 0, mean: 0, var: 0 };

/** Rank of each of the values, by how the batch is handed out. */
const SPLITS = {
  dealt: (x) => x.map((_, i) => i % RANKS),
  sorted: (x) => {
    const order = x.map((_, i) => i).sort((i, j) => x[i] - x[j]);
    const ranks = [];
    order.forEach((i, place) => (ranks[i] = Math.floor((place * RANKS) / x.length)));
    return ranks;
  },
};

export function figure(stage, { x, split }) {
  let ranks = SPLITS[split](x);
  const choice = stage.choice({
    name: "split",
    label: "the batch is handed out",
    options: { dealt: "in turn", sorted: "sorted by value" },
    value: split,
  });
  let dealt = choice.value;
  const plot = stage.plot({
    x: { domain: [0, 10], label: "x: drag a value, or hand it to another rank" },
    y: { domain: [RANKS - 0.4, -0.6], ticks: [0, 1, 2, 3], format: (rank) => `rank ${rank}` },
    height: 0.5,
    least: 280,
    most: 340,
    margin: { left: 58 },
  });
  x.forEach((_, i) =>
    plot.handle({
      name: `x${i}`,
      label: `value ${i + 1}: left and right change it, up and down its rank`,
      at: () => [x[i], ranks[i]],
      text: () => `x = ${x[i].toFixed(1)} on rank ${ranks[i]}`,
      x: { step: 0.1, limits: [0, 10] },
      y: { step: 1, limits: [0, RANKS - 1] },
      move: (value, rank) => {
        x[i] = value;
        ranks[i] = rank;
      },
    }),
  );
  const whole = stage.number({ name: "whole", label: "variance of the whole batch" });
  const merged = stage.number({ name: "merged", label: "moments merged" });
  const averaged = stage.number({ name: "averaged", label: "variances averaged" });
  const between = stage.number({ name: "between", label: "variance of the ranks’ means" });

  return () => {
    if (dealt !== choice.value) {
      dealt = choice.value;
      ranks = SPLITS[dealt](x);
    }
    const all = moments(x);
    const parts = Array.from({ length: RANKS }, (_, rank) => {
      const own = x.filter((_, i) => ranks[i] === rank);
      return own.length ? moments(own) : EMPTY;
    });
    const together = parts.reduce(merge, EMPTY);
    const weighted = (value) => mean(parts.map((part) => part.m * value(part))) / (x.length / RANKS);
    const inside = weighted((part) => part.var);
    const apart = weighted((part) => (part.mean - all.mean) ** 2);
    whole(all.var, all.var.toFixed(3));
    merged(together.var, together.var.toFixed(3));
    averaged(inside, inside.toFixed(3));
    between(apart, apart.toFixed(3));

    const filled = parts.flatMap((part, rank) => (part.m ? [{ ...part, rank }] : []));
    const low = 0.3; // below the points of the rank
    plot.lines("mean", [[[all.mean, -0.6], [all.mean, RANKS - 0.4]]], { color: "neutral", dash: "5 4", width: 1.5 });
    plot.lines("spread", filled.map(({ mean: mu, var: v, rank }) => [
      [mu - Math.sqrt(v), rank + low], [mu + Math.sqrt(v), rank + low],
    ]), { color: "inference", width: 4 });
    plot.dots("means", filled.map(({ mean: mu, rank }) => [mu, rank + low]), { r: 5 });
    stage.say(sentence(all.var, inside, filled.length));
  };
}

function sentence(whole, inside, filled) {
  if (filled === 1) return "One rank holds the whole batch: there is nothing to merge.";
  if (inside > 0.95 * whole) return "The ranks’ means nearly agree, so averaging their variances loses little. Merging loses nothing.";
  const share = Math.round((100 * inside) / whole);
  return `Averaged variances find ${share} % of the variance: they miss that of the ranks’ means. Merging finds all of it.`;
}
