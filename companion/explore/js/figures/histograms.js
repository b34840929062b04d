/** What enters each layer's nonlinearity while two networks learn, without and with normalization. */

const NETWORKS = { plain: "without normalization", batch: "with batch normalization" };
const HEIGHT = 0.85; // of a histogram, as a part of the distance between two

export function figure(stage, { steps, step, reach, networks }) {
  const layers = networks.plain.heights[0].length;
  const slider = stage.slider({ name: "step", label: "training step", values: steps, value: step });
  const plots = Object.fromEntries(
    Object.entries(NETWORKS).map(([name, title]) => [
      name,
      stage.plot({
        x: { domain: [-reach, reach], label: "input of the tanh" },
        y: {
          domain: [layers + 0.15, 0],
          ticks: Array.from({ length: layers }, (_, k) => k + 1),
          format: (k) => `layer ${k}`,
        },
        title,
        height: 0.8,
        least: 260,
        most: 320,
        margin: { left: 58 },
      }),
    ]),
  );
  const ends = { First: "the first layer", Last: "the last layer" };
  const numbers = Object.fromEntries(
    Object.entries(NETWORKS).flatMap(([name, words]) =>
      Object.entries(ends).map(([end, layer]) => [
        name + end,
        stage.number({ name: name + end, label: `spread over the images in ${layer}, ${words}` }),
      ]),
    ),
  );

  return () => {
    const look = steps.indexOf(slider.value);
    for (const name of Object.keys(NETWORKS)) {
      const { heights, spreads } = networks[name];
      const outlines = heights[look].map((bins, row) => [
        [-reach, row + 1],
        ...bins.map((height, i) => [((i + 0.5) * 2 * reach) / bins.length - reach, row + 1 - (HEIGHT * height) / 100]),
        [reach, row + 1],
      ]);
      plots[name].lines("histograms", outlines, { color: name, width: 1.5, fill: true });
      for (const [end, value] of [["First", spreads[look][0]], ["Last", spreads[look].at(-1)]]) {
        numbers[name + end](value, value.toFixed(3));
      }
    }
    stage.say(sentence(slider.value, networks.plain.spreads[look]));
  };
}

function sentence(step, plain) {
  const ratio = plain.at(-1) / plain[0];
  const at = step === 0 ? "Before training" : `After ${step} steps`;
  if (ratio < 0.75) return `${at}: without normalization the last layer’s inputs vary ${(1 / ratio).toFixed(1)} times less from image to image than the first’s.`;
  return `${at}: without normalization the last layer’s inputs vary ${ratio.toFixed(1)} times as much as the first’s. The widths have moved with the weights.`;
}
