"""A two-layer network with batch normalization, forward and backward by hand, in NumPy.

    Z₁ = W₁X → batch normalization → ReLU → Z₂ = W₂A₁ → batch normalization → softmax

The text writes an example as a column; an array here holds it as a row, so that Z₁ = W₁X reads
``x @ w1.T``. The normalization is the oracle's, ``companion.reference``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion import reference

Array = NDArray[np.float64]
EPS = 1e-5


@dataclass(frozen=True)
class Parameters:
    """Everything that is learned, or its gradient: `d` inputs, `h` hidden units, `k` classes."""

    w1: Array  # (h, d)
    gamma1: Array  # (h,)
    beta1: Array  # (h,)
    w2: Array  # (k, h)
    gamma2: Array  # (k,)
    beta2: Array  # (k,)

    def map(self, function: Callable[..., Array], *others: Parameters) -> Parameters:
        """Apply `function` to each array, together with the arrays of that name in `others`."""
        return Parameters(
            **{
                field.name: function(*(getattr(each, field.name) for each in (self, *others)))
                for field in fields(self)
            }
        )


@dataclass(frozen=True)
class Pass:
    """What the forward pass computed and the backward pass reads, for m examples."""

    x: Array  # (m, d)
    layer1: reference.Batch  # of z1, (m, h); its y is the ReLU's input
    a1: Array  # (m, h)
    layer2: reference.Batch  # of z2, (m, k); its y are the logits
    probabilities: Array  # (m, k)


def initialize(d: int, h: int, k: int, seed: int = 0) -> Parameters:
    """Weights N(0, 1/fan-in), γ = 1 and β = 0. There are no biases: β does their work.

    Parameters
    ----------
    d, h, k
        numbers of inputs, hidden units and classes, each at least 1
    seed
        of the weights

    Raises
    ------
    ValueError
        a number under 1
    """
    for name, size in (("d", d), ("h", h), ("k", k)):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    rng = np.random.default_rng(seed)
    return Parameters(
        w1=rng.normal(size=(h, d)) / np.sqrt(d),
        gamma1=np.ones(h),
        beta1=np.zeros(h),
        w2=rng.normal(size=(k, h)) / np.sqrt(h),
        gamma2=np.ones(k),
        beta2=np.zeros(k),
    )


def softmax(logits: ArrayLike) -> Array:
    """Probabilities ``(m, k)`` whose rows sum to 1. The largest logit is subtracted first."""
    z = np.asarray(logits, dtype=np.float64)
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def forward(p: Parameters, x: ArrayLike) -> Pass:
    """Probabilities, with the statistics of the batch in both layers.

    Parameters
    ----------
    p
        of the network
    x
        inputs ``(m, d)``, m at least 2

    Raises
    ------
    ValueError
        `x` is not ``(m, d)`` with m ≥ 2

    References
    ----------
    Eqs. (21) to (23) of the chapter `backprop`.
    """
    inputs = np.asarray(x, dtype=np.float64)
    d = p.w1.shape[1]
    if inputs.ndim != 2 or inputs.shape[1] != d or len(inputs) < 2:
        raise ValueError(f"x: expected shape (m, {d}) with m of 2 or more, got {inputs.shape}")
    layer1 = reference.forward(inputs @ p.w1.T, p.gamma1, p.beta1, EPS)
    a1 = np.maximum(layer1.y, 0.0)
    layer2 = reference.forward(a1 @ p.w2.T, p.gamma2, p.beta2, EPS)
    return Pass(inputs, layer1, a1, layer2, softmax(layer2.y))


def cross_entropy(probabilities: Array, classes: ArrayLike) -> float:
    """Mean negative logarithm of the probability of the right class, in nats.

    Parameters
    ----------
    probabilities
        ``(m, k)``
    classes
        integers from 0 to k - 1, ``(m,)``
    """
    rows = np.arange(len(probabilities))
    return float(-np.log(probabilities[rows, np.asarray(classes)]).mean())


def backward(p: Parameters, activations: Pass, classes: ArrayLike) -> Parameters:
    """Gradients of the mean cross-entropy with respect to every parameter.

    Parameters
    ----------
    p
        of the network
    activations
        what :func:`forward` returned for `p`
    classes
        integers from 0 to k - 1, ``(m,)``

    Raises
    ------
    ValueError
        not one class for each example

    References
    ----------
    Eqs. (24) to (26) of the chapter `backprop`, Eq. (9) backprop/closed-form in each layer.
    """
    m = len(activations.x)
    labels = np.asarray(classes)
    if labels.shape != (m,):
        raise ValueError(f"classes: expected shape ({m},), got {labels.shape}")
    # Eq. (24) backprop/softmax-gradient
    grad_logits = activations.probabilities.copy()
    grad_logits[np.arange(m), labels] -= 1.0
    grad_logits /= m
    # Eq. (25) backprop/second-layer-gradient
    grads2 = reference.backward(grad_logits, activations.layer2)
    grad_w2 = grads2.x.T @ activations.a1
    # Eq. (26) backprop/first-layer-gradient
    grad_relu = (grads2.x @ p.w2) * (activations.layer1.y > 0)
    grads1 = reference.backward(grad_relu, activations.layer1)
    grad_w1 = grads1.x.T @ activations.x
    first_layer = grad_w1, grads1.gamma, grads1.beta
    return Parameters(*first_layer, grad_w2, grads2.gamma, grads2.beta)


def train(
    p: Parameters,
    x: ArrayLike,
    classes: ArrayLike,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int = 0,
) -> tuple[Parameters, list[float]]:
    """Plain stochastic gradient descent on random batches.

    Parameters
    ----------
    p
        where to start
    x, classes
        inputs ``(n, d)`` and integers ``(n,)``
    steps
        how many
    batch_size
        from 2 to n
    learning_rate
        of every step
    seed
        of the choice of the batches

    Returns
    -------
    tuple[Parameters, list[float]]
        the learned parameters, and the loss of every step in nats

    Raises
    ------
    ValueError
        `batch_size` is out of its range
    """
    inputs, labels = np.asarray(x, dtype=np.float64), np.asarray(classes)
    if not 2 <= batch_size <= len(inputs):
        raise ValueError(f"batch_size: expected 2 to {len(inputs)}, got {batch_size}")
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(steps):
        picked = rng.choice(len(inputs), batch_size, replace=False)
        activations = forward(p, inputs[picked])
        losses.append(cross_entropy(activations.probabilities, labels[picked]))
        gradient = backward(p, activations, labels[picked])
        p = p.map(lambda value, slope: value - learning_rate * slope, gradient)
    return p, losses


@dataclass(frozen=True)
class Statistics:
    """Population mean and (unbiased) variance of each layer's input."""

    mean1: Array  # (h,)
    var1: Array  # (h,)
    mean2: Array  # (k,)
    var2: Array  # (k,)


def population(p: Parameters, x: ArrayLike, batch_size: int) -> Statistics:
    """Algorithm 2: averages over the consecutive batches of `x`; a remainder is left out.

    Parameters
    ----------
    p
        of the network
    x
        inputs ``(n, d)``, in random order
    batch_size
        from 2 to n

    Raises
    ------
    ValueError
        `batch_size` is out of its range

    References
    ----------
    Algorithm 2, lines 8 to 10, of the paper.
    """
    inputs = np.asarray(x, dtype=np.float64)
    if not 2 <= batch_size <= len(inputs):
        raise ValueError(f"batch_size: expected 2 to {len(inputs)}, got {batch_size}")
    starts = range(0, len(inputs) - batch_size + 1, batch_size)
    passes = [forward(p, inputs[start : start + batch_size]) for start in starts]
    first = reference.population_statistics(each.layer1.x for each in passes)
    second = reference.population_statistics(each.layer2.x for each in passes)
    return Statistics(*first, *second)


def predict(p: Parameters, statistics: Statistics, x: ArrayLike) -> Array:
    """Probabilities ``(n, k)`` with fixed statistics: each example on its own.

    Source: Algorithm 2, line 11, of the paper.
    """
    return softmax(
        reference.inference(
            hidden(p, statistics, x) @ p.w2.T,
            statistics.mean2,
            statistics.var2,
            p.gamma2,
            p.beta2,
            EPS,
        )
    )


def hidden(p: Parameters, statistics: Statistics, x: ArrayLike) -> Array:
    """Activations ``(n, h)`` of the hidden layer with fixed statistics."""
    z1 = np.asarray(x, dtype=np.float64) @ p.w1.T
    normalized = reference.inference(z1, statistics.mean1, statistics.var1, p.gamma1, p.beta1, EPS)
    return np.maximum(normalized, 0.0)
