/** The Jacobian (γ/s)·P of a batch that the reader moves, as a map of its entries. */

import { forward, jacobian } from "../bn.js";

const EPS = [1e-5, 0.01, 0.1, 0.3, 1, 3, 10];

export function figure(stage, { x, m, eps }) {
  const sizes = Array.from({ length: x.length - 1 }, (_, i) => i + 2);
  const size = stage.slider({ name: "m", label: "batch size m", values: sizes, value: m });
  const epsilon = stage.slider({ name: "eps", label: "ε", values: EPS, value: eps, format: short });
  const line = stage.plot({
    title: "The batch",
    x: { domain: [0, 8], label: "x: drag the points" },
    y: { domain: [-1, 1], hidden: true },
    least: 120,
    most: 120,
    margin: { left: 20, right: 20 },
  });
  const map = stage.plot({
    title: "∂yᵢ/∂xⱼ, for γ = 1",
    x: { domain: [0, 1], hidden: true },
    y: { domain: [1, 0], hidden: true },
    height: 0.8,
    least: 260,
    margin: { top: 24, bottom: 10, left: 34 },
  });
  const numbers = {
    std: stage.number({ name: "std", label: "s = √(σ² + ε)" }),
    largest: stage.number({ name: "largest", label: "largest entry" }),
    passed: stage.number({ name: "passed", label: "directions that pass, tr P" }),
    ratio: stage.number({ name: "ratio", label: "what P leaves of x̂, ε/(σ² + ε)" }),
  };
  let shown = 0;

  function offerPoints() {
    shown = size.value;
    line.clearHandles();
    for (let i = 0; i < shown; i += 1) {
      line.handle({
        name: `x${i}`,
        label: `value ${i + 1} of the batch`,
        at: () => [x[i], 0],
        text: () => `x = ${x[i].toFixed(1)}`,
        x: { step: 0.1, limits: [0, 8] },
        move: (value) => {
          x[i] = value;
        },
      });
    }
  }

  return () => {
    if (shown !== size.value) offerPoints();
    const values = x.slice(0, shown);
    const { var: variance, invStd } = forward(values, { eps: epsilon.value });
    const J = jacobian(values, { eps: epsilon.value });
    const largest = Math.max(...J.flat().map(Math.abs));
    const passed = J.reduce((trace, row, i) => trace + row[i], 0) / invStd;
    const ratio = epsilon.value / (variance + epsilon.value);
    numbers.std(1 / invStd, (1 / invStd).toFixed(3));
    numbers.largest(largest, largest.toFixed(3));
    numbers.passed(passed, passed.toFixed(3));
    numbers.ratio(ratio, ratio.toFixed(4));
    line.words("labels", values.map((value, i) => ({ at: [value, 0], text: `${i + 1}`, dy: -16 })));
    drawMap(map, J);
    stage.say(sentence(shown, largest, ratio));
  };
}

function drawMap(map, J) {
  const m = J.length;
  const cells = J.flatMap((row, i) => row.map((value, j) => ({ i, j, value })));
  const [width, height] = [map.x(1 / m) - map.x(0), map.y(1 / m) - map.y(0)];
  map
    .group("cells")
    .selectAll("rect")
    .data(cells)
    .join("rect")
    .attr("x", (cell) => map.x(cell.j / m) + 1)
    .attr("y", (cell) => map.y(cell.i / m) + 1)
    .attr("width", width - 2)
    .attr("height", height - 2)
    .style("fill", (cell) => (cell.value < 0 ? "var(--plain)" : "var(--batch)"))
    // The scale is fixed: a map that pales is a gradient that vanishes.
    .style("fill-opacity", (cell) => 0.75 * Math.sqrt(Math.min(Math.abs(cell.value), 1)));
  map.words("entries", cells.map(({ i, j, value }) => ({
    at: [(j + 0.5) / m, (i + 0.5) / m], text: signed(value), dy: 5,
  })));
  const ends = Array.from({ length: m }, (_, i) => (i + 0.5) / m);
  map.words("columns", ends.map((at, j) => ({ at: [at, 0], text: `x${subscript(j + 1)}`, dy: -8 })));
  map.words("rows", ends.map((at, i) => ({ at: [0, at], text: `y${subscript(i + 1)}`, dx: -16, dy: 5 })));
}

const subscript = (number) => String.fromCharCode(0x2080 + number);

const short = (eps) => (eps === 1e-5 ? "10⁻⁵" : String(eps));

/** Two digits, a real minus sign, and no sign before zero. */
function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

function sentence(m, largest, ratio) {
  if (m === 2 && largest < 0.005) return "Two values: every entry is almost 0, and no gradient passes.";
  if (ratio > 0.5) return "ε is larger than σ²: the map is close to that of a mean taken off, divided by √ε.";
  if (largest > 1) return "The values lie close together: division by a small s makes the entries large.";
  return "Every row and column adds up to 0. Move a value far away: its row and column pale.";
}
