"""The exercises of the chapter `inference`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from companion.inference import fold_into_previous
from companion.statistics import debias, population_moments, update_precise

from .exercise import Case, Exercise, Property

CHAPTER = "inference"
Array = NDArray[np.float64]


def _array(*values: Any) -> Array:
    return np.array(values, dtype=np.float64)


# --- population-stats ----------------------------------------------------------------------------


def _column(*values: float) -> Array:
    return _array(*values)[:, None]


def _population_cases() -> Iterator[Case]:
    yield Case("two batches of two, alike", ([_column(0, 2), _column(0, 2)],))
    yield Case("two batches of two, apart", ([_column(0, 2), _column(10, 12)],))
    yield Case("batches of three and one", ([_column(0, 1, 5), _column(10)],))
    rng = np.random.default_rng(0)
    parts = np.split(rng.normal((1.0, -3.0), (1.0, 4.0), size=(20, 2)), [8, 16])
    yield Case("two features, and a last batch that is cut short", (parts,))
    yield Case("a batch of one each", ([_array([value, -value]) for value in (1.0, 3.0, 8.0)],))
    far = [rng.normal(1e8, 1, size=(16, 2)) for _ in range(3)]
    yield Case(
        "values around 10⁸",
        (far,),
        tolerance=1e-6,
        advice="Squares of large values keep few digits of a small variance. "
        "Square distances from the mean.",
    )


def _population(batches: list[Array]) -> tuple[Array, Array]:
    moments = population_moments([torch.from_numpy(batch) for batch in batches])
    return moments.mean.numpy(), moments.unbiased_var.numpy()


def _with_var(var: Callable[[list[Array]], Array]) -> Callable[[list[Array]], Any]:
    return lambda batches: (np.concatenate(batches).mean(axis=0), var(batches))


def _of_squares(batches: list[Array]) -> Any:
    x = np.concatenate(batches)
    mean = x.mean(axis=0)
    return mean, ((x**2).mean(axis=0) - mean**2) * len(x) / (len(x) - 1)


def _counts(batches: list[Array]) -> Array:
    return np.array([len(batch) for batch in batches], dtype=np.float64)


def _unweighted_between(batches: list[Array]) -> Array:
    means = np.array([batch.mean(axis=0) for batch in batches])
    within = sum(len(batch) * batch.var(axis=0) for batch in batches) / _counts(batches).sum()
    n = _counts(batches).sum()
    return np.asarray((within + means.var(axis=0)) * n / (n - 1))


POPULATION_STATS = Exercise(
    "population-stats",
    CHAPTER,
    "mean and unbiased variance of all values of a list of batches",
    ("batches",),
    oracle=_population,
    cases=_population_cases,
    returns=("mean", "var"),
    slips={
        "Batches of another size weigh less or more: a mean of means weighs all alike.": (
            lambda batches: (
                np.mean([batch.mean(axis=0) for batch in batches], axis=0),
                _population(batches)[1],
            )
        ),
        "The variance between the batches' means is missing: m/(m − 1)·E[σ²] takes it for granted "
        "that the values of a batch are independent.": _with_var(
            lambda batches: np.mean(
                [len(b) / max(len(b) - 1, 1) * b.var(axis=0) for b in batches], axis=0
            )
        ),
        "The mean of the batches' variances leaves out the variance between their means.": (
            _with_var(
                lambda batches: np.average(
                    [b.var(axis=0) for b in batches], axis=0, weights=_counts(batches)
                )
            )
        ),
        "This is the biased variance; the unbiased one divides by n − 1.": _with_var(
            lambda batches: np.concatenate(batches).var(axis=0)
        ),
        "In the variance between the means, too, each batch counts with its number of values.": (
            _with_var(_unweighted_between)
        ),
        "E[x²] − E[x]² loses its digits where the mean is large.": _of_squares,
    },
)

# --- ema-debias ----------------------------------------------------------------------------------


def _debias_cases() -> Iterator[Case]:
    yield Case("a mean after one batch", (_array(0.5), 0.0, 0.1, 1))
    yield Case("a variance after one batch: it began at 1", (_array(1.5), 1.0, 0.25, 1))
    yield Case("a mean after three batches", (_array(2.0, -1.0), 0.0, 0.5, 3))
    yield Case("a variance after ten batches", (_array(1.2, 0.7, 3.0), 1.0, 0.1, 10))
    yield Case("α = 1: nothing is left of the start", (_array(4.0), 1.0, 1.0, 2))


def _debias(running: Array, start: float, momentum: float, steps: int) -> Array:
    return debias(torch.from_numpy(running), start, momentum, steps).numpy()


EMA_DEBIAS = Exercise(
    "ema-debias",
    CHAPTER,
    "a running average without the weight of its start",
    ("running", "start", "momentum", "steps"),
    oracle=_debias,
    cases=_debias_cases,
    slips={
        "The start is not always 0: take its part off before you divide.": (
            lambda running, _start, alpha, t: running / (1 - (1 - alpha) ** t)
        ),
        "The batches' weights sum to 1 − (1 − α)^t; what is left when the start is off is divided "
        "by that.": lambda running, start, alpha, t: running - (1 - alpha) ** t * start,
        "(1 − α)^t is the weight of the start; the batches have the rest.": (
            lambda running, start, alpha, t: (
                (running - (1 - alpha) ** t * start) / ((1 - alpha) ** t or 1.0)
            )
        ),
        "momentum is the weight α of the new value, so the old one keeps 1 − α.": (
            lambda running, start, alpha, t: (running - alpha**t * start) / ((1 - alpha**t) or 1.0)
        ),
        "The start has lost a factor of 1 − α with every batch, not with the first alone.": (
            lambda running, start, alpha, _t: (running - (1 - alpha) * start) / alpha
        ),
        "Of the start, (1 − α)^t is in the average, not all of it.": (
            lambda running, start, alpha, t: (running - start) / (1 - (1 - alpha) ** t)
        ),
    },
)

# --- fold-bn -------------------------------------------------------------------------------------


def _fold_cases() -> Iterator[Case]:
    one, zero = _array(1), _array(0)
    yield Case("one weight, variance 4", (_array([2]), zero, zero, _array(4), one, zero, 0.0))
    yield Case("a mean and a β", (_array([2]), zero, _array(6), _array(4), one, _array(5), 0.0))
    yield Case(
        "a bias and a γ", (_array([2]), _array(3), one, _array(4), _array(-3), _array(5), 0.0)
    )
    yield Case("an ε as large as the variance", (_array([2]), one, zero, one, one, zero, 1.0))
    rng = np.random.default_rng(0)
    yield Case("three outputs of three inputs", (rng.normal(size=(3, 3)), *_norm(rng, 3), 1e-5))
    yield Case("two outputs of four inputs", (rng.normal(size=(2, 4)), *_norm(rng, 2), 1e-5))
    yield Case(
        "a convolution of 3 × 3",
        (rng.normal(size=(4, 2, 3, 3)), *_norm(rng, 4), 1e-5),
        advice="The channels of the output are the first axis of the weight, however many follow.",
    )


def _norm(rng: np.random.Generator, channels: int) -> tuple[Array, ...]:
    """Bias, mean, variance, γ and β."""
    bias, mean, gamma, beta = rng.normal(size=(4, channels))
    return bias, mean, rng.uniform(0.5, 3, size=channels), gamma, beta


def _fold(
    weight: Array, bias: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array]:
    outputs, inputs = weight.shape[:2]
    layer: nn.Module
    bn: nn.Module
    if weight.ndim == 2:
        layer, bn = nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps)
    else:
        layer = nn.Conv2d(inputs, outputs, (weight.shape[2], weight.shape[3]))
        bn = nn.BatchNorm2d(outputs, eps)
    layer.double().load_state_dict(_tensors(weight=weight, bias=bias))
    named = _tensors(weight=gamma, bias=beta, running_mean=mean, running_var=var)
    bn.double().eval().load_state_dict(named, strict=False)
    folded: Any = fold_into_previous(layer, bn)
    return folded.weight.detach().numpy(), folded.bias.detach().numpy()


def _tensors(**arrays: Array) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _scaled(
    scale: Callable[..., Array], shift: Callable[..., Array], axis: int = 0
) -> Callable[..., Any]:
    """Folding by a slope a and a bias, both of (a, bias, mean, var, gamma, beta, eps)."""

    def folded(weight: Array, *norm: Any) -> tuple[Array, Array]:
        _, _, var, gamma, _, eps = norm
        a = gamma / np.sqrt(var + eps)
        shape = [1] * weight.ndim
        shape[axis] = -1
        return weight * scale(a, *norm).reshape(shape), shift(a, *norm)

    return folded


def _slope(a: Array, *_norm: Any) -> Array:
    return a


def _shift(
    a: Array, bias: Array, mean: Array, _var: Any, _gamma: Any, beta: Array, _eps: float
) -> Array:
    return a * (bias - mean) + beta


def _with_slope(slope: Callable[[Array, Array, float], Array]) -> Callable[..., Any]:
    """Folding by another slope, of the variance, γ and ε."""

    def folded(weight: Array, bias: Array, mean: Array, var: Array, *rest: Any) -> Any:
        gamma, beta, eps = rest
        a = slope(var, gamma, eps)
        return weight * a.reshape(-1, *[1] * (weight.ndim - 1)), a * (bias - mean) + beta

    return folded


def _same_line(folded: Any, weight: Array, *norm: Any) -> float:
    expected = _scaled(_slope, _shift)(weight, *norm)
    x = np.random.default_rng(1).normal(size=weight[0].size)
    came = np.asarray(folded[0]).reshape(len(weight), -1) @ x + np.asarray(folded[1])
    right = expected[0].reshape(len(weight), -1) @ x + expected[1]
    return float(np.abs(came - right).max() / (np.abs(right).max() or 1.0))


FOLD_BN = Exercise(
    "fold-bn",
    CHAPTER,
    "weight and bias of one layer that does the work of a layer and its normalization",
    ("weight", "bias", "mean", "var", "gamma", "beta", "eps"),
    oracle=_fold,
    cases=_fold_cases,
    properties=(
        Property("The folded layer gives what the layer and the normalization give", _same_line),
    ),
    returns=("weight", "bias"),
    slips={
        "The slope is γ/√(σ² + ε): the ε is missing.": _with_slope(
            lambda var, gamma, _eps: gamma / np.sqrt(var)
        ),
        "The slope is γ/√(σ² + ε): the root is missing.": _with_slope(
            lambda var, gamma, eps: gamma / (var + eps)
        ),
        "ε stands inside the root: √(σ² + ε), not σ + ε.": _with_slope(
            lambda var, gamma, eps: gamma / (np.sqrt(var) + eps)
        ),
        "The slope has the factor γ.": _with_slope(lambda var, _gamma, eps: 1 / np.sqrt(var + eps)),
        "The bias passes through the normalization, too: it is multiplied by the slope.": _scaled(
            _slope, lambda a, bias, mean, _v, _g, beta, _e: bias - a * mean + beta
        ),
        "The layer has a bias of its own; it is not lost.": _scaled(
            _slope, lambda a, _b, mean, _v, _g, beta, _e: beta - a * mean
        ),
        "The mean is multiplied by the slope before it comes off.": _scaled(
            _slope, lambda a, bias, mean, _v, _g, beta, _e: a * bias - mean + beta
        ),
        "The mean is subtracted.": _scaled(
            _slope, lambda a, bias, mean, _v, _g, beta, _e: a * (bias + mean) + beta
        ),
        "β is added at the end; the slope does not touch it.": _scaled(
            _slope, lambda a, bias, mean, _v, _g, beta, _e: a * (bias - mean + beta)
        ),
        "Each output has a slope of its own: it multiplies a row of the weight, axis 0.": (
            lambda weight, *norm: _scaled(
                _slope, _shift, 1 if weight.shape[0] == weight.shape[1] else 0
            )(weight, *norm)
        ),
    },
)

# --- precise-bn ----------------------------------------------------------------------------------


def _precise_cases() -> Iterator[Case]:
    one = _array([1])
    yield Case("one batch of three values", ([_column(0, 2, 7)], one, one, 1.0))
    yield Case("two batches, apart", ([_column(0, 2), _column(10, 14)], one, _array([2]), 1.0))
    rng = np.random.default_rng(0)
    w_1, w_2 = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    u = rng.normal(size=(11, 3))
    yield Case("a last batch that is cut short", (np.split(u, [4, 8]), w_1, w_2, 0.5))
    yield Case("a batch of one row", (np.split(u, [4, 10]), w_1, w_2, 1e-5))


def _precise(batches: list[Array], weight_1: Array, weight_2: Array, eps: float) -> Any:
    layers: list[Any] = []
    for weight in (weight_1, weight_2):
        linear = nn.Linear(weight.shape[1], len(weight), bias=False).double()
        linear.load_state_dict(_tensors(weight=weight))
        layers += [linear, nn.BatchNorm1d(len(weight), eps).double(), nn.ReLU()]
    loader = [torch.from_numpy(batch) for batch in batches]
    update_precise(nn.Sequential(*layers), loader, passes=2, progress=False)
    return tuple(
        buffer.numpy() for bn in layers[1::3] for buffer in (bn.running_mean, bn.running_var)
    )


def _two_layers(
    normalize: Callable[[list[Array], float], list[Array]] | None = None,
    relu: Callable[[Array], Array] = lambda x: np.maximum(x, 0),
    var: Callable[[list[Array]], Array] = lambda parts: np.concatenate(parts).var(axis=0, ddof=1),
) -> Callable[..., Any]:
    """The two layers' statistics with another normalization, nonlinearity or variance."""

    def exact(parts: list[Array], eps: float) -> list[Array]:
        mean = np.concatenate(parts).mean(axis=0)
        return [(part - mean) / np.sqrt(var(parts) + eps) for part in parts]

    def statistics(batches: list[Array], w_1: Array, w_2: Array, eps: float) -> Any:
        first = [batch @ w_1.T for batch in batches]
        second = [relu(part) @ w_2.T for part in (normalize or exact)(first, eps)]
        means = (np.concatenate(parts).mean(axis=0) for parts in (first, second))
        pairs = zip(means, (first, second), strict=True)
        return tuple(value for mean, parts in pairs for value in (mean, var(parts)))

    return statistics


def _each_by_its_own(parts: list[Array], eps: float) -> list[Array]:
    return [(part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + eps) for part in parts]


def _without_eps(parts: list[Array], _eps: float) -> list[Array]:
    whole = np.concatenate(parts)
    return [(part - whole.mean(axis=0)) / whole.std(axis=0, ddof=1) for part in parts]


PRECISE_BN = Exercise(
    "precise-bn",
    CHAPTER,
    "the statistics of two normalized layers, the second as inference will meet it",
    ("batches", "weight_1", "weight_2", "eps"),
    oracle=_precise,
    cases=_precise_cases,
    returns=("mean_1", "var_1", "mean_2", "var_2"),
    slips={
        "At inference the first layer uses the statistics of the population, not each batch's own; "
        "the second layer's are taken behind that.": _two_layers(_each_by_its_own),
        "Between the two layers stands a ReLU.": _two_layers(relu=lambda x: x),
        "The variances are unbiased: of n rows, divide by n − 1.": _two_layers(
            var=lambda parts: np.concatenate(parts).var(axis=0)
        ),
        "The mean of the batches' variances leaves out the variance between their means.": (
            _two_layers(
                var=lambda parts: np.average(
                    [part.var(axis=0) for part in parts], axis=0, weights=_counts(parts)
                )
            )
        ),
        "√(σ² + ε): the ε of the first layer is missing.": _two_layers(_without_eps),
        "The first layer is normalized before the ReLU.": _two_layers(lambda parts, _eps: parts),
        "All batches count, not the last one alone.": (
            lambda batches, *rest: _two_layers()(batches[-1:], *rest)
        ),
    },
)

EXERCISES = (POPULATION_STATS, EMA_DEBIAS, FOLD_BN, PRECISE_BN)
