"""The exercises of the chapter `learning-rate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exercise import Case, Exercise

CHAPTER = "learning-rate"
Array = NDArray[np.float64]


def _array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def _rows(weight: Array) -> Array:
    return weight.reshape(len(weight), -1)


def _effective_cases() -> Iterator[Case]:
    yield Case("one unit, of norm 5", (np.array([[3.0, 4.0]]), 1.0))
    yield Case("two units, of norms 1 and 4", (np.array([[1.0, 0.0], [0.0, -4.0]]), 0.5))
    generator = np.random.default_rng(0)
    yield Case("a convolution of two output channels", (generator.normal(size=(2, 3, 2, 2)), 0.1))
    yield Case("seven units with three inputs", (generator.normal(size=(7, 3)), 0.3))


def _effective(weight: Array, learning_rate: float) -> Array:
    """The tangent of a unit's turn, for a gradient that has norm 1 at the unit vector."""
    norms = np.linalg.norm(_rows(weight), axis=1)
    turned = norms + 1j * learning_rate / norms
    return np.tan(np.angle(turned))


EFFECTIVE_LR = Exercise(
    "effective-lr",
    CHAPTER,
    "the effective learning rate of each unit in front of a normalization",
    ("weight", "learning_rate"),
    oracle=_effective,
    cases=_effective_cases,
    slips={
        "The effective rate is η over the square of the norm.": (
            lambda weight, rate: rate / np.linalg.norm(_rows(weight), axis=1)
        ),
        "Each unit has a norm of its own: that of its row, or of its output channel.": (
            lambda weight, rate: np.full(len(weight), rate / np.square(weight).sum())
        ),
        "The norm's square is the sum of the squares, not their mean.": (
            lambda weight, rate: rate / np.square(_rows(weight)).mean(axis=1)
        ),
        "A unit's weights are a row; a column belongs to an input.": (
            lambda weight, rate: rate / np.square(weight).sum(axis=0)
        ),
        "Longer weights turn less: divide by the square of the norm.": (
            lambda weight, rate: rate * np.square(_rows(weight)).sum(axis=1)
        ),
        "A unit of a convolution has all weights of its output channel, of all positions.": (
            lambda weight, rate: rate / np.square(weight).sum(axis=1)
        ),
    },
)


def _growth_cases() -> Iterator[Case]:
    yield Case("one step", (1.0, _array(2), 1.0))
    yield Case("from the norm 2", (2.0, _array(1), 3.0))
    yield Case("three steps, gradients that fall", (2.0, _array(3, 2, 1), 0.5))
    yield Case("no step", (3.0, np.zeros(0), 0.1))
    yield Case("short weights", (0.01, _array(1, 1, 1, 1), 0.1))


def _growth(norm: float, gradient_norms: Array, learning_rate: float) -> Array:
    """By steps in the plane, each at a right angle to the weights."""
    weights = [complex(norm)]
    for size in gradient_norms:
        w = weights[-1]
        gradient = size / abs(w) * 1j * w / abs(w)
        weights.append(w - learning_rate * gradient)
    return np.abs(weights)


def _grown(norm: float, steps: Array) -> Array:
    """Norms after steps of the squared lengths `steps`."""
    return np.sqrt(norm**2 + np.concatenate([[0.0], np.cumsum(steps)]))


def _along(norm: float, gradient_norms: Array, learning_rate: float) -> Array:
    norms = [norm]
    for size in gradient_norms:
        norms.append(norms[-1] + learning_rate * size / norms[-1])
    return np.array(norms)


def _rate_not_squared(norm: float, gradient_norms: Array, learning_rate: float) -> Array:
    squares = [norm**2]
    for size in gradient_norms:
        squares.append(squares[-1] + learning_rate * size**2 / squares[-1])
    return np.sqrt(squares)


NORM_GROWTH = Exercise(
    "norm-growth",
    CHAPTER,
    "the norms of scale-invariant weights over steps of descent",
    ("norm", "gradient_norms", "learning_rate"),
    oracle=_growth,
    cases=_growth_cases,
    slips={
        "The norms are those of G at the unit vector; the gradient at w is G/r.": (
            lambda norm, sizes, rate: _grown(norm, (rate * sizes) ** 2)
        ),
        "The step is orthogonal to the weights: the squares of the lengths add up.": _along,
        "The gradient at w is G/r with the norm of this step, not of the first.": (
            lambda norm, sizes, rate: _grown(norm, (rate * sizes / norm) ** 2)
        ),
        "The norm before the first step comes first: T + 1 numbers.": (
            lambda norm, sizes, rate: _growth(norm, sizes, rate)[1:]
        ),
        "The norms are asked for, not their squares.": (
            lambda norm, sizes, rate: _growth(norm, sizes, rate) ** 2
        ),
        "A step has the length η‖G‖/r: the learning rate is squared, too.": _rate_not_squared,
    },
)


def _mirror_cases() -> Iterator[Case]:
    yield Case("weights and gradient of norm 1", (_array(1, 0), _array(0, 1), 2.0))
    yield Case("longer weights", (_array(3, 0), _array(0, 1), 0.5))
    yield Case("a smaller gradient", (_array(0, 2), _array(0.1, 0), 5.0))
    yield Case("five inputs", (_array(1, 2, 0, -1, 1), _array(0.3, 0.1, 7, 0.5, 0), 0.01))


def _mirror(weight: Array, gradient: Array, learning_rate: float) -> float:
    """The other root of rate/‖w − rate·∇L‖² = the effective rate after a step."""
    effective = learning_rate / np.square(weight - learning_rate * gradient).sum()
    roots = np.roots([effective * (gradient @ gradient), -1.0, effective * (weight @ weight)]).real
    return float(roots[np.argmax(np.abs(roots - learning_rate))])


MIRROR_RATE = Exercise(
    "mirror-rate",
    CHAPTER,
    "the other learning rate with the same effective rate after one step",
    ("weight", "gradient", "learning_rate"),
    oracle=_mirror,
    cases=_mirror_cases,
    slips={
        "The gradient is given at w: at the unit vector it is ‖w‖ times as large.": (
            lambda w, g, rate: (w @ w) ** 2 / (rate * (g @ g))
        ),
        "1/(ηe‖G‖²) is an effective rate; the learning rate is ‖w‖² times as large.": (
            lambda _w, g, rate: 1 / (rate * (g @ g))
        ),
        "Both norms are squared.": (
            lambda w, g, rate: np.linalg.norm(w) / (rate * np.linalg.norm(g))
        ),
        "That is the rate that is its own mirror; the mirror of the given one is asked for.": (
            lambda w, g, _rate: np.linalg.norm(w) / np.linalg.norm(g)
        ),
        "The larger the gradient, the smaller the mirrored rate: ‖w‖² is above.": (
            lambda w, g, rate: (g @ g) / (w @ w) / rate
        ),
        "The smaller the rate, the larger its mirror: divide by it.": (
            lambda w, g, rate: rate * (w @ w) / (g @ g)
        ),
    },
)


def _stable_cases() -> Iterator[Case]:
    yield Case("two weights of norm 1", (np.diag([0.0, 2.0]), 1.0))
    yield Case("the same, three times as long", (np.diag([0.0, 2.0]), 3.0))
    yield Case("a steep and a flat direction", (np.diag([5.0, 0.0, 0.1]), 1.0))
    root = np.random.default_rng(0).normal(size=(4, 3))
    yield Case("four weights, any directions", (root @ root.T, 0.5))


def _stable(hessian: Array, norm: float) -> float:
    """By bisection on whether errors grow under I − ηH/r²."""
    curvature, low, high = hessian / norm**2, 0.0, 1.0

    def grows(rate: float) -> bool:
        return bool(np.linalg.norm(np.eye(len(hessian)) - rate * curvature, 2) > 1 + 1e-14)

    while not grows(high):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return low


def _eigenvalues(hessian: Array) -> NDArray[np.floating[Any]]:
    return np.linalg.eigvalsh(hessian)


MAX_STABLE_LR = Exercise(
    "max-stable-lr",
    CHAPTER,
    "the largest learning rate that does not leave a minimum of a scale-invariant loss",
    ("hessian", "norm"),
    oracle=_stable,
    cases=_stable_cases,
    slips={
        "Curvature falls with the square of the norm.": (
            lambda hessian, norm: 2 * norm / _eigenvalues(hessian)[-1]
        ),
        "Longer weights are less curved, and bear a larger rate.": (
            lambda hessian, norm: 2 / (_eigenvalues(hessian)[-1] * norm**2)
        ),
        "The Hessian is that at norm 1; at another norm the curvature is another.": (
            lambda hessian, _norm: 2 / _eigenvalues(hessian)[-1]
        ),
        "An error does not grow up to the factor −1: η times the curvature is 2 there, not 1.": (
            lambda hessian, norm: norm**2 / _eigenvalues(hessian)[-1]
        ),
        "The steepest direction sets the limit, not the average one.": (
            lambda hessian, norm: 2 * norm**2 * len(hessian) / np.trace(hessian)
        ),
        "The curvatures are the eigenvalues, not the entries on the diagonal.": (
            lambda hessian, norm: 2 * norm**2 / np.diag(hessian).max()
        ),
    },
)

EXERCISES = (EFFECTIVE_LR, NORM_GROWTH, MIRROR_RATE, MAX_STABLE_LR)
