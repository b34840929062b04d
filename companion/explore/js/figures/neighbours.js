/** Which normalized values change when some inputs are multiplied: a circle for each map of each image. */

import { mean, normalizeTogether } from "../bn.js";

const LAYERS = {
  batch: "batch", layer: "layer", position: "layer, at each position", instance: "instance", group: "group, 2 groups",
};
const CHANGES = {
  image: "multiply image 2", channel: "multiply channel 2", all: "multiply everything", swap: "put another digit for image 2",
};
const EPS = 1e-9;
const SEEN = 1e-4; // a smaller change is ε's
const [LEAST, LARGEST] = [3, 14]; // pixels

/** How many values along N, C, H, W share a mean. */
const blocksOf = (layer, [m, channels, height, width]) => ({
  batch: [m, 1, height, width],
  layer: [1, channels, height, width],
  position: [1, channels, 1, 1],
  instance: [1, 1, height, width],
  group: [1, channels / 2, height, width],
})[layer];

export function figure(stage, { maps, place, m, power, layer, change }) {
  const [channels, height, width] = [maps[0].length, maps[0][0].length, maps[0][0][0].length];
  const layers = stage.choice({ name: "layer", label: "normalization", options: LAYERS, value: layer });
  const changes = stage.choice({ name: "change", label: "what is changed", options: CHANGES, value: change });
  const size = stage.slider({ name: "m", label: "images in the batch", values: [2, 3, 4, 6, 8], value: m });
  const [most, ticks] = [maps.length - 1, (count) => Array.from({ length: count }, (_, k) => k + 1)];
  const grid = stage.plot({
    title: "How much each normalized map changes",
    x: { domain: [0.5, channels + 0.5], ticks: ticks(channels), format: String, label: "channel" },
    y: { domain: [most + 0.5, 0.5], ticks: ticks(most), format: (row) => `image ${row}` },
    height: 1,
    least: 350,
    most: 430,
    margin: { left: 64 },
  });
  const curves = stage.plot({
    title: "Root mean square of the changes",
    x: { domain: [-1, 1], ticks: [-1, -0.5, 0, 0.5, 1], format: (at) => (10 ** at).toPrecision(2).replace(/\.0$/, ""), label: "multiplied by: drag the point" },
    y: { domain: [-0.05, 2.5], label: "change" },
  });
  let result = {};
  curves.handle({
    name: "factor",
    label: "factor",
    color: "plain",
    at: () => [power, result.touched],
    text: () => `multiplied by ${(10 ** power).toFixed(2)}`,
    x: { step: 0.05, limits: [-1, 1], snaps: [0] },
    move: (x) => (power = x),
  });
  const shown = {
    factor: stage.number({ name: "factor", label: "multiplied by" }),
    means: stage.number({ name: "means", label: "means" }),
    behind: stage.number({ name: "behind", label: "values behind each" }),
    touched: stage.number({ name: "touched", label: "change where the input changed" }),
    others: stage.number({ name: "others", label: "change elsewhere" }),
  };
  const isTouched = (n, c) => ({ image: n === place[0], channel: c === place[1], all: true, swap: n === place[0] })[changes.value];

  /** Root mean squares of the changes, by cell and in the two parts, at a factor. */
  function changed(factor) {
    const shape = [size.value, channels, height, width];
    const blocks = blocksOf(layers.value, shape);
    const batch = maps.slice(0, size.value);
    const after = batch.map((image, k) => image.map((map, c) => {
      if (!isTouched(k + 1, c + 1)) return map;
      return changes.value === "swap" ? maps.at(-1)[c] : map.map((row) => row.map((value) => value * factor));
    }));
    const [old, now] = [batch, after].map((values) => normalizeTogether(values.flat(3), shape, blocks, EPS));
    const parts = { true: [], false: [] };
    const cells = batch.map((image, k) => image.map((_, c) => {
      const from = (k * channels + c) * height * width;
      const squares = now.slice(from, from + height * width).map((value, i) => (value - old[from + i]) ** 2);
      parts[isTouched(k + 1, c + 1)].push(...squares);
      return Math.sqrt(mean(squares));
    }));
    const [touched, others] = [parts.true, parts.false].map((squares) => (squares.length ? Math.sqrt(mean(squares)) : 0));
    return { cells, touched, others, total: old.length, behind: blocks.reduce((product, count) => product * count, 1) };
  }

  return () => {
    result = changed(10 ** power);
    for (let n = 1; n <= most; n += 1) {
      for (let c = 1; c <= channels; c += 1) {
        const moved = result.cells[n - 1]?.[c - 1];
        const color = isTouched(n, c) ? "plain" : "batch";
        grid.dots(`cell-${n}-${c}`, moved === undefined ? [] : [[c, n]], { color, r: LARGEST, hollow: true });
        const r = LEAST + Math.min(moved, 1) * (LARGEST - LEAST);
        grid.dots(`change-${n}-${c}`, moved > SEEN ? [[c, n]] : [], { color, r });
      }
    }
    const along = Array.from({ length: 41 }, (_, k) => -1 + k / 20).map((at) => [at, changed(10 ** at)]);
    curves.lines("touched", [along.map(([at, each]) => [at, each.touched])], { color: "plain", width: 2.5 });
    curves.lines("others", changes.value === "all" ? [] : [along.map(([at, each]) => [at, each.others])], { color: "batch", width: 2.5 });
    const number = (name, text = (value) => (value < SEEN ? "0.00" : value.toFixed(2))) => shown[name](result[name], text(result[name]));
    shown.factor(10 ** power, (10 ** power).toFixed(2));
    shown.means(result.total / result.behind, String(result.total / result.behind));
    number("behind", String);
    number("touched");
    number("others");
    const same = changes.value !== "swap" && power === 0;
    stage.say(same ? "By 1: nothing has changed yet." : sentence(result));
  };
}

function sentence({ touched, others }) {
  if (touched < SEEN && others < SEEN) return "No normalized value changes: the layer does not see this.";
  if (others < SEEN) return "Normalized values change where the input has changed, and nowhere else.";
  return "Normalized values change where the input is as it was, too: they share a mean with what has changed.";
}
