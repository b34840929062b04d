"""The exercises of the chapter `mini-batch-algorithm`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from companion import reference
from companion.statistics import RunningMoments, merge

from .exercise import Case, Exercise, of_no_eps
from .properties import MEAN_IS_BETA, VARIANCE

CHAPTER = "mini-batch-algorithm"
IMAGES = (
    "A channel of images is axis 1: μ and σ² go over axes 0, 2 and 3, and γ and β fit x "
    "in the shape (1, C, 1, 1)."
)


def _forward_cases() -> Iterator[Case]:
    one, zero = np.ones(1), np.zeros(1)
    yield Case("two values of one feature", (np.array([[1.0], [3.0]]), one, zero, 0.0))
    yield Case("ε as large as the variance", (np.array([[1.0], [3.0]]), one, zero, 1.0))
    yield Case("γ and β", (np.array([[0.0], [0.0], [6.0]]), 3 * one, one, 1.0))
    rng = np.random.default_rng(0)
    gamma, beta = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, 2.0])
    yield Case("three features", (rng.normal(size=(4, 3)) * gamma + beta, gamma, beta, 1e-5))
    yield Case("as many examples as features", (rng.normal(size=(3, 3)), gamma, beta, 1e-5))
    yield Case("a constant feature", (np.full((4, 1), 7.0), 2 * one, one, 1e-5))
    yield Case("images", (rng.normal(size=(2, 3, 2, 4)), gamma, beta, 1e-5), advice=IMAGES)
    yield Case("square images", (rng.normal(size=(3, 3, 3, 3)), gamma, beta, 1e-5))
    far = rng.normal(size=(50, 1)) + 1e8
    yield Case("values around 10⁸", (far, one, zero, 1e-5), tolerance=1e-6)


def _with_variance(var: Any, root: Any) -> Any:
    """Algorithm 1 with another variance, or another denominator."""

    def forward(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        axes = reference.channel_axes(x.ndim)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        x_hat = (x - x.mean(axis=axes, keepdims=True)) / root(var(x, axes), eps)
        return np.reshape(gamma, shape) * x_hat + np.reshape(beta, shape)

    return forward


def _over(axes: Callable[[int], Any]) -> Any:
    """Algorithm 1 with mean and variance over other axes, which depend on how many there are."""

    def forward(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean = x.mean(axis=axes(x.ndim), keepdims=True)
        x_hat = (x - mean) / np.sqrt(x.var(axis=axes(x.ndim), keepdims=True) + eps)
        return np.reshape(gamma, shape) * x_hat + np.reshape(beta, shape)

    return forward


def _biased(x: Any, axes: Any) -> Any:
    return x.var(axis=axes, keepdims=True)


def _inside(var: Any, eps: float) -> Any:
    return np.sqrt(var + eps)


BN_FORWARD = Exercise(
    "bn-forward",
    CHAPTER,
    "Algorithm 1, for (m, C) and (N, C, H, W)",
    ("x", "gamma", "beta", "eps"),
    oracle=lambda x, gamma, beta, eps: reference.forward(x, gamma, beta, eps).y,
    cases=_forward_cases,
    properties=(MEAN_IS_BETA, VARIANCE),
    slips={
        "The variance divides by m, not by m − 1: it is the biased one.": _with_variance(
            lambda x, axes: x.var(axis=axes, ddof=1, keepdims=True), _inside
        ),
        "ε stands inside the root: √(σ² + ε), not σ + ε.": _with_variance(
            _biased, lambda var, eps: np.sqrt(var) + eps
        ),
        "ε is missing.": _with_variance(_biased, lambda var, _eps: np.sqrt(var)),
        "ε is the argument eps, and not always 1e-5.": _with_variance(
            _biased, lambda var, _eps: np.sqrt(var + 1e-5)
        ),
        "x is divided by the root of the variance, the standard deviation.": _with_variance(
            _biased, lambda var, eps: var + eps
        ),
        "E[x²] − E[x]² loses its digits where the mean is large; take the mean off first.": (
            _with_variance(
                lambda x, axes: (
                    (x**2).mean(axis=axes, keepdims=True) - x.mean(axis=axes, keepdims=True) ** 2
                ),
                _inside,
            )
        ),
        "β is added: y = γx̂ + β.": lambda x, gamma, beta, eps: (
            reference.forward(x, gamma, -beta, eps).y
        ),
        "γ multiplies the normalized value, and then β is added.": lambda x, gamma, beta, eps: (
            reference.forward(x, gamma, gamma * beta, eps).y
        ),
        "This is x̂; y = γx̂ + β is asked for.": lambda x, _gamma, _beta, eps: (
            reference.forward(x, eps=eps).y
        ),
        "The mean is taken off once; σ² is the mean of (x − μ)², where x still has its mean.": (
            _with_variance(
                lambda x, axes: _biased(x, axes) + x.mean(axis=axes, keepdims=True) ** 2,
                _inside,
            )
        ),
        "The statistics go over the examples: axis 0, and H and W of images; not over features.": (
            _over(lambda _ndim: 1)
        ),
        "Of images, the statistics go over H and W, too: axes 0, 2 and 3, not axis 0 alone.": (
            _over(lambda _ndim: 0)
        ),
        "Of images, the statistics go over the examples, too: axis 0 with axes 2 and 3.": (
            _over(lambda ndim: 0 if ndim == 2 else (2, 3))
        ),
        "Each channel has a mean and a variance of its own; these are of all values together.": (
            _over(lambda _ndim: None)
        ),
    },
)


Triple = tuple[int, float, float]
NOTHING = (0, 0.0, 0.0)


def _triple(moments: RunningMoments) -> Triple:
    return moments.count, moments.mean.item(), moments.m2.item()


def _welford_cases() -> Iterator[Case]:
    yield Case("three values", ([0.0, 0.0, 6.0],))
    yield Case("one value", ([7.0],))
    yield Case("40 values", (np.random.default_rng(0).normal(size=40).tolist(),))
    far = np.random.default_rng(3).normal(1e8, 1, size=200).tolist()
    yield Case(
        "200 values around 10⁸",
        (far,),
        tolerance=1e-6,
        advice="Squares of large values keep few digits of a small variance. "
        "Square only distances from the mean so far.",
    )
    yield Case("no value", ([],), advice="Of no value, count, mean and m2 are 0.")


def _running(
    term: Callable[[Any, Any], Any],
    last: Callable[[Any, int], Any] = lambda m2, _count: m2,
) -> Callable[[list[float]], Any]:
    """Welford's update with another addend to m2, or another last step."""

    def welford(values: list[float]) -> Any:
        count, mean, m2 = 0, 0.0, 0.0
        for count, value in enumerate(values, start=1):
            before = value - mean
            mean += before / count
            m2 += term(before, value - mean)
        return count, mean, last(m2, count)

    return welford


def _of_squares(values: list[float]) -> Triple:
    *_, (count, total, squares) = itertools.accumulate(
        values, lambda a, x: (a[0] + 1, a[1] + x, a[2] + x * x), initial=NOTHING
    )
    return count, total / count, squares - count * (total / count) ** 2


WELFORD = Exercise(
    "welford",
    CHAPTER,
    "Welford's update: count, mean and m2 in one pass over a sequence",
    ("values",),
    oracle=lambda values: _triple(
        RunningMoments.of(torch.tensor(values, dtype=torch.float64).reshape(-1, 1))
    ),
    cases=_welford_cases,
    returns=("count", "mean", "m2"),
    slips={
        "m2 is the sum of squared deviations; divided by the count it would be the variance.": (
            _running(lambda a, b: a * b, lambda m2, count: m2 / count)
        ),
        "m2 is the sum itself; divided by count − 1 it would be the unbiased variance.": _running(
            lambda a, b: a * b, lambda m2, count: m2 / (count - 1)
        ),
        "m2 is the sum of squared deviations; the standard deviation is the root of their mean.": (
            _running(lambda a, b: a * b, lambda m2, count: (m2 / max(count, 1)) ** 0.5)
        ),
        "m2 grows by the product of two distances: from the mean before and from the mean after; "
        "here both are from the mean before.": _running(lambda a, _: a * a),
        "m2 grows by the product of two distances: from the mean before and from the mean after; "
        "here both are from the mean after.": _running(lambda _, b: b * b),
        "Sums of squares lose their digits where the mean is large; square distances.": _of_squares,
    },
)


def _merge_cases() -> Iterator[Case]:
    yield Case("two parts of one value", ((1, 1.0, 0.0), (1, 3.0, 0.0)))
    yield Case("parts of 1 and 3 values", ((1, 0.0, 0.0), (3, 4.0, 6.0)))
    yield Case("parts of 20 and 12 values", ((20, 1.5, 31.0), (12, -2.25, 7.5)))
    yield Case("an empty part at the end", ((2, 5.0, 8.0), NOTHING))
    yield Case("an empty part at the start", (NOTHING, (2, 5.0, 8.0)))
    yield Case(
        "values around 10⁹",
        ((4, 1e9, 5.0), (12, 1e9 + 1, 15.0)),
        advice="The distance of the two means is small; their squares are large. "
        "Square the distance.",
    )
    yield Case(
        "two empty parts",
        (NOTHING, NOTHING),
        advice="Of no value at all, count, mean and m2 are 0; n in the formula is then 0.",
    )


def _merged(
    mean: Callable[..., float] = lambda a, b: (a[0] * a[1] + b[0] * b[1]) / (a[0] + b[0]),
    between: Callable[..., float] = lambda a, b: (b[1] - a[1]) ** 2 * a[0] * b[0] / (a[0] + b[0]),
) -> Callable[[Triple, Triple], Triple]:
    """The merge with another mean, or with another addend to m2."""
    return lambda a, b: (a[0] + b[0], mean(a, b), a[2] + b[2] + between(a, b))


def _m2s_as_variances(a: Triple, b: Triple) -> Triple:
    count, mean, m2 = _merged()(a, b)
    return count, mean, m2 - a[2] - b[2] + (a[0] * a[2] + b[0] * b[2]) / count


def _variance(a: Triple, b: Triple) -> Triple:
    count, mean, m2 = _merged()(a, b)
    return count, mean, m2 / count


def _back_to_squares(a: Triple, b: Triple) -> Triple:
    count = a[0] + b[0]
    total = a[0] * a[1] + b[0] * b[1]
    squares = sum(m2 + n * mean**2 for n, mean, m2 in (a, b))
    return count, total / count, squares - total**2 / count


CHAN_MERGE = Exercise(
    "chan-merge",
    CHAPTER,
    "Chan's merge: count, mean and m2 of two parts together",
    ("a", "b"),
    oracle=lambda *parts: _triple(
        merge(
            *(
                RunningMoments(n, *torch.tensor([[mean], [m2]], dtype=torch.float64))
                for n, mean, m2 in parts
            )
        )
    ),
    cases=_merge_cases,
    returns=("count", "mean", "m2"),
    slips={
        "The parts' means differ, and that is a part of the variance: m2 has a third term.": (
            _merged(between=lambda *_: 0.0)
        ),
        "The larger part has the larger say in the mean: weigh each mean by its count.": _merged(
            mean=lambda a, b: (a[1] + b[1]) / 2
        ),
        "In the third term of m2, the distance of the means is squared.": _merged(
            between=lambda a, b: (b[1] - a[1]) * a[0] * b[0] / (a[0] + b[0])
        ),
        "In the third term of m2, the product of the counts is divided by their sum, once.": (
            _merged(between=lambda a, b: (b[1] - a[1]) ** 2 * a[0] * b[0] / (a[0] + b[0]) ** 2)
        ),
        "In the third term of m2, δ² has the factor n_a·n_b/n.": _merged(
            between=lambda a, b: (b[1] - a[1]) ** 2
        ),
        "m2 is a sum: those of the parts are added, without weights.": _m2s_as_variances,
        "m2 is the sum of squared deviations; divided by the count it would be the variance.": (
            _variance
        ),
        "δ·n_b/n leads from the mean of a to the common mean; here the counts are exchanged.": (
            _merged(mean=lambda a, b: a[1] + (b[1] - a[1]) * a[0] / (a[0] + b[0]))
        ),
        "Going back to sums of squares loses their digits where the means are large.": (
            _back_to_squares
        ),
    },
)


def _extreme(m: int) -> Any:
    alone = np.eye(m)[:, :1]
    return reference.forward(alone, eps=0.0).x_hat[:, 0]


def _extreme_with_eps(to_var: float, to_std: float) -> Callable[[int], Any]:
    """The normalized first unit vector, whose variance is (m − 1)/m²."""
    return lambda m: (np.eye(m)[0] - 1 / m) / (np.sqrt((m - 1) / m**2 + to_var) + to_std)


EXTREME_BATCH = Exercise(
    "extreme-batch",
    CHAPTER,
    "a batch that meets the bound √(m − 1)",
    ("m",),
    oracle=_extreme,
    cases=lambda: [
        Case(f"{m} values", (m,), advice="The first value is √(m − 1).")
        for m in (2, 3, 5, 17, 1000)
    ],
    slips={
        "The variance is the biased one, which divides by m.": lambda m: (
            _extreme(m) * np.sqrt((m - 1) / m)
        ),
        "The mean is 0: the other values lie a little below it.": lambda m: (
            np.sqrt(m) * np.eye(m)[0]
        ),
        "The others lie −a/(m − 1) from the mean, if a is the first.": lambda m: np.where(
            np.arange(m) == 0, np.sqrt(m - 1), -1.0
        ),
        "The variance is 1, not the largest value.": lambda m: _extreme(m) / np.sqrt(m - 1),
        "The largest value is the first, and the only one above the mean.": lambda m: -_extreme(m),
        "The largest value stands first, not last.": lambda m: _extreme(m)[::-1],
        **of_no_eps(_extreme_with_eps),
    },
)

EXERCISES = (BN_FORWARD, WELFORD, CHAN_MERGE, EXTREME_BATCH)
