"""The exercises of the chapter `convolution`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import reference

from .exercise import Case, Exercise, Property
from .properties import MEAN_IS_BETA, VARIANCE

CHAPTER = "convolution"
Array = NDArray[np.float64]


def _column(values: Array) -> Array:
    return np.reshape(values, (-1, 1, 1))


def _bn2d_cases() -> Iterator[Case]:
    one, zero = np.ones(1), np.zeros(1)
    row = np.array([0.0, 0.0, 6.0])
    yield Case(
        "two images of one channel and three positions",
        (np.stack([row, row]).reshape(2, 1, 1, 3), zero, one, one, zero, 1.0, 0.0),
    )
    yield Case(
        "a momentum of 1/4, a start, and an ε that counts",
        (np.stack([row, row]).reshape(2, 1, 3, 1), 4 * one, 5 * one, 3 * one, one, 0.25, 1.0),
    )
    yield Case("one image", (row.reshape(1, 1, 1, 3), zero, one, one, zero, 1.0, 0.0))
    rng = np.random.default_rng(0)
    gamma, beta = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, 2.0])
    means, variances = np.array([1.0, -2.0, 0.0]), np.array([1.0, 0.5, 3.0])
    rest = (means, variances, gamma, beta, 0.1, 1e-3)
    yield Case("three channels of 4×5 positions", (rng.normal(size=(2, 3, 4, 5)), *rest))
    yield Case("as many images, channels, rows and columns", (rng.normal(size=(3, 3, 3, 3)), *rest))


def _bn2d(
    x: Array, mean: Array, var: Array, gamma: Array, beta: Array, momentum: float, eps: float
) -> tuple[Array, Array, Array]:
    table = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    # Batches of one table each: what Algorithm 2 estimates from it.
    batch_mean, unbiased = reference.population_statistics(table[None])
    y = reference.forward(x, gamma, beta, eps).y
    return y, mean + momentum * (batch_mean - mean), var + momentum * (unbiased - var)


Bn2d = Callable[..., tuple[Array, Array, Array]]


def _running(change: Callable[[Array, Array, float], tuple[Array, Array, float]]) -> Bn2d:
    """A mistake in what the running averages take in, or with what weight."""

    def mistaken(
        x: Array, mean: Array, var: Array, gamma: Array, beta: Array, momentum: float, eps: float
    ) -> tuple[Array, Array, Array]:
        new_mean, new_var, weight = change(x, gamma, momentum)
        y = reference.forward(x, gamma, beta, eps).y
        return y, mean + weight * (new_mean - mean), var + weight * (new_var - var)

    return mistaken


def _moments(x: Array) -> tuple[Array, Array]:
    return x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))


def _corrected(count: Callable[[Array], int]) -> Bn2d:
    """A mistake in the number of values that makes the variance unbiased."""

    def change(x: Array, _gamma: Array, momentum: float) -> tuple[Array, Array, float]:
        (mean, var), m = _moments(x), count(x)
        return mean, var * m / max(m - 1, 1e-3), momentum

    return _running(change)


def _normalized_over(*axes: int) -> Bn2d:
    """A mistake in the axes of the statistics that normalize."""

    def mistaken(x: Array, *rest: Any) -> tuple[Array, Array, Array]:
        _, mean, var = _bn2d(x, *rest)
        gamma, beta, _, eps = rest[2:]
        own_mean, own_var = (each(x, axis=axes, keepdims=True) for each in (np.mean, np.var))
        x_hat = (x - own_mean) / np.sqrt(own_var + eps)
        return _column(gamma) * x_hat + _column(beta), mean, var

    return mistaken


def _by_running(x: Array, *rest: Any) -> tuple[Array, Array, Array]:
    mean, var, gamma, beta, _, eps = rest
    _, new_mean, new_var = _bn2d(x, *rest)
    return reference.inference(x, mean, var, gamma, beta, eps), new_mean, new_var


def _first_of_bn2d(check: Property) -> Property:
    """A property of Algorithm 1's output, of the first result."""
    return Property(
        check.says,
        lambda results, x, _mean, _var, gamma, beta, _momentum, eps: check.error(
            results[0], x, gamma, beta, eps
        ),
        check.at_most,
    )


BN2D = Exercise(
    "bn2d",
    CHAPTER,
    "batch normalization of (N, C, H, W) in training mode, with its running averages",
    ("x", "running_mean", "running_var", "gamma", "beta", "momentum", "eps"),
    oracle=_bn2d,
    cases=_bn2d_cases,
    properties=(_first_of_bn2d(MEAN_IS_BETA), _first_of_bn2d(VARIANCE)),
    returns=("y", "running_mean", "running_var"),
    slips={
        "y is normalized by the biased variance; the running variance takes the unbiased one.": (
            _running(lambda x, _gamma, momentum: (*_moments(x), momentum))
        ),
        "m counts the positions, too: the unbiased variance has NHW − 1, not N − 1.": _corrected(
            lambda x: len(x)
        ),
        "m counts the images, too: the unbiased variance has NHW − 1, not HW − 1.": _corrected(
            lambda x: x.shape[2] * x.shape[3]
        ),
        "m counts the values of one channel: NHW, without C.": _corrected(lambda x: x.size),
        "momentum is the weight of the new batch, not of the old average.": _running(
            lambda x, _gamma, momentum: (
                _moments(x)[0],
                _moments(x)[1] * (x.size / x.shape[1]) / (x.size / x.shape[1] - 1),
                1 - momentum,
            )
        ),
        "This is a mean for each pixel; a channel has one, over axes 0, 2 and 3.": (
            _normalized_over(0)
        ),
        "This is a mean for each map of each image; the images share one, over axes 0, 2 and 3.": (
            _normalized_over(2, 3)
        ),
        "This is a mean for each image; a channel has one, over axes 0, 2 and 3.": (
            _normalized_over(1, 2, 3)
        ),
        "In training mode the batch's own statistics normalize, not the running ones.": _by_running,
    },
)


def _effective_cases() -> Iterator[Case]:
    yield Case("one map of two positions, correlated by 1/2", (1, 1, 2, 0.0, 0.5))
    yield Case("no correlation: every value counts", (3, 2, 4, 0.0, 0.0))
    yield Case("all positions alike: every image counts once", (3, 2, 4, 1.0, 1.0))
    yield Case("three positions in a column", (1, 3, 1, 0.5, 0.9))
    yield Case("other correlations along height and width", (2, 3, 5, 0.9, 0.25))
    yield Case("32 maps of 28×28", (32, 28, 28, 0.9, 0.8))


def _pairs(length: int, rho: float) -> float:
    """Σ_ij ρ^|i-j|, over the matrix of all pairs."""
    places = np.arange(length)
    return float((rho ** np.abs(places[:, None] - places)).sum())


def _effective(n: int, h: int, w: int, along_height: float, along_width: float) -> float:
    return n * h**2 * w**2 / (_pairs(h, along_height) * _pairs(w, along_width))


def _with_factor(factor: Callable[[int, float], float]) -> Callable[..., float]:
    """A mistake in f_n(ρ)."""
    return lambda n, h, w, along_height, along_width: (
        n * h * w / (factor(h, along_height) * factor(w, along_width))
    )


def _lags(length: int, rho: float) -> tuple[Array, Array]:
    lags = np.arange(1, length)
    return lags / length, np.asarray(rho**lags, np.float64)


EFFECTIVE_BATCH = Exercise(
    "effective-batch",
    CHAPTER,
    "how many independent values a batch of AR(1) maps is worth, for its mean",
    ("N", "H", "W", "along_height", "along_width"),
    oracle=_effective,
    cases=_effective_cases,
    slips={
        "At distance k there are n − k pairs of positions, fewer pairs the farther apart: "
        "the weight 1 − k/n is missing.": _with_factor(
            lambda n, rho: 1 + 2 * _lags(n, rho)[1].sum()
        ),
        "In the double sum each unordered pair counts twice: 1 + 2Σ.": _with_factor(
            lambda n, rho: 1 + ((1 - _lags(n, rho)[0]) * _lags(n, rho)[1]).sum()
        ),
        "n(1 − ρ)/(1 + ρ) is what n positions are worth in the limit; that is for long axes.": (
            _with_factor(
                lambda n, rho: n if rho == 1 or n * (1 - rho) < 1 + rho else (1 + rho) / (1 - rho)
            )
        ),
        "m_eff is NHW divided by the sums, not times them.": lambda n, h, w, a, b: (
            n * _pairs(h, a) * _pairs(w, b)
        ),
        "The images are independent, and count N times.": lambda _n, *rest: _effective(1, *rest),
        "The first correlation is that along the height, the second that along the width.": (
            lambda n, h, w, a, b: _effective(n, h, w, b, a)
        ),
        "Both axes count: the sums along height and width are multiplied.": (
            lambda n, h, w, a, b: n * h * w / (_pairs(h, a) / h + _pairs(w, b) / w)
        ),
        "A correlation at distance k is ρ to the power k, not ρ for all pairs.": _with_factor(
            lambda n, rho: 1 + (n - 1) * rho
        ),
    },
)


def _worth_cases() -> Iterator[Case]:
    yield Case("two maps of two positions", (np.array([0.0, 2.0, 4.0, 6.0]).reshape(2, 1, 1, 2),))
    yield Case("constant maps: one value each", (np.array([1.0, 1, 5, 5]).reshape(2, 1, 2, 1),))
    yield Case(
        "maps of equal means: infinitely many", (np.array([1.0, -1, 2, -2]).reshape(2, 1, 1, 2),)
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3, 2, 4)) + np.array([0.0, 10.0, -3.0]).reshape(3, 1, 1)
    yield Case("three channels", (x,))
    yield Case("as many images, channels, rows and columns", (rng.normal(size=(4, 4, 4, 4)),))


def _split(x: Array) -> tuple[Array, Array]:
    """Var[a] and E[v] of every channel, map by map."""
    maps = np.moveaxis(x, 1, 0).reshape(x.shape[1], x.shape[0], -1)
    parts = [[reference.moments(each[:, None]) for each in channel] for channel in maps]
    means, variances = np.array(parts)[..., 0].transpose(2, 0, 1)
    return means.var(axis=1), variances.mean(axis=1)


def _worth(x: Array) -> Array:
    between, within = _split(x)
    return _ratio(within + between, between)


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


MAP_WORTH = Exercise(
    "map-worth",
    CHAPTER,
    "how many independent values a map of each channel is worth, for its mean",
    ("x",),
    oracle=_worth,
    cases=_worth_cases,
    slips={
        "σ² is the variance of all values of a channel, and this the variance within the maps "
        "alone.": lambda x: _ratio(_split(x)[1], _split(x)[0]),
        "The worth of one map is asked for. The worth of the whole batch is N times that.": (
            lambda x: len(x) * _worth(x)
        ),
        "The maps' means vary over the N maps; these are means over the images.": (
            lambda x: _ratio(x.var(axis=(0, 2, 3)), x.mean(axis=0).var(axis=(1, 2)))
        ),
        "The variances are biased: divided by N, not by N − 1.": lambda x: _ratio(
            x.var(axis=(0, 2, 3)), x.mean(axis=(2, 3)).var(axis=0, ddof=1)
        ),
        "Each channel has its own; this is one number of all channels.": lambda x: _ratio(
            x.var(), x.mean(axis=(2, 3)).var()
        ),
        "σ² is divided by Var[a], and not the other way round.": lambda x: 1 / _worth(x),
        "A variance by a variance, not a standard deviation by another.": lambda x: np.sqrt(
            _worth(x)
        ),
    },
)


def _border_cases() -> Iterator[Case]:
    one = np.ones(1)
    yield Case("σ² = 4, ε = 0", (3 * one, 4 * one, one, one, 0.0))
    yield Case("β = 0: the mean itself", (3 * one, 4 * one, 2 * one, 0 * one, 0.0))
    yield Case("a scale γ", (one, 4 * one, -2 * one, 3 * one, 0.0))
    yield Case("an ε that counts", (0 * one, 3 * one, one, one, 1.0))
    yield Case("γ = 0: there is none", (one, one, 0 * one, one, 0.0))
    mean, var, gamma, beta = np.random.default_rng(0).normal(size=(4, 5))
    yield Case("five channels", (mean, var**2, gamma, beta, 1e-3))


def _border(mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Where the line of fixed statistics, known at 0 and 1, crosses 0."""
    parts = (mean, var, gamma, beta, eps)
    at_0, at_1 = (reference.inference(np.full((1, len(mean)), x), *parts)[0] for x in (0.0, 1.0))
    slope = np.where(gamma == 0, np.nan, at_1 - at_0)
    return -at_0 / slope


def _normalized_to_0(
    result: Any, mean: Array, var: Array, gamma: Array, beta: Array, eps: float
) -> float:
    if np.any(gamma == 0):
        return 0.0
    y = reference.inference(np.reshape(result, (1, -1)), mean, var, gamma, beta, eps)
    return float(np.abs(y).max() / (np.abs(beta).max() + np.abs(gamma).max()))


def _with_root(
    change: Callable[[Array, Array, Array, Array], Array],
) -> Callable[..., Array]:
    """A mistake, of μ, s, γ (NaN where it is 0) and β."""
    return lambda mean, var, gamma, beta, eps: change(
        mean, np.sqrt(var + eps), np.where(gamma == 0, np.nan, gamma), beta
    )


BORDER_VALUE = Exercise(
    "border-value",
    CHAPTER,
    "what a folded convolution must pad its input with, in place of 0",
    ("mean", "var", "gamma", "beta", "eps"),
    oracle=_border,
    cases=_border_cases,
    properties=(Property("Normalizing the border's value gives 0", _normalized_to_0),),
    slips={
        "The mean becomes β, not 0; β has to be made up for.": _with_root(
            lambda mean, _s, gamma, _beta: mean + 0 * gamma
        ),
        "The sign of β's term: γ(x₀ − μ)/s has to be −β.": _with_root(
            lambda mean, s, gamma, beta: mean + beta * s / gamma
        ),
        "β is divided by the slope γ/s: s multiplies, and γ divides.": _with_root(
            lambda mean, s, gamma, beta: mean - beta * gamma / s
        ),
        "γ is missing: the slope of the line is γ/s.": _with_root(
            lambda mean, s, gamma, beta: mean - beta * s + 0 * gamma
        ),
        "s is missing: the slope of the line is γ/s.": _with_root(
            lambda mean, _s, gamma, beta: mean - beta / gamma
        ),
        "This is what 0 becomes; what becomes 0 is asked for.": _with_root(
            lambda mean, s, gamma, beta: beta - gamma * mean / s
        ),
        "ε is missing: s = √(σ² + ε).": lambda mean, var, gamma, beta, _eps: _border(
            mean, var, gamma, beta, 0.0
        ),
        "s is the root of σ² + ε.": _with_root(
            lambda mean, s, gamma, beta: mean - beta * s**2 / gamma
        ),
    },
)

EXERCISES = (BN2D, EFFECTIVE_BATCH, MAP_WORTH, BORDER_VALUE)
