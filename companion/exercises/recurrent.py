"""The exercises of the chapter `recurrent`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import closed_forms, reference

from .exercise import Case, Exercise, Property

CHAPTER = "recurrent"
Array = NDArray[np.float64]


def _tanh_cases() -> Iterator[Case]:
    yield Case("σ = 1", (1.0,))
    yield Case("σ = 0.1, where tanh is nearly straight", (0.1,))
    yield Case("σ = 4, where most values are saturated", (4.0,))


def _tanh(std: float) -> tuple[float, float]:
    return closed_forms.tanh_slope(std), closed_forms.tanh_slope(std, order=2)


TANH_GRADIENT = Exercise(
    "tanh-gradient",
    CHAPTER,
    "mean and root mean square of the slope of tanh at Gaussian values",
    ("std",),
    oracle=_tanh,
    cases=_tanh_cases,
    returns=("mean", "rms"),
    tolerance=1e-6,
    slips={
        "std is the standard deviation; the variance is its square.": (
            lambda std: _tanh(math.sqrt(std))
        ),
        "std is the standard deviation; it is not squared again.": lambda std: _tanh(std**2),
        "The second is the root of the mean square.": (
            lambda std: (_tanh(std)[0], _tanh(std)[1] ** 2)
        ),
        "The mean of the squares comes before the root: it is not the mean slope again.": (
            lambda std: 2 * (_tanh(std)[0],)
        ),
        "The values are spread around 0; this is the slope at one of them.": (
            lambda std: 2 * (1 / math.cosh(std) ** 2,)
        ),
        "The mean comes first, the root mean square second.": lambda std: _tanh(std)[::-1],
        "This is 1 minus the slope: tanh′ = 1 − tanh².": (
            lambda std: (1 - _tanh(std)[0], _tanh(std)[1])
        ),
        "The density of a Gaussian is divided by σ√(2π); here the weights add up to √(2π).": (
            lambda std: (
                _tanh(std)[0] * math.sqrt(2 * math.pi),
                _tanh(std)[1] * (2 * math.pi) ** 0.25,
            )
        ),
    },
)


def _step_cases() -> Iterator[Case]:
    column = np.array([[0.0], [2.0]])
    one = np.ones(1)
    eye = np.ones((1, 1))
    yield Case(
        "two examples, one unit", (column, column[::-1] * 3, eye, eye, 0 * one, one, 0 * one, 0.0)
    )
    yield Case("an input and a bias", (column, column, eye, eye, one, one, 2 * one, 0.0))
    yield Case("an ε that counts", (column, column, eye, eye, one, one, 2 * one, 3.0))
    random = np.random.default_rng(0)
    h, x = random.normal(size=(6, 3)), random.normal(1.0, size=(6, 2))
    w_h, w_x = random.normal(size=(3, 3)), random.normal(size=(3, 2))
    b, gamma_h, gamma_x = random.normal(size=(3, 3))
    yield Case("six examples, three units", (h, x, w_h, w_x, b, gamma_h, gamma_x, 1e-3))


def _normalized(values: Array, gamma: Array, eps: float) -> Array:
    return reference.forward(values, gamma, eps=eps).y


def _rnn_step(*given: Any) -> Array:
    h, x, w_h, w_x, b, gamma_h, gamma_x, eps = given
    past, present = h @ w_h.T, x @ w_x.T
    return np.tanh(_normalized(past, gamma_h, eps) + _normalized(present, gamma_x, eps) + b)


def _of_examples(*given: Any) -> Array:
    """The mistake of normalizing each example over its units."""
    h, x, w_h, w_x, b, gamma_h, gamma_x, eps = given
    past, present = (
        reference.forward((values @ w.T).T, eps=eps).y.T for values, w in ((h, w_h), (x, w_x))
    )
    return np.tanh(gamma_h * past + gamma_x * present + b)


def _unbiased(*given: Any) -> Array:
    h, *others, eps = given
    factor = math.sqrt((len(h) - 1) / len(h))
    _, _, _, _, gamma_h, gamma_x = others
    return _rnn_step(
        h, *others[:4], gamma_h * factor, gamma_x * factor, eps * (len(h) - 1) / len(h)
    )


BN_RNN_STEP = Exercise(
    "bn-rnn-step",
    CHAPTER,
    "the next state of a tanh network with both terms normalized",
    ("h", "x", "w_h", "w_x", "b", "gamma_h", "gamma_x", "eps"),
    oracle=_rnn_step,
    cases=_step_cases,
    properties=(
        Property(
            "Every state lies between −1 and 1",
            lambda state, *_: max(0.0, float(np.abs(np.asarray(state)).max()) - 1),
        ),
    ),
    slips={
        "The two terms are normalized apart, not their sum.": (
            lambda h, x, w_h, w_x, b, gamma_h, _gamma_x, eps: np.tanh(
                _normalized(h @ w_h.T + x @ w_x.T, gamma_h, eps) + b
            )
        ),
        "Statistics are per unit, over the examples of the batch.": _of_examples,
        "The tanh is missing.": lambda *given: np.arctanh(_rnn_step(*given)),
        "b comes after the normalizations, which would take it off.": (
            lambda h, x, w_h, w_x, _b, gamma_h, gamma_x, eps: _rnn_step(
                h, x, w_h, w_x, 0 * gamma_h, gamma_h, gamma_x, eps
            )
        ),
        "gamma_h belongs to the state's term, gamma_x to the input's.": (
            lambda h, x, w_h, w_x, b, gamma_h, gamma_x, eps: _rnn_step(
                h, x, w_h, w_x, b, gamma_x, gamma_h, eps
            )
        ),
        "The state's weights are used with a transpose: W_h h of a row h is h @ w_h.T.": (
            lambda h, x, w_h, *others: _rnn_step(h, x, w_h.T, *others)
        ),
        "s is the root of σ² + ε: the ε is missing.": (lambda *given: _rnn_step(*given[:-1], 0.0)),
        "σ² is the biased variance: divide by m, not by m − 1.": _unbiased,
    },
)


def _statistics_cases() -> Iterator[Case]:
    one = np.array([[[1.0], [5.0]], [[3.0], [0.0]]])
    yield Case("two sequences of two steps, both valid", (one, [2, 2]))
    three = np.concatenate([one, [[[5.0], [9.0]]]])
    yield Case("the second of three has one step", (three, [2, 1, 2]))
    values = np.random.default_rng(0).normal(2.0, size=(5, 4, 3))
    for row, length in enumerate((4, 2, 3, 4, 1)):
        values[row, length:] = 0
    yield Case("five sequences, three units", (values, [4, 2, 3, 4, 1]))
    spoiled = values.copy()
    spoiled[1, 2:] = np.nan
    yield Case(
        "something else than zeros behind an end",
        (spoiled, [4, 2, 3, 4, 1]),
        advice="NaN times 0 is NaN: take the valid values alone, or replace the others.",
    )


def _statistics(values: Array, lengths: list[int]) -> tuple[Array, Array]:
    found = [
        reference.moments(
            values[[row for row, length in enumerate(lengths) if length > step], step]
        )
        for step in range(values.shape[1])
    ]
    return np.stack([mean for mean, _ in found]), np.stack([var for _, var in found])


def _all_rows(values: Array, lengths: list[int]) -> tuple[Array, Array]:
    return _statistics(values, [values.shape[1]] * len(lengths))


def _counts(values: Array, lengths: list[int]) -> Array:
    steps = np.arange(values.shape[1])
    counts: Array = (steps[:, None] < np.array(lengths)).sum(1, keepdims=True).astype(float)
    return counts


def _of_statistics(change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda values, lengths: change(*_statistics(values, lengths), _counts(values, lengths))


STEP_STATISTICS = Exercise(
    "step-statistics",
    CHAPTER,
    "mean and variance of each step over the sequences that have it",
    ("values", "lengths"),
    oracle=_statistics,
    cases=_statistics_cases,
    returns=("mean", "var"),
    slips={
        "What stands behind a sequence's end does not count: leave it out.": _all_rows,
        "σ² is the biased variance: divide by the number of valid values, not by one less.": (
            _of_statistics(
                lambda mean, var, count: (mean, var * count / np.maximum(count - 1, 1e-300))
            )
        ),
        "A step has its own statistics: this is one set for all.": (
            _of_statistics(
                lambda mean, var, count: (
                    np.broadcast_to((mean * count).sum(0) / count.sum(), mean.shape),
                    np.broadcast_to(
                        ((var + mean**2) * count).sum(0) / count.sum()
                        - ((mean * count).sum(0) / count.sum()) ** 2,
                        var.shape,
                    ),
                )
            )
        ),
        "The mean comes first, the variance second.": _of_statistics(
            lambda mean, var, _count: (var, mean)
        ),
        "The variance is asked for, not the standard deviation.": _of_statistics(
            lambda mean, var, _count: (mean, np.sqrt(var))
        ),
        "The mean is over the valid values: divide by their number at this step, not by N.": (
            lambda values, lengths: (
                _statistics(values, lengths)[0] * _counts(values, lengths) / len(values),
                _statistics(values, lengths)[1],
            )
        ),
    },
)


def _gamma_cases() -> Iterator[Case]:
    yield Case("half of the gradient in one step", (1.0, 0.5, 1))
    yield Case("half in fifty steps, at γ_h = 0.1", (0.1, 0.5, 50))
    yield Case("nearly all in ten steps", (0.2, 0.99, 10))


def _input_gamma(gamma_h: float, left: float, steps: int) -> float:
    low, high = 0.0, 1e3
    for _ in range(80):
        ratio = (low + high) / 2
        factor = closed_forms.recurrent_factor(0.0, share=1 / (1 + ratio**2))
        low, high = (ratio, high) if factor**steps > left else (low, ratio)
    return gamma_h * ratio


INPUT_GAMMA = Exercise(
    "input-gamma",
    CHAPTER,
    "the γ of the inputs at which a share of the gradient is left after some steps",
    ("gamma_h", "left", "steps"),
    oracle=_input_gamma,
    cases=_gamma_cases,
    slips={
        "A step leaves √ρ of the gradient, not ρ.": (
            lambda gamma_h, left, steps: gamma_h * math.sqrt(left ** (-1 / steps) - 1)
        ),
        "This is γ_x/γ_h; γ_x is asked for.": (
            lambda _gamma_h, left, steps: math.sqrt(left ** (-2 / steps) - 1)
        ),
        "ρ is a share of the variance, γ_h² of γ_h² + γ_x²: a root is missing.": (
            lambda gamma_h, left, steps: gamma_h * (left ** (-2 / steps) - 1)
        ),
        "This is ρ; γ_x follows from it.": lambda _gamma_h, left, steps: left ** (2 / steps),
        "`left` is what all steps leave together; each leaves its root of order `steps`.": (
            lambda gamma_h, left, _steps: gamma_h * math.sqrt(left**-2.0 - 1)
        ),
        "This is the width of the sum, √(γ_h² + γ_x²).": (
            lambda gamma_h, left, steps: gamma_h * left ** (-1 / steps)
        ),
    },
)

EXERCISES = (BN_RNN_STEP, TANH_GRADIENT, INPUT_GAMMA, STEP_STATISTICS)
