/** The loss along its own gradient, at moments of the training of two networks. */

import { range } from "../bn.js";

const TOPS = { losses: 9, changes: 3 };
const short = (value) => (value >= 1000 ? "over 1,000" : value.toPrecision(3));

export function figure(stage, { steps, rates, step, at, networks }) {
  const weights = stage.choice({
    name: "weights",
    label: "with BN, from",
    options: { batch: "the same weights", small: "hidden weights ÷ 10" },
    value: "batch",
  });
  const slider = stage.slider({ name: "step", label: "training step", values: steps, value: step });
  const axis = { domain: [rates[0], rates.at(-1)], log: true, format: "~g" };
  const size = { height: 0.66, least: 250, most: 340 };
  const plots = {
    losses: stage.plot({
      x: { ...axis, label: "rate of one step: drag the line" },
      y: { domain: [0, TOPS.losses], label: "loss" },
      title: "The loss after the step",
      ...size,
    }),
    changes: stage.plot({
      x: { ...axis, label: "rate of one step" },
      y: { domain: [0, TOPS.changes], label: "change ÷ length" },
      title: "The change of the gradient",
      ...size,
    }),
  };
  // Rates are numbered, and lie where they are.
  const places = Object.assign((i) => plots.losses.x(rates[i]), {
    invert: (pixel) => {
      const distances = rates.map((rate) => Math.abs(plots.losses.x(rate) - pixel));
      return distances.indexOf(Math.min(...distances));
    },
  });
  plots.losses.handle({
    name: "rate",
    label: "learning rate of the step",
    color: "neutral",
    scale: places,
    at: () => [at, 0],
    text: () => `learning rate ${rates[at]}`,
    x: { step: 1, limits: [0, rates.length - 1] },
    move: (chosen) => (at = chosen),
  });
  const numbers = Object.fromEntries(
    Object.entries({ plain: "without normalization", batch: "with BN" }).map(([name, words]) => [
      name,
      {
        range: stage.number({ name: `${name}Range`, label: `range of the loss up to there, ${words}` }),
        change: stage.number({ name: `${name}Change`, label: `change of the gradient, ${words}` }),
      },
    ]),
  );

  return () => {
    const look = steps.indexOf(slider.value);
    const shown = { plain: networks.plain[look], batch: networks[weights.value][look] };
    const ranges = {};
    for (const [name, { losses, changes }] of Object.entries(shown)) {
      // The first of the values is that at the start, which a logarithmic axis does not have.
      for (const [what, values] of Object.entries({ losses, changes })) {
        const inside = values.slice(1).map((value) => Math.min(value, 1.05 * TOPS[what]));
        const above = inside.findIndex((value) => value > TOPS[what]);
        const curve = inside.slice(0, above < 0 ? undefined : above + 1).map((value, i) => [rates[i], value]);
        plots[what].lines(name, [curve], { color: name, width: 2.5 });
      }
      ranges[name] = range(losses.slice(0, at + 2));
      numbers[name].range(ranges[name], short(ranges[name]));
      numbers[name].change(changes[at + 1], short(changes[at + 1]));
    }
    for (const [what, plot] of Object.entries(plots)) {
      plot.lines("now", [[[rates[at], 0], [rates[at], TOPS[what]]]], { color: "neutral", dash: "5 4", width: 1.5 });
    }
    plots.losses.words("labels", ["plain", "batch"].map((name) => {
      const first = shown[name].losses[1];
      const higher = first >= shown[name === "plain" ? "batch" : "plain"].losses[1];
      return { at: [rates[0], first], text: name === "plain" ? "without" : "with BN", anchor: "start", dx: 6, dy: higher ? -8 : 18 };
    }));
    stage.say(sentence(rates[at], ranges.plain, ranges.batch));
  };
}

function sentence(rate, plain, batch) {
  const up = `Up to a rate of ${rate} `;
  const times = (ratio) => (ratio > 1000 ? "over 1,000 times" : `${ratio.toFixed(ratio < 10 ? 1 : 0)} times`);
  if (plain > batch) return `${up}the plain network’s loss ranges ${times(plain / batch)} as far as the normalized one’s.`;
  return `${up}the normalized network’s loss ranges ${times(batch / plain)} as far as the plain one’s.`;
}
