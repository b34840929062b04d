/** The inputs of one sigmoid while two networks learn, without and with batch normalization. */

const NETWORKS = { plain: "without normalization", batch: "with batch normalization" };
const INPUTS = [-3, 3];
const CURVE = Array.from({ length: 81 }, (_, i) => -4 + i / 10);

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const percent = (value) => `${(100 * value).toFixed(1)} %`;

export function figure(stage, { steps, runs, look }) {
  const seed = stage.choice({
    name: "seed",
    label: "seed of the run",
    options: Object.fromEntries(runs.map((_, i) => [i, `${i}`])),
    value: "0",
  });
  const over = stage.plot({
    x: { domain: [steps[0], steps.at(-1)], label: "step: drag the line", log: true, format: "~s" },
    y: { domain: INPUTS, label: "input of the unit" },
    title: "Its inputs over training",
    height: 0.62,
    least: 250,
    most: 340,
  });
  const unit = stage.plot({
    x: { domain: [-4, 4], label: "input" },
    y: { domain: [0, 1], label: "output" },
    title: "The sigmoid, at this step",
    height: 0.62,
    least: 230,
    most: 340,
  });
  // Looks are numbered, and lie where their steps are.
  const looks = Object.assign((i) => over.x(steps[i]), {
    invert: (pixel) => {
      const distances = steps.map((step) => Math.abs(over.x(step) - pixel));
      return distances.indexOf(Math.min(...distances));
    },
  });
  over.handle({
    name: "step",
    label: "step of the training",
    color: "neutral",
    scale: looks,
    at: () => [look, INPUTS[0]],
    text: () => `step ${steps[look].toLocaleString("en")}`,
    x: { step: 1, limits: [0, steps.length - 1] },
    move: (chosen) => (look = chosen),
  });
  const numbers = Object.fromEntries(
    Object.entries(NETWORKS).map(([network, words]) => [
      network,
      {
        spread: stage.number({ name: `${network}Spread`, label: `spread of the outputs, ${words}` }),
        accuracy: stage.number({ name: `${network}Accuracy`, label: `test accuracy, ${words}` }),
      },
    ]),
  );

  return () => {
    const run = runs[Number(seed.value)];
    unit.lines("sigmoid", [CURVE.map((x) => [x, sigmoid(x)])], { color: "neutral", width: 1.5 });
    over.lines("now", [INPUTS.map((y) => [steps[look], y])], { color: "neutral", dash: "5 4", width: 1.5 });
    // With normalization first: the other network's small piece of the sigmoid lies on top.
    const [batch, plain] = ["batch", "plain"].map((network) => {
      const { low, median, high, accuracy } = run[network];
      const curve = (values) => values.map((value, i) => [steps[i], value]);
      over.lines(`${network}-edges`, [curve(low), curve(high)], { color: network, width: 1.5 });
      over.lines(`${network}-median`, [curve(median)], { color: network, width: 2.5 });
      const [from, to] = [low[look], high[look]];
      const inside = [from, ...CURVE.filter((x) => from < x && x < to), to];
      const width = network === "batch" ? 10 : 4;
      unit.lines(`${network}-band`, [inside.map((x) => [x, sigmoid(x)])], { color: network, width });
      const spread = sigmoid(to) - sigmoid(from);
      numbers[network].spread(spread, spread.toFixed(3));
      numbers[network].accuracy(accuracy[look], percent(accuracy[look]));
      return { spread, median: median[look], to, start: high[0] };
    });
    over.words("labels", [
      { at: [steps[0], batch.start], text: "with BN", anchor: "start", dx: 6, dy: -8 },
      { at: [steps[0], plain.start], text: "without", anchor: "start", dx: 6, dy: -6 },
    ]);
    unit.dots("plain-median", [[plain.median, sigmoid(plain.median)]], { color: "plain", r: 6 });
    unit.words("labels", [
      { at: [batch.to, sigmoid(batch.to)], text: "with BN", anchor: "end", dx: -10, dy: -8 },
      { at: [plain.median, sigmoid(plain.median)], text: "without", anchor: "start", dx: 14, dy: 14 },
    ]);
    stage.say(sentence(steps[look], plain.spread, batch.spread));
  };
}

function sentence(step, plain, batch) {
  const at = `Step ${step.toLocaleString("en")}: `;
  if (plain < 0.05) return `${at}without normalization, 70 % of the images make the unit’s output differ by at most ${plain.toFixed(3)}. It hardly sees them.`;
  if (plain < 0.6 * batch) return `${at}without normalization the band has begun to open.`;
  return `${at}both bands are open, and the unit tells images apart in both networks.`;
}
