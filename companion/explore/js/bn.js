/**
 * Batch normalization of one channel, as companion/reference.py computes it: the same formulas, in
 * the same order, in the same 64-bit numbers. The tests compare the two.
 */

const sum = (values) => values.reduce((total, value) => total + value, 0);

export const mean = (values) => sum(values) / values.length;

/** Mean and biased variance. The rounding error of the mean is itself a mean: it is added back. */
export function moments(values) {
  const first = mean(values);
  const batchMean = first + mean(values.map((x) => x - first));
  const centred = values.map((x) => x - batchMean);
  return { m: values.length, mean: batchMean, var: mean(centred.map((d) => d * d)) };
}

/** The transform with statistics that are given: those of the batch, or fixed ones. */
export function normalize(values, statistics, { gamma = 1, beta = 0, eps = 1e-5 } = {}) {
  const invStd = 1 / Math.sqrt(statistics.var + eps);
  const xHat = values.map((x) => (x - statistics.mean) * invStd);
  return { ...statistics, invStd, xHat, y: xHat.map((value) => gamma * value + beta) };
}

/** Algorithm 1: statistics of the batch, x̂, and y = γx̂ + β. */
export function forward(values, parameters) {
  return normalize(values, moments(values), parameters);
}

/**
 * Indices of the values, in an array of this shape, that share a mean with the one at `place`: along
 * each axis they lie in the same of the blocks, of so many values, that the axis is cut into.
 */
export function sharing(shape, blocks, place) {
  const total = shape.reduce((product, size) => product * size, 1);
  const together = (index) => {
    let rest = index;
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      const at = rest % shape[axis];
      rest = (rest - at) / shape[axis];
      if (Math.floor(at / blocks[axis]) !== Math.floor(place[axis] / blocks[axis])) return false;
    }
    return true;
  };
  return Array.from({ length: total }, (_, index) => index).filter(together);
}

/** The m × m matrix ∂yᵢ/∂xⱼ = (γ/s)·P, with P = I − 11ᵀ/m − x̂x̂ᵀ/m. */
export function jacobian(values, { gamma = 1, eps = 1e-5 } = {}) {
  const { m, invStd, xHat } = forward(values, { eps });
  return xHat.map((xi, i) =>
    xHat.map((xj, j) => gamma * invStd * ((i === j ? 1 : 0) - 1 / m - (xi * xj) / m)),
  );
}

/** Of the squares of ∂yᵢ/∂xⱼ over all j, at i = `place`: what the other examples have of their sum. */
export function othersShare(values, place, { eps = 1e-5 } = {}) {
  const squares = jacobian(values, { eps })[place].map((entry) => entry * entry);
  return 1 - squares[place] / sum(squares);
}

/** Probabilities in the ratio of the exponentials. */
export function softmax(logits) {
  const highest = Math.max(...logits);
  const weights = logits.map((value) => Math.exp(value - highest));
  return weights.map((weight) => weight / sum(weights));
}

/** Moments of two parts together (Chan, Golub and LeVeque); either part may be empty. */
export function merge(a, b) {
  if (a.m === 0) return b;
  const m = a.m + b.m;
  const delta = b.mean - a.mean;
  const squares = a.m * a.var + b.m * b.var + (delta * delta * a.m * b.m) / m;
  return { m, mean: a.mean + (delta * b.m) / m, var: squares / m };
}

/** c_m = √(2/m)·Γ(m/2)/Γ((m−1)/2): the mean of σ_B of m Gaussian values of variance 1. */
export function stdShrinkage(m) {
  let ratio = 1 / Math.sqrt(Math.PI); // Γ(1)/Γ(1/2), and from m to m + 1 by Γ(k + 1) = kΓ(k)
  for (let k = 2; k < m; k += 1) ratio = (k - 1) / 2 / ratio;
  return Math.sqrt(2 / m) * ratio;
}

/** Eigenvalues, the larger first, and unit eigenvectors of the symmetric matrix [[a, b], [b, c]]. */
export function eigen([a, b, c]) {
  const half = Math.hypot((a - c) / 2, b);
  const high = (a + c) / 2 + half;
  // The determinant over the larger: their difference would cancel.
  const low = high === 0 ? 0 : (a * c - b * b) / high;
  const angle = Math.atan2(2 * b, a - c) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return { values: [high, low], vectors: [[cos, sin], [-sin, cos]] };
}

/** [a, b, c] of the second-moment matrix [[a, b], [b, c]] of points in the plane. */
export function secondMoment(points) {
  const product = (i, j) => mean(points.map((point) => point[i] * point[j]));
  return [product(0, 0), product(0, 1), product(1, 1)];
}

/**
 * Steps of gradient descent until the excess loss is `tolerance` times the first; along each
 * eigenvector it shrinks by (1 − ηλ)² a step. `most` if that many do not suffice.
 */
export function descentSteps(eigenvalues, excess, rate, tolerance = 0.01, most = 100000) {
  const target = tolerance * sum(excess);
  let left = excess;
  for (let steps = 0; steps < most; steps += 1) {
    if (sum(left) <= target) return steps;
    left = left.map((value, i) => value * (1 - rate * eigenvalues[i]) ** 2);
  }
  return most;
}

/**
 * Descent on the bias of y = u + b − μ and half the mean squared error: b, loss and the gradient that
 * descent follows, before each of `steps` steps and after the last. μ is computed anew before every
 * `every` steps, and a constant to descent; `inside`, before each, and part of the gradient.
 */
export function biasDescent(u, t, { rate, steps, every = 1, inside = false }) {
  const path = [];
  let [b, mu] = [0, 0];
  for (let step = 0; step <= steps; step += 1) {
    const x = u.map((value) => value + b);
    if (inside || step % every === 0) mu = mean(x);
    const errors = x.map((value, i) => value - mu - t[i]);
    const direct = mean(errors);
    const gradient = inside ? direct - direct : direct; // through the mean comes the opposite
    path.push({ b, loss: mean(errors.map((error) => error * error)) / 2, gradient });
    b -= rate * gradient;
  }
  return path;
}

/** Running averages after each value, from 0: a ← (1 − α)a + αx. `removed`: without the start's weight. */
export function runningAverage(values, alpha, removed = false) {
  let [average, left] = [0, 1];
  return values.map((value) => {
    average = (1 - alpha) * average + alpha * value;
    left *= 1 - alpha;
    return removed ? average / (1 - left) : average;
  });
}

/**
 * Errors that are expected of a running average of t values of one variance, whose mean moves by
 * `drift` at each: what the start leaves, which begins `start` from the newest mean; the lag; and the
 * standard deviation. `removed`: without the start's weight.
 */
export function averageErrors(alpha, t, { start, drift, variance, removed = false }) {
  const left = (1 - alpha) ** t;
  const age = ((1 - alpha) / alpha) * (1 - left) - t * left;
  const std = Math.sqrt(((variance * alpha) / (2 - alpha)) * (1 - left * left));
  const weight = removed ? 1 - left : 1;
  return { start: removed ? 0 : left * start, lag: (-drift * age) / weight, std: std / weight };
}

/**
 * Length r and angle of a step of weights that decay, before each of the steps whose learning rates
 * are given; the gradient is orthogonal to the weights, and `gradient`/r long.
 */
export function decayPath(start, rates, decay, gradient) {
  let r = start;
  return rates.map((rate) => {
    const [along, across] = [(1 - rate * decay) * r, (rate * gradient) / r];
    const state = { r, angle: Math.atan2(across, along) };
    r = Math.hypot(along, across);
    return state;
  });
}

/** Activation functions and their derivatives, by name. */
const ACTIVATIONS = {
  line: [(z) => z, () => 1],
  relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
  sigmoid: [
    (z) => 1 / (1 + Math.exp(-z)),
    (z) => Math.exp(-Math.abs(z)) / (1 + Math.exp(-Math.abs(z))) ** 2,
  ],
  tanh: [Math.tanh, (z) => 1 - Math.tanh(z) ** 2],
};

/** Lists of values, one a unit, combined by the weights of each row. */
function combine(rows, units) {
  return rows.map((row) => {
    const total = units[0].map(() => 0);
    row.forEach((weight, k) => {
      const values = units[k];
      for (let i = 0; i < total.length; i += 1) total[i] += weight * values[i];
    });
    return total;
  });
}

/**
 * Norms of the gradient in a stack of layers, each a matrix, a normalization and an activation: at
 * the top, where it is `gradient`, and below each layer from there down. The first layer's inputs
 * are activations, too, of `inputs`, normalized; these and `gradient` have m values for each unit.
 */
export function gradientNorms(activation, inputs, matrices, gradient, eps = 1e-12) {
  const [f, slope] = ACTIVATIONS[activation];
  const activate = (units) => units.map(({ xHat }) => xHat.map(f));
  const normalized = (units) => units.map((x) => forward(x, { eps }));
  let values = activate(normalized(inputs));
  const layers = matrices.map((matrix) => {
    const units = normalized(combine(matrix, values));
    values = activate(units);
    return units;
  });
  let g = gradient;
  const norms = [g];
  for (let k = layers.length - 1; k >= 0; k -= 1) {
    const below = layers[k].map((unit, j) =>
      backward(unit, g[j].map((value, i) => value * slope(unit.xHat[i]))),
    );
    g = combine(matrices[k][0].map((_, i) => matrices[k].map((row) => row[i])), below);
    norms.push(g);
  }
  return norms.map((units) => Math.sqrt(sum(units.map((unit) => sum(unit.map((v) => v * v))))));
}

/**
 * Descent on the two weights of a unit, x = w·u, with the loss ½·mean (x̂ − t)² of normalized targets, which
 * is 1 − ρ, ρ being the correlation of x and t. [a, b, c] is the second moment of centred inputs,
 * `toTarget` the mean of ut. Weights, loss and ‖∇L‖ before each of `steps` steps and after the last.
 */
export function unitDescent([a, b, c], toTarget, start, { rate, steps }) {
  const path = [];
  let w = start;
  for (let step = 0; step <= steps; step += 1) {
    const sigmaW = [a * w[0] + b * w[1], b * w[0] + c * w[1]];
    const std = Math.sqrt(w[0] * sigmaW[0] + w[1] * sigmaW[1]);
    const rho = (w[0] * toTarget[0] + w[1] * toTarget[1]) / std;
    const gradient = [0, 1].map((k) => ((rho * sigmaW[k]) / std - toTarget[k]) / std);
    path.push({ w, loss: 1 - rho, gradient: Math.hypot(...gradient) });
    w = [0, 1].map((k) => w[k] - rate * gradient[k]);
  }
  return path;
}
/** The largest of some values less the smallest: how far a loss ranges along a step. */
export const range = (values) => Math.max(...values) - Math.min(...values);

/** The hyperplane wᵀu = at on which a unit's γx̂ + β is 0, and the sign of the side where it is above. */
export function kink({ mean: center, var: variance }, { gamma = 1, beta = 0, eps = 1e-5 } = {}) {
  return { at: center - (beta * Math.sqrt(variance + eps)) / gamma, side: Math.sign(gamma) };
}

/** Distances of points from the hyperplane wᵀu = at, positive on the side of `side`. */
export function distances(points, w, { at, side }) {
  const length = Math.hypot(...w);
  return points.map((point) => (side * (sum(point.map((value, k) => value * w[k])) - at)) / length);
}

/** Bytes that a pass reads and writes, `kept` of which the cache holds between its two sweeps. */
export function bytesMoved(pass, tensor, inFlight, kept) {
  const sweptTwice = { forward: 1, backward: 2 }[pass];
  const least = { forward: 2, backward: 3 }[pass];
  const blocks = Math.floor(tensor / inFlight);
  const again = (size) => Math.max(sweptTwice * size - kept, 0);
  return least * tensor + blocks * again(inFlight) + again(tensor - blocks * inFlight);
}

/** The roofline: operations per second that a machine allows at an intensity. */
export const attainable = (intensity, bandwidth, rate) => Math.min(rate, intensity * bandwidth);

/** ∂L/∂x of one channel from ∂L/∂y: (γ/s)·(g − ḡ − x̂·mean(g·x̂)); `batch` is what `forward` returned. */
export function backward({ invStd, xHat }, grad, gamma = 1) {
  const [level, slope] = [mean(grad), mean(grad.map((g, i) => g * xHat[i]))];
  return grad.map((g, i) => gamma * invStd * (g - level - xHat[i] * slope));
}

/** Rows of a matrix times columns of values: a list for each row, over the examples. */
const times = (matrix, values) =>
  matrix.map((row) => values[0].map((_, i) => sum(row.map((weight, j) => weight * values[j][i]))));

/**
 * The recurrence h = tanh(γ_h·BN(W·h) + γ_x·x̂), x̂ being an input's normalized term, and back again:
 * norms of the gradients of the states, the last first. Values are a list a unit, over the examples;
 * `inputs` has first the first state's x̂, then one for each step, then the gradient of the last state.
 */
export function gradientThroughTime(weights, inputs, { gammaH, gammaX, eps = 1e-5 }) {
  let h = inputs[0].map((unit) => unit.map(Math.tanh));
  const steps = inputs.slice(1, -1).map((xHat) => {
    const past = times(weights, h).map((unit) => forward(unit, { eps }));
    h = past.map((unit, j) => unit.xHat.map((value, i) => Math.tanh(gammaH * value + gammaX * xHat[j][i])));
    return { past, h };
  });
  const transposed = weights.map((_, j) => weights.map((row) => row[j]));
  let grad = inputs.at(-1);
  const norms = [grad];
  for (const { past, h: state } of steps.reverse().slice(0, -1)) {
    const inside = grad.map((unit, j) => unit.map((g, i) => g * (1 - state[j][i] ** 2)));
    grad = times(transposed, inside.map((unit, j) => backward(past[j], unit, gammaH)));
    norms.push(grad);
  }
  return norms.map((units) => Math.sqrt(sum(units.map((unit) => sum(unit.map((g) => g * g))))));
}

/** √(ρ·σ²E[tanh′(z)²]/E[tanh(z)²]), z ~ N(0, σ²): see recurrent_factor in companion/closed_forms. */
export function recurrentFactor(std, share) {
  const step = 0.125 / Math.max(std, 1);
  const reach = Math.ceil(9 / step);
  let [square, slope] = [0, 0];
  for (let k = -reach; k <= reach; k += 1) {
    const value = Math.tanh(std * k * step) ** 2;
    const density = Math.exp(-((k * step) ** 2) / 2);
    square += density * value;
    slope += density * (1 - value) ** 2;
  }
  return std * Math.sqrt((share * slope) / square);
}

/**
 * x̂ of all values of an array of this shape, each by the mean and the variance of those with which it
 * shares them: along each axis they lie in the same of the blocks, of so many values, that it is cut into.
 */
export function normalizeTogether(values, shape, blocks, eps = 1e-5) {
  const sets = new Map();
  values.forEach((_, index) => {
    let [rest, key] = [index, ""];
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      key = `${Math.floor((rest % shape[axis]) / blocks[axis])} ${key}`;
      rest = Math.floor(rest / shape[axis]);
    }
    sets.set(key, [...(sets.get(key) ?? []), index]);
  });
  const xHat = [];
  for (const set of sets.values()) {
    forward(set.map((index) => values[index]), { eps }).xHat.forEach((value, k) => (xHat[set[k]] = value));
  }
  return xHat;
}
