/** One image in a batch that the reader composes: what its units see, and what it is taken for. */

import { forward, mean, normalize, othersShare, softmax } from "../bn.js";

const NAMES = { 0: "a zero", 3: "a three", 8: "an eight" };
const COUNTS = [0, 1, 2, 4, 8, 16, 32];
const REACH = { x: 4, y: 6 };
const DIGITS = Array.from({ length: 10 }, (_, k) => k);

export function figure(stage, start) {
  const { subjects, dimmed, eps } = start;
  const subject = stage.choice({ name: "subject", label: "the image shows", options: NAMES, value: start.subject });
  const counts = {
    own: stage.slider({ name: "own", label: "others of its own class", values: COUNTS.slice(1), value: start.own }),
    others: stage.slider({ name: "others", label: "of the other classes", values: COUNTS, value: start.others }),
    dim: stage.slider({ name: "dim", label: "dim images, of all classes", values: COUNTS, value: start.dim }),
  };
  const units = stage.plot({
    title: "Its normalized values, a point a unit",
    x: { domain: [-REACH.x, REACH.x], label: "in evaluation mode" },
    y: { domain: [-REACH.y, REACH.y], label: "in this batch" },
    height: 0.8,
    most: 320,
  });
  const answers = stage.plot({
    title: "What it is taken for",
    x: { domain: [-0.6, 9.6], ticks: DIGITS, format: String, label: "digit" },
    y: { domain: [0, 1.05], ticks: [0, 0.5, 1], format: String, label: "probability" },
    height: 0.8,
    most: 320,
  });
  const shown = {
    m: stage.number({ name: "m", label: "images in the batch, m" }),
    share: stage.number({ name: "share", label: "the others’ share in its squared slopes" }),
    error: stage.number({ name: "error", label: "mean squared error of its values" }),
    right: stage.number({ name: "right", label: "probability of its class in this batch" }),
    fixed: stage.number({ name: "fixed", label: "the same in evaluation mode" }),
  };

  /** Probabilities of the classes, for normalized values. */
  const classify = (xHat) => {
    const hidden = xHat.map((value, j) => Math.max(start.gamma[j] * value + start.beta[j], 0));
    return softmax(start.out.map((row, k) => row.reduce((sum, w, j) => sum + w * hidden[j], start.bias[k])));
  };

  return () => {
    const { image, own, others } = subjects[subject.value];
    const batch = [
      image,
      ...own.slice(0, counts.own.value),
      ...others.slice(0, counts.others.value),
      ...dimmed.slice(0, counts.dim.value),
    ];
    const columns = image.map((_, j) => batch.map((inputs) => inputs[j]));
    const here = columns.map((values) => forward(values, { eps }).xHat[0]);
    const usual = image.map((value, j) => normalize([value], { mean: start.mean[j], var: start.var[j] }, { eps }).xHat[0]);
    const [now, fixed] = [classify(here), classify(usual)];
    const share = mean(columns.map((values) => othersShare(values, 0, { eps })));
    const error = mean(here.map((value, j) => (value - usual[j]) ** 2));
    const digit = Number(subject.value);
    shown.m(batch.length, String(batch.length));
    shown.share(share, `${(100 * share).toFixed(0)} %`);
    shown.error(error, error.toFixed(2));
    shown.right(now[digit], `${(100 * now[digit]).toFixed(0)} %`);
    shown.fixed(fixed[digit], `${(100 * fixed[digit]).toFixed(0)} %`);
    units.lines("diagonal", [[[-REACH.x, -REACH.x], [REACH.x, REACH.x]]], { color: "neutral", dash: "5 4", width: 1.5 });
    units.dots("units", here.map((value, j) => [usual[j], value]), { color: "batch", r: 5, opacity: 0.85, inside: true });
    for (const [color, values, offset] of [["batch", now, -0.15], ["inference", fixed, 0.15]]) {
      answers.lines(color, values.map((value, k) => [[k + offset, 0], [k + offset, value]]), { color, width: 5 });
    }
    const taken = now.indexOf(Math.max(...now));
    stage.say(sentence(counts, batch.length, error, digit, taken));
  };
}

function sentence({ own, others, dim }, m, error, digit, taken) {
  const verdict = taken === digit ? `It is still taken for a ${digit}.` : `It is taken for a ${taken}, and is a ${digit}.`;
  if (m === 2) return `Two images: every unit sees +1 or −1, and only which of the two is larger is left. ${verdict}`;
  if (others.value + dim.value === 0) return `A batch of one class: what its images have in common is subtracted. ${verdict}`;
  if (dim.value > own.value + others.value) return `Most of the batch is dim: mean and width are those of another camera. ${verdict}`;
  if (own.value >= others.value + dim.value) return `Its own class prevails, and moves the means towards it. ${verdict}`;
  if (error > 0.05) return `A batch unlike the population: points leave the diagonal. ${verdict}`;
  return `A batch much like the population: the points keep near the diagonal. ${verdict}`;
}
