/** Bytes that a pass moves, for a shape and a block, and what the roofline then allows. */

import { attainable, bytesMoved } from "../bn.js";

const MIB = 2 ** 20;
const FLOAT = 4; // bytes
const power = (k) => (Number.isInteger(k) ? String(2 ** k) : "");

export function figure(stage, { shapes, shape, machine, operations, block, cache }) {
  const label = ([n, c, h]) => (h > 1 ? `${n}×${c}×${h}×${h}` : `${n}×${c}`);
  const chosen = stage.choice({
    name: "shape",
    label: "shape",
    options: Object.fromEntries(shapes.map((each, i) => [i, label(each)])),
    value: String(shape),
  });
  const pass = stage.choice({
    name: "pass", label: "pass", options: { forward: "forward", backward: "backward" }, value: "forward",
  });
  const size = stage.slider({
    name: "block", label: "channels in a block", values: Array.from({ length: 12 }, (_, k) => 2 ** k), value: block,
  });
  const kept = stage.slider({
    name: "cache", label: "cache, MiB", min: 1, max: 128, step: 1, value: cache,
  });
  const ridge = machine.rate / machine.bandwidth;
  const [low, high] = [-3, Math.ceil(Math.log2(ridge)) + 2];
  const giga = (speed) => Math.log2(speed / 1e9);
  const top = giga(machine.rate);
  const plot = stage.plot({
    x: { domain: [low, high], label: "operations per byte", ticks: high - low, format: power },
    y: { domain: [Math.floor(top - (Math.log2(ridge) - low)), Math.ceil(top) + 1], label: "10⁹ operations / s", format: shortPower },
    height: 0.5,
    least: 240,
    most: 320,
  });
  const numbers = {
    tensor: stage.number({ name: "tensor", label: "tensor T" }),
    inFlight: stage.number({ name: "inFlight", label: "one tensor's part of a block" }),
    traffic: stage.number({ name: "traffic", label: "bytes moved" }),
    intensity: stage.number({ name: "intensity", label: "operations per byte" }),
    least: stage.number({ name: "least", label: "least time" }),
  };

  return () => {
    const [n, c, h] = shapes[Number(chosen.value)];
    size.most = c;
    const tensor = n * c * h * h * FLOAT;
    const inFlight = (tensor / c) * size.value;
    const moved = bytesMoved(pass.value, tensor, inFlight, kept.value * MIB);
    const count = (operations[pass.value] * tensor) / FLOAT;
    const intensity = count / moved;
    const speed = attainable(intensity, machine.bandwidth, machine.rate);
    const least = count / speed;
    numbers.tensor(tensor, `${(tensor / MIB).toPrecision(3)} MiB`);
    numbers.inFlight(inFlight, `${(inFlight / MIB).toPrecision(3)} MiB`);
    numbers.traffic(moved / tensor, `${(moved / tensor).toFixed(2)} T`);
    numbers.intensity(intensity, intensity.toFixed(3));
    numbers.least(least, `${(1000 * least).toPrecision(3)} ms`);

    const corner = [Math.log2(ridge), top];
    const start = giga(attainable(2 ** low, machine.bandwidth, machine.rate));
    plot.lines("roof", [[[low, start], corner, [high, top]]], { width: 2.5 });
    const at = [Math.log2(intensity), giga(speed)];
    plot.lines("drop", [[at, [at[0], plot.y.domain()[0]]]], { color: "batch", dash: "4 4", width: 1.5 });
    plot.dots("program", [at], { color: "batch", r: 8 });
    plot.words("labels", [
      { at: [(low + corner[0]) / 2, (start + top) / 2], text: "memory", anchor: "end", dx: -12, dy: -6 },
      { at: [high, top], text: "arithmetic", anchor: "end", dy: -10 },
    ]);
    stage.say(sentence(tensor, inFlight, moved, kept.value * MIB, pass.value));
  };
}

function shortPower(k) {
  if (!Number.isInteger(k)) return "";
  return k < 0 ? `1/${2 ** -k}` : String(2 ** k);
}

function sentence(tensor, inFlight, moved, cache, pass) {
  const least = (pass === "forward" ? 2 : 3) * tensor;
  const swept = (pass === "forward" ? 1 : 2) * inFlight;
  if (moved === least && inFlight === tensor) return "All of the tensor fits the cache: its second sweep reads nothing from memory.";
  if (moved === least) return "A block fits the cache: every activation is read once.";
  if (swept > 4 * cache) return "The block is far larger than the cache: nearly all of it is read twice.";
  return "The block is larger than the cache: what does not fit is read again.";
}
