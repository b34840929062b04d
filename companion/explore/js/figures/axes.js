/** Which values of a batch of feature maps share one mean, by the axes that are averaged over. */

import { forward, sharing } from "../bn.js";

const TOGETHER = { together: "together", apart: "each alone" };
const AXES = {
  N: { label: "N: the images", options: TOGETHER },
  C: { label: "C: the channels", options: { apart: "each alone", groups: "in two groups", together: "together" } },
  H: { label: "H: the rows", options: TOGETHER },
  W: { label: "W: the columns", options: TOGETHER },
};
const DOTS = [0.07, 0.2, 0.34, 0.48]; // radii, in cells
const EPS = 1e-5;

/** What the sets are called, by the axes that are averaged over; g: a group of the channels. */
const NAMES = {
  NHW: "Batch normalization: one mean for each channel, over all images and positions.",
  CHW: "Layer normalization: one mean for each image. The other images do not matter.",
  gHW: "Group normalization, with two groups: one mean for each group of channels of each image.",
  HW: "Instance normalization: one mean for each channel of each image.",
  N: "What a dense layer does: each pixel of each channel is a feature of its own, and a map is normalized in 64 ways.",
  C: "Layer normalization at each position, over the channels alone, as transformers have it.",
  NCHW: "One mean for everything: what a channel differs by from the others is kept.",
  "": "Each value is its own mean, and what is left of it is 0.",
};

export function figure(stage, { maps, shape, place, axes }) {
  const [images, channels, height, width] = shape;
  const values = maps.flat(3);
  const choices = Object.fromEntries(
    Object.entries(AXES).map(([name, { label, options }]) => [
      name, stage.choice({ name, label, options, value: axes[name] }),
    ]),
  );
  const centres = (count, size) => Array.from({ length: count }, (_, k) => (k + 0.5) * size - 0.5);
  const block = stage.plot({
    title: "Four images, four channels: move the point",
    x: { domain: [-0.5, channels * width - 0.5], ticks: centres(channels, width), format: (at) => String(Math.ceil((at + 1) / width)), label: "channel" },
    y: { domain: [images * height - 0.5, -0.5], ticks: centres(images, height), format: (at) => `image ${Math.ceil((at + 1) / height)}` },
    height: 1,
    least: 330,
    most: 560,
    margin: { left: 62, right: 36 },
  });
  const largest = (numbers) => Math.max(...numbers.flat(3).map(Math.abs));
  const reach = largest(values);
  const reaches = maps[0].map((_, c) => largest(maps.map((image) => image[c])));
  const spread = stage.plot({
    title: "The values that share its mean",
    x: { domain: [-1.05 * reach, 1.05 * reach], label: "value; the line is their mean" },
    y: { domain: [0, 1], label: "share that lies below" },
    height: 0.7,
  });
  let [column, row] = [place[1] * width + place[3], place[0] * height + place[2]];
  const at = () => [Math.floor(row / height), Math.floor(column / width), row % height, column % width];
  const indexOf = ([n, c, h, w]) => ((n * channels + c) * height + h) * width + w;
  block.handle({
    name: "place",
    label: "a value; left and right, up and down",
    color: "plain",
    at: () => [column, row],
    text: () => `image ${at()[0] + 1}, channel ${at()[1] + 1}, row ${at()[2] + 1}, column ${at()[3] + 1}`,
    x: { step: 1, limits: [0, channels * width - 1] },
    y: { step: 1, limits: [0, images * height - 1] },
    move: (x, y) => ([column, row] = [x, y]),
  });
  const shown = {
    statistics: stage.number({ name: "statistics", label: "means in the block" }),
    m: stage.number({ name: "m", label: "values behind each, m" }),
    mean: stage.number({ name: "mean", label: "mean at the point" }),
    var: stage.number({ name: "var", label: "variance at the point" }),
    normalized: stage.number({ name: "normalized", label: "normalized value at the point" }),
  };

  return () => {
    const cut = Object.values(choices).map(({ value }, axis) => ({ together: shape[axis], groups: shape[axis] / 2, apart: 1 })[value]);
    const shared = sharing(shape, cut, at());
    const own = forward(shared.map((index) => values[index]), { eps: EPS });
    const inside = new Set(shared);
    const cell = block.x(1) - block.x(0);
    for (const [color, chosen] of [["neutral", false], ["batch", true]]) {
      DOTS.forEach((radius, size) => {
        const points = values.flatMap((value, index) => {
          const [w, h] = [index % width, Math.floor(index / width) % height];
          const c = Math.floor(index / (width * height)) % channels;
          const n = Math.floor(index / (width * height * channels));
          const level = Math.min(Math.floor((4.5 * Math.abs(value)) / reaches[c]), 3);
          return inside.has(index) === chosen && level === size ? [[c * width + w, n * height + h]] : [];
        });
        block.dots(`${color}-${size}`, points, { color, r: radius * cell });
      });
    }
    const edges = [...centres(channels + 1, width)].map((middle) => middle - width / 2);
    block.lines("borders", [
      ...edges.map((edge) => [[edge, -0.5], [edge, images * height - 0.5]]),
      ...edges.map((edge) => [[-0.5, edge], [channels * width - 0.5, edge]]),
    ], { color: "line", width: 1 });
    const sorted = shared.map((index) => values[index]).sort((a, b) => a - b);
    spread.lines("below", [sorted.flatMap((value, k) => [[value, k / sorted.length], [value, (k + 1) / sorted.length]])], { color: "batch", width: 2.5 });
    spread.lines("mean", [[[own.mean, 0], [own.mean, 1]]], { color: "ink", dash: "5 4", width: 1.5 });
    spread.dots("point", [[values[indexOf(at())], 0]], { color: "plain", r: 6 });
    shown.statistics(values.length / own.m, String(values.length / own.m));
    shown.m(own.m, String(own.m));
    shown.mean(own.mean, own.mean.toFixed(3).replace(/^-(0\.0+)$/, "$1"));
    shown.var(own.var, own.var.toFixed(4));
    const normalized = own.xHat[shared.indexOf(indexOf(at()))];
    shown.normalized(normalized, normalized.toFixed(2));
    stage.say(sentence(choices));
  };
}

function sentence(choices) {
  const letter = { together: (axis) => axis, groups: () => "g", apart: () => "" };
  const name = Object.entries(choices).map(([axis, { value }]) => letter[value](axis)).join("");
  return NAMES[name] ?? "These axes have no layer named after them.";
}
