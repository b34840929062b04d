"""The exercises of the chapter `depth`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import closed_forms

from .exercise import Case, Exercise, Property

CHAPTER = "depth"
Array = NDArray[np.float64]


def _array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def _growth_cases() -> Iterator[Case]:
    yield Case("a straight line at two values", (_array(-1, 1), _array(1, 1), 1.0))
    yield Case("a ReLU at three values", (_array(0, 1, 2), _array(0, 1, 1), 1.0))
    yield Case("the same, and weights of variance 2/n", (_array(0, 1, 2), _array(0, 1, 1), 2.0))
    yield Case("outputs far from 0", (_array(1, 3, 2), _array(2, 1, 2), 1.0))
    z = np.random.default_rng(0).normal(size=50)
    sigmoid = 1 / (1 + np.exp(-z))
    yield Case("a sigmoid at 50 values", (sigmoid, sigmoid * (1 - sigmoid), 0.5))


def _growth(y: Array, slope: Array, weight_var: float) -> tuple[float, float]:
    """The variance as half the mean square of the difference of two values."""
    var = sum((float(a) - float(b)) ** 2 for a, b in product(y, y)) / (2 * len(y) ** 2)
    square = sum(float(each) ** 2 for each in slope) / len(slope)
    return math.sqrt(weight_var * square), math.sqrt(square / var)


def _with_growth(change: Callable[..., tuple[float, float]]) -> Callable[..., Any]:
    """A mistake made with the mean square slope, the outputs, and nσ_W²."""
    return lambda y, slope, weight_var: change(float(np.square(slope).mean()), y, weight_var)


GRADIENT_GROWTH = Exercise(
    "gradient-growth",
    CHAPTER,
    "the factor of the gradient's norm per layer, without normalization and with it",
    ("y", "slope", "weight_var"),
    oracle=_growth,
    cases=_growth_cases,
    returns=("plain", "normalized"),
    slips={
        "The factors of the norm are asked for: take the roots.": _with_growth(
            lambda square, y, weights: (weights * square, square / y.var())
        ),
        "The mean of the squared slopes is not the square of their mean.": (
            lambda y, slope, weights: (
                math.sqrt(weights) * abs(float(slope.mean())),
                abs(float(slope.mean())) / float(y.std()),
            )
        ),
        "The normalization divides by the standard deviation of f(z): its mean is taken off.": (
            _with_growth(
                lambda square, y, weights: (
                    math.sqrt(weights * square),
                    math.sqrt(square / float(np.square(y).mean())),
                )
            )
        ),
        "With a normalization the weights' variance cancels.": _with_growth(
            lambda square, y, weights: (
                math.sqrt(weights * square),
                math.sqrt(weights * square / y.var()),
            )
        ),
        "Without a normalization the weights' variance counts.": _with_growth(
            lambda square, y, _weights: (math.sqrt(square), math.sqrt(square / y.var()))
        ),
        "A variance is biased here: divide by the number of values.": _with_growth(
            lambda square, y, weights: (
                math.sqrt(weights * square),
                math.sqrt(square / y.var(ddof=1)),
            )
        ),
        "Without a normalization comes first.": _with_growth(
            lambda square, y, weights: (math.sqrt(square / y.var()), math.sqrt(weights * square))
        ),
    },
)


def _rank_cases() -> Iterator[Case]:
    yield Case("two units that are one", (_array(1, 1, -1, -1).reshape(2, 2),))
    yield Case("two units without correlation", (_array(1, 1, 1, -1, -1, 1, -1, -1).reshape(4, 2),))
    yield Case(
        "the same, one of them twice as wide", (np.array([[2, 1], [2, -1], [-2, 1], [-2, -1.0]]),)
    )
    yield Case("the same, far from 0", (np.array([[7, 1], [7, -1], [3, 1], [3, -1.0]]),))
    h = np.random.default_rng(0).normal(size=(5, 40))
    yield Case("five examples of 40 units", (h,))


def _rank(h: Array) -> float:
    squares = np.linalg.svd(h - h.mean(axis=0), compute_uv=False) ** 2
    return float(squares.sum() ** 2 / np.square(squares).sum())


def _of_covariance(change: Callable[[Array, Array], float]) -> Callable[[Array], float]:
    """A mistake made with the covariance matrix and the outputs."""
    return lambda h: change(np.cov(h.T, bias=True), h)


def _bounded(rank: Any, h: Array) -> float:
    """How far the rank is outside 1 to what the shape allows."""
    most = min(len(h) - 1, h.shape[1])
    return max(1 - float(rank), float(rank) - most, 0.0)


SOFT_RANK = Exercise(
    "soft-rank",
    CHAPTER,
    "the soft rank of a batch of outputs",
    ("h",),
    oracle=_rank,
    cases=_rank_cases,
    properties=(Property("1 ≤ r ≤ m − 1, and r ≤ n", _bounded),),
    slips={
        "The mean over the batch is taken off first.": (
            lambda h: float(np.trace(h.T @ h) ** 2 / np.square(h.T @ h).sum())
        ),
        "The mean is that of each unit over the batch, not of each example over the units.": (
            lambda h: _rank(h.T)
        ),
        "The trace is squared, too.": _of_covariance(
            lambda cov, _h: float(np.trace(cov) / np.square(cov).sum())
        ),
        "The denominator is the sum of the squares of all entries, not of those of the diagonal.": (
            _of_covariance(lambda cov, _h: float(np.trace(cov) ** 2 / (np.diag(cov) ** 2).sum()))
        ),
        "The sum of squares is not rooted.": _of_covariance(
            lambda cov, _h: float(np.trace(cov) ** 2 / np.linalg.norm(cov))
        ),
        "This is the number of independent directions, however weak.": (
            lambda h: float(np.linalg.matrix_rank(h - h.mean(axis=0)))
        ),
        "A covariance, not a correlation: wide units count for more.": (
            lambda h: _rank((h - h.mean(axis=0)) / h.std(axis=0))
        ),
    },
)


def _moment_cases() -> Iterator[Case]:
    yield Case("one block without normalization", (1.0, 1, None))
    yield Case("one block with γ = 1", (1.0, 1, 1.0))
    yield Case("three blocks with γ = 1", (2.0, 3, 1.0))
    yield Case("three blocks without normalization", (2.0, 3, None))
    yield Case("γ = −1/2", (1.0, 4, -0.5))
    yield Case("γ = 0", (3.0, 5, 0.0))
    yield Case("no block", (3.0, 0, 1.0))


def _moment(before: float, blocks: int, gamma: float | None) -> tuple[float, float]:
    """Exact fractions, block by block."""
    moment, share = Fraction(before), Fraction(0)
    for _ in range(blocks):
        branch = moment if gamma is None else Fraction(gamma) ** 2
        moment += branch
        share = branch / moment
    return float(moment), math.sqrt(share)


RESIDUAL_MOMENT = Exercise(
    "residual-moment",
    CHAPTER,
    "the mean square after some blocks with a shortcut, and the last branch's share of it",
    ("before", "blocks", "gamma"),
    oracle=_moment,
    cases=_moment_cases,
    returns=("moment", "share"),
    slips={
        "The share is of the root mean squares: take the root.": (
            lambda before, blocks, gamma: (
                _moment(before, blocks, gamma)[0],
                _moment(before, blocks, gamma)[1] ** 2,
            )
        ),
        "A branch that ends with a normalization adds γ², not γ.": (
            lambda before, blocks, gamma: _moment(
                before, blocks, gamma if gamma is None else math.sqrt(abs(gamma))
            )
        ),
        "What the shortcut brings is added to the branch: it starts at `before`.": (
            lambda before, blocks, gamma: (
                _moment(before, blocks, gamma)[0] - before,
                _moment(before, blocks, gamma)[1],
            )
        ),
        "Without a normalization the branch has the mean square of what enters it: each block "
        "doubles.": (
            lambda before, blocks, gamma: _moment(before, blocks, 1.0 if gamma is None else gamma)
        ),
        "Independent values add up by their squares, not by their sizes.": (
            lambda before, blocks, gamma: (
                (math.sqrt(before) + blocks * (gamma or 0.0)) ** 2
                if gamma is not None
                else before * 4.0**blocks,
                _moment(before, blocks, gamma)[1],
            )
        ),
        "The share is that in the sum: what leaves the block, not what enters it.": (
            lambda before, blocks, gamma: (
                _moment(before, blocks, gamma)[0],
                _ratio(before, blocks, gamma),
            )
        ),
    },
)


def _ratio(before: float, blocks: int, gamma: float | None) -> float:
    """The last branch over what entered its block."""
    if blocks == 0:
        return 0.0
    entered, _ = _moment(before, blocks - 1, gamma)
    return 1.0 if gamma is None else abs(gamma) / math.sqrt(entered)


def _similarity_cases() -> Iterator[Case]:
    yield Case("a straight line keeps it", (0.5, _array(1.0), 3))
    yield Case("one layer, half of degree 1 and half of degree 2", (0.5, _array(0.5, 0.5), 1))
    yield Case("two layers", (0.5, _array(0.5, 0.5), 2))
    yield Case("a negative correlation", (-0.5, _array(0.25, 0.5, 0.25), 2))
    yield Case("the same image twice", (1.0, _array(0.7, 0.2, 0.1), 10))
    yield Case("no layer", (0.3, _array(0.5, 0.5), 0))


def _similarity(c: float, shares: Array, layers: int) -> float:
    value = Fraction(c)
    exact = [Fraction(float(share)) for share in shares]
    for _ in range(layers):
        value = sum((p * value**k for k, p in enumerate(exact, 1)), Fraction(0))
        value = value.limit_denominator(10**18)
    return float(value)


def _like(function: Callable[[float, Array], float]) -> Callable[[float, Array, int], float]:
    """A mistaken layer, as often as asked."""

    def repeated(c: float, shares: Array, layers: int) -> float:
        for _ in range(layers):
            c = function(c, shares)
        return c

    return repeated


SIMILARITY_AFTER = Exercise(
    "similarity-after",
    CHAPTER,
    "the correlation of two examples after some layers",
    ("c", "shares", "layers"),
    oracle=_similarity,
    cases=_similarity_cases,
    slips={
        "The first share is that of degree 1.": _like(
            lambda c, p: float(sum(each * c**k for k, each in enumerate(p)))
        ),
        "Each layer starts from what the one before has left.": (
            lambda c, p, layers: float(sum(q * c**k for k, q in enumerate(p, 1))) if layers else c
        ),
        "The other degrees count, too, not only the first.": (
            lambda c, p, layers: float(c * p[0] ** layers)
        ),
        "The degree is the exponent of the correlation, not a factor.": _like(
            lambda c, p: float(sum(k * each * c for k, each in enumerate(p, 1)))
        ),
        "The shares are shares of the variance already: they are not squared.": _like(
            lambda c, p: float(sum(each**2 * c**k for k, each in enumerate(p, 1)))
        ),
    },
)


def _shortcut_cases() -> Iterator[Case]:
    yield Case("one block", (1, 1.5, 1.0))
    yield Case("two blocks", (2, 1.5, 1.0))
    yield Case("ten blocks of ReLUs", (10, math.pi / (math.pi - 1), 1.0))
    yield Case("γ = 1/2", (3, 2.0, 0.5))
    yield Case("γ = 0", (5, 2.0, 0.0))
    yield Case("no block", (0, 2.0, 1.0))


SHORTCUT_GROWTH = Exercise(
    "shortcut-growth",
    CHAPTER,
    "growth of the gradient's norm through some blocks with shortcuts",
    ("blocks", "rho", "gamma"),
    oracle=closed_forms.shortcut_gradient_growth,
    cases=_shortcut_cases,
    slips={
        "The growth of the norm is asked for: take the root.": (
            lambda blocks, rho, gamma: (
                closed_forms.shortcut_gradient_growth(blocks, rho, gamma) ** 2
            )
        ),
        "The branch's part falls from block to block, as the variance that is divided by grows.": (
            lambda blocks, rho, gamma: (1 + gamma**2 * rho) ** (blocks / 2)
        ),
        "What the shortcut passes on comes on top of the branch's part: 1 + …": (
            lambda blocks, rho, gamma: math.sqrt(
                math.prod(gamma**2 * rho / (1 + gamma**2 * k) for k in range(blocks))
            )
        ),
        "The branch's part of the gradient's square has γ², as its part of the variance.": (
            lambda blocks, rho, gamma: closed_forms.shortcut_gradient_growth(
                blocks, rho, math.sqrt(abs(gamma))
            )
        ),
        "The variance enters the first block as 1.": (
            lambda blocks, rho, gamma: math.sqrt(
                math.prod(1 + gamma**2 * rho / (1 + gamma**2 * k) for k in range(1, blocks + 1))
            )
        ),
        "This is the growth of a stack without shortcuts.": (
            lambda blocks, rho, _gamma: rho ** (blocks / 2)
        ),
    },
)

EXERCISES = (GRADIENT_GROWTH, SIMILARITY_AFTER, SOFT_RANK, RESIDUAL_MOMENT, SHORTCUT_GROWTH)
