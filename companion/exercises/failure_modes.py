"""The exercises of the chapter `failure-modes`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from companion import reference
from companion.variants import adapted_statistics

from .exercise import Case, Exercise, Property

CHAPTER = "failure-modes"
Array = NDArray[np.float64]


def _array(*values: Any) -> Array:
    return np.array(values, dtype=np.float64)


# --- leakage -------------------------------------------------------------------------------------


def _leakage_cases() -> Iterator[Case]:
    yield Case("three values, ε = 0", (_array(0, 1, 5), 0.0))
    yield Case("two values, which need an ε: each has half", (_array(0, 2), 1.0))
    yield Case("an ε as large as the variance", (_array(0, 2, 3, 7), 6.5))
    rng = np.random.default_rng(0)
    yield Case("sixteen values", (rng.normal(3, 2, size=16), 1e-5))
    yield Case("a batch that is narrow beside √ε", (rng.normal(0, 1e-3, size=6), 1e-5))


def _leakage(x: Array, eps: float) -> Array:
    squares = reference.jacobian(x, eps=eps) ** 2
    return np.asarray(1 - np.diagonal(squares) / squares.sum(axis=1))


def _slopes(x: Array, eps: float, *, mean: bool = True, var: bool = True, ddof: int = 0) -> Array:
    """The Jacobian, with a mistake."""
    m, centred = len(x), x - x.mean()
    x_hat = centred / np.sqrt(x.var(ddof=ddof) + eps)
    return np.asarray(np.eye(m) - mean / m - var * np.outer(x_hat, x_hat) / m)


def _others(slopes: Array, power: int = 2, axis: int = 1) -> Array:
    sizes = np.abs(slopes) ** power
    return np.asarray(1 - np.diagonal(sizes) / sizes.sum(axis=axis))


def _between_0_and_1(share: Any, *_given: Any) -> float:
    return float(max(-np.min(share), np.max(share) - 1, 0.0))


LEAKAGE = Exercise(
    "leakage",
    CHAPTER,
    "for each example, what the others have of its output's squared slopes",
    ("x", "eps"),
    oracle=_leakage,
    cases=_leakage_cases,
    properties=(Property("A share lies between 0 and 1", _between_0_and_1),),
    slips={
        "The mean's path is missing: every x_j moves μ by 1/m.": (
            lambda x, eps: _others(_slopes(x, eps, mean=False))
        ),
        "The variance's path is missing: x_j moves s, too.": (
            lambda x, eps: _others(_slopes(x, eps, var=False))
        ),
        "Slopes are squared before they are added, so that their signs do not matter.": (
            lambda x, eps: _others(_slopes(x, eps), power=1)
        ),
        "(1 + x̂²)/m is the share at ε = 0 alone.": (
            lambda x, eps: (1 + (x - x.mean()) ** 2 / (x.var() + eps)) / len(x)
        ),
        "This is the part that the example has itself.": (
            lambda x, eps: 1 - _others(_slopes(x, eps))
        ),
        "The batch's variance is the biased one: divide by m.": (
            lambda x, eps: _others(_slopes(x, eps, ddof=1))
        ),
        "ε stands under the root in x̂.": lambda x, _eps: _others(_slopes(x, 0.0)),
    },
)

# --- dropout-shift -------------------------------------------------------------------------------


def _dropout_cases() -> Iterator[Case]:
    one = _array([1])
    yield Case("one input, always 2: in evaluation it is constant", (_array([2], [2]), one, 0.5))
    yield Case("one input of mean 0", (_array([-1], [1]), one, 0.5))
    yield Case("one input of mean 2", (_array([1], [3]), one, 0.5))
    yield Case("a weight does not matter to one input", (_array([1], [3]), _array([-3]), 0.25))
    alike = _array([0, 0], [2, 2], [4, 4])
    yield Case("two inputs that are the same", (alike, _array([1, 1]), 0.8))
    rng = np.random.default_rng(0)
    u = np.maximum(rng.normal(size=(12, 5)), 0)
    yield Case("five inputs behind a ReLU, three units", (u, rng.normal(size=(3, 5)), 0.3))
    yield Case("nothing is dropped", (u, rng.normal(size=(2, 5)), 1.0))


def _dropout(u: Array, weight: Array, keep: float) -> Array:
    """By going through every mask."""
    masks = _array(*itertools.product((0, 1), repeat=u.shape[1]))
    chances = (keep**masks * (1 - keep) ** (1 - masks)).prod(axis=1)
    outputs = np.einsum("kj,ij,cj->kic", masks / keep, u, weight)
    mean = np.einsum("k,kic->c", chances, outputs) / len(u)
    dropped = np.einsum("k,kic->c", chances, (outputs - mean) ** 2) / len(u)
    return np.asarray((u @ weight.T).var(axis=0) / dropped)


def _ratio(
    added: Callable[[Array, Array, float], Array],
    calm: Callable[[Array, Array], Array] = lambda u, w: (u @ w.T).var(axis=0),
) -> Callable[[Array, Array, float], Array]:
    """The ratio with another sum that dropout adds, or another variance without it."""

    def ratio(u: Array, weight: Array, keep: float) -> Array:
        without = calm(u, weight)
        return without / (without + added(u, weight, keep))

    return ratio


def _right_sum(u: Array, w: Array, p: float) -> Array:
    return np.asarray((1 - p) / p * (u**2).mean(axis=0) @ (w**2).T)


DROPOUT_SHIFT = Exercise(
    "dropout-shift",
    CHAPTER,
    "the variance in evaluation over that in training, for units that dropout stands before",
    ("u", "weight", "keep"),
    oracle=_dropout,
    cases=_dropout_cases,
    slips={
        "The square of u counts, not its variance: the mean is dropped, too.": _ratio(
            lambda u, w, p: (1 - p) / p * u.var(axis=0) @ (w**2).T
        ),
        "What is kept is divided by p: the factor is (1 − p)/p.": _ratio(
            lambda u, w, p: p * (1 - p) * (u**2).mean(axis=0) @ (w**2).T
        ),
        "p is the share that is kept, not the one that is dropped.": _ratio(
            lambda u, w, p: _right_sum(u, w, 1 - p) if p < 1 else 0 * w[:, 0]
        ),
        "A weight's square multiplies what dropout adds.": _ratio(
            lambda u, w, p: (1 - p) / p * (u**2).mean(axis=0) @ np.abs(w).T
        ),
        "The inputs depend on each other: the variance without dropout is that of the sum, not "
        "the sum of variances.": _ratio(_right_sum, lambda u, w: u.var(axis=0) @ (w**2).T),
        "The inverse is asked for: evaluation over training.": (
            lambda u, w, p: 1 / _dropout(u, w, p)
        ),
        "Dropout adds noise to each input by itself; it does not multiply the whole sum by one "
        "number.": _ratio(lambda u, w, p: (1 - p) / p * ((u @ w.T) ** 2).mean(axis=0)),
    },
)

# --- adapt-statistics ----------------------------------------------------------------------------


def _adapt_cases() -> Iterator[Case]:
    zero, one = _array(0), _array(1)
    pair = _array([2], [6])
    yield Case("two examples that replace the statistics", (zero, one, pair, 0.0))
    yield Case("as many as the running statistics are worth", (zero, one, pair, 2.0))
    yield Case("one example: no variance of its own", (_array(1), _array(4), pair[:1], 3.0))
    rng = np.random.default_rng(0)
    x = rng.normal((3.0, -1.0), (1.0, 2.0), size=(9, 2))
    yield Case("nine examples of two features", (_array(0, 1), _array(1, 9), x, 16.0))


def _adapt(mean: Array, var: Array, x: Array, source_size: float) -> tuple[Array, Array]:
    layer = nn.BatchNorm1d(x.shape[1], affine=False).double()
    statistics = {"running_mean": torch.from_numpy(mean), "running_var": torch.from_numpy(var)}
    layer.load_state_dict(statistics, strict=False)
    with adapted_statistics(layer, torch.from_numpy(x), source_size=source_size) as model:
        buffers = dict(model.named_buffers())
        return tuple(buffers[name].clone().numpy() for name in statistics)  # type: ignore[return-value]


def _mixed(share: Callable[[float, float], float], ddof: int = 0) -> Callable[..., Any]:
    """The mixture with another weight of the new statistics, of their size n and of N."""

    def mixed(mean: Array, var: Array, x: Array, source_size: float) -> tuple[Array, Array]:
        new = share(len(x), source_size)
        own = x.var(axis=0, ddof=min(ddof, len(x) - 1))
        return (1 - new) * mean + new * x.mean(axis=0), (1 - new) * var + new * own

    return mixed


def _as_one_population(mean: Array, var: Array, x: Array, source_size: float) -> Any:
    n = len(x)
    share = n / (n + source_size)
    new_mean = (1 - share) * mean + share * x.mean(axis=0)
    apart = share * (1 - share) * (x.mean(axis=0) - mean) ** 2
    return new_mean, (1 - share) * var + share * x.var(axis=0) + apart


def _mixed_widths(mean: Array, var: Array, x: Array, source_size: float) -> Any:
    share = len(x) / (len(x) + source_size)
    width = (1 - share) * np.sqrt(var) + share * x.std(axis=0)
    return (1 - share) * mean + share * x.mean(axis=0), width**2


def _mean_alone(mean: Array, var: Array, x: Array, source_size: float) -> Any:
    return _mixed(lambda n, many: n / (n + many))(mean, var, x, source_size)[0], var


ADAPT_STATISTICS = Exercise(
    "adapt-statistics",
    CHAPTER,
    "running statistics mixed with those of the images at hand",
    ("mean", "var", "x", "source_size"),
    oracle=_adapt,
    cases=_adapt_cases,
    returns=("mean", "var"),
    slips={
        "The new statistics weigh n/(N + n), the old ones N/(N + n).": _mixed(
            lambda n, many: many / (n + many)
        ),
        "N counts examples: it is no weight between 0 and 1.": _mixed(
            lambda _n, many: 1 / (1 + many)
        ),
        "The variance of x is the biased one here, divided by n.": _mixed(
            lambda n, many: n / (n + many), ddof=1
        ),
        "Variances are mixed, not standard deviations.": _mixed_widths,
        "This is the variance of both populations together; the mixture leaves out what lies "
        "between their means.": _as_one_population,
        "The variance is mixed, too.": _mean_alone,
    },
)

# --- evaluation-gap ------------------------------------------------------------------------------


def _gap_cases() -> Iterator[Case]:
    unit = (_array(0), _array(1))
    yield Case("the mean is off by one standard deviation", (*unit, _array(1), _array(1), 0.0))
    yield Case("the variance is taken four times too large", (*unit, _array(0), _array(4), 0.0))
    yield Case("both are off", (_array(1), _array(9), _array(-1), _array(4), 0.0))
    yield Case("an ε as large as the variance", (*unit, _array(2), _array(3), 1.0))
    rng = np.random.default_rng(0)
    mean, fixed_mean = rng.normal(size=(2, 4))
    var, fixed_var = rng.uniform(0.1, 4, size=(2, 4))
    yield Case("four features", (mean, var, fixed_mean, fixed_var, 1e-5))
    yield Case("a constant feature", (_array(3), _array(0), _array(2), _array(1), 1e-5))


def _gap(mean: Array, var: Array, fixed_mean: Array, fixed_var: Array, eps: float) -> Array:
    """Of two values that have this mean and this variance."""
    values = mean + np.array([[-1.0], [1.0]]) * np.sqrt(var)
    ours = reference.inference(values, mean, var, eps=eps)
    theirs = reference.inference(values, fixed_mean, fixed_var, eps=eps)
    return np.asarray(((theirs - ours) ** 2).mean(axis=0))


def _parts(
    *, mean_by: str = "fixed", width: bool = True, scale: str = "data", eps_kept: bool = True
) -> Callable[..., Array]:
    """The sum of the two errors, with a mistake in one of them."""

    def gap(mean: Array, var: Array, fixed_mean: Array, fixed_var: Array, eps: float) -> Array:
        eps = eps if eps_kept else 0.0
        inv, fixed_inv = 1 / np.sqrt(var + eps), 1 / np.sqrt(fixed_var + eps)
        by = {"fixed": fixed_inv, "own": inv, "none": np.ones_like(inv)}[mean_by]
        stretch = {"data": var, "fixed": fixed_var, "none": np.ones_like(var)}[scale]
        shift = ((mean - fixed_mean) * by) ** 2
        return np.asarray(shift + width * stretch * (fixed_inv - inv) ** 2)

    return gap


EVALUATION_GAP = Exercise(
    "evaluation-gap",
    CHAPTER,
    "mean squared error of normalized values under other statistics",
    ("mean", "var", "fixed_mean", "fixed_var", "eps"),
    oracle=_gap,
    cases=_gap_cases,
    slips={
        "The shift is divided by the standard deviation that normalizes, the fixed one.": _parts(
            mean_by="own"
        ),
        "The shift is divided by the fixed standard deviation.": _parts(mean_by="none"),
        "The widths differ, too: their error is missing.": _parts(width=False),
        "The values that are stretched have the variance of the data.": _parts(scale="fixed"),
        "The difference of the inverse widths acts on values of variance σ².": _parts(scale="none"),
        "ε stands under both roots.": _parts(eps_kept=False),
        "The mean of the square is asked for, not its root.": (
            lambda *given: np.sqrt(_gap(*given))
        ),
    },
)

EXERCISES = (EVALUATION_GAP, LEAKAGE, DROPOUT_SHIFT, ADAPT_STATISTICS)
