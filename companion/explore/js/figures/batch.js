/** A batch to drag, and what normalization makes of it. */

import { forward, mean } from "../bn.js";

export function figure(stage, { x, m, eps }) {
  const sizes = Array.from({ length: x.length - 1 }, (_, i) => i + 2);
  const size = stage.slider({ name: "m", label: "batch size m", values: sizes, value: m });
  const plot = stage.plot({
    top: { domain: [0, 10], label: "x: drag the points" },
    x: { domain: [-3.2, 3.2], label: "x̂ = (x − μ) / √(σ² + ε)" },
    y: { domain: [0, 1], hidden: true },
    height: 0.5,
    most: 300,
    margin: { top: 52, left: 20, right: 20 },
  });
  const numbers = {
    mean: stage.number({ name: "mean", label: "mean μ" }),
    var: stage.number({ name: "var", label: "variance σ²" }),
    square: stage.number({ name: "square", label: "mean of x̂²" }),
    largest: stage.number({ name: "largest", label: "largest |x̂|" }),
    bound: stage.number({ name: "bound", label: "its bound √(m − 1)" }),
  };
  let shown = 0;

  function offerPoints() {
    shown = size.value;
    plot.clearHandles();
    for (let i = 0; i < shown; i += 1) {
      plot.handle({
        name: `x${i}`,
        label: `value ${i + 1} of the batch`,
        scale: plot.top,
        at: () => [x[i], 1],
        text: () => `x = ${x[i].toFixed(1)}`,
        x: { step: 0.1, limits: [0, 10] },
        move: (value) => {
          x[i] = value;
        },
      });
    }
  }

  return () => {
    if (shown !== size.value) offerPoints();
    const batch = forward(x.slice(0, shown), { eps });
    const bound = Math.sqrt(shown - 1);
    const largest = Math.max(...batch.xHat.map(Math.abs));
    const square = mean(batch.xHat.map((value) => value ** 2));
    numbers.mean(batch.mean, batch.mean.toFixed(3));
    numbers.var(batch.var, batch.var.toFixed(3));
    numbers.square(square, square.toFixed(4));
    numbers.largest(largest, largest.toFixed(3));
    numbers.bound(bound, bound.toFixed(3));

    // The upper ends stand on the axis of x, the lower ones on that of x̂.
    const across = (value) => plot.x.invert(plot.top(value));
    plot.lines("bound", [-bound, bound].map((edge) => [[edge, 0], [edge, 0.55]]), { dash: "5 4", width: 1.5 });
    plot.words("labels", [
      { at: [-bound, 0.58], text: "−√(m−1)" },
      { at: [bound, 0.58], text: "√(m−1)" },
    ]);
    plot.lines("threads", batch.xHat.map((value, i) => [[across(x[i]), 1], [value, 0]]), {
      color: "batch", width: 1.5, opacity: 0.6,
    });
    plot.dots("normalized", batch.xHat.map((value) => [value, 0]), { color: "batch", r: 6 });
    stage.say(sentence(shown, batch, largest, bound));
  };
}

function sentence(m, batch, largest, bound) {
  if (batch.var < 1e-3) return "The values are nearly equal: ε, no longer σ², decides what comes out.";
  if (m === 2) return "Two values become −1 and +1, wherever you drag them: only their order is left.";
  if (largest > 0.97 * bound) return "One value far from all others, which are equal: it reaches √(m − 1), and cannot pass it.";
  return "Move all points together or spread them out: x̂ keeps mean 0 and mean square σ²/(σ² + ε), almost 1.";
}
