"""The exercises of the chapter `bias-drift`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import closed_forms, reference

from .exercise import Case, Exercise, Property

CHAPTER = "bias-drift"
Array = NDArray[np.float64]


def _array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def _naive_cases() -> Iterator[Case]:
    yield Case("two values, targets of mean 2", (_array(0, 2), 0.0, _array(1, 3), 0.5))
    yield Case("a bias that has moved already", (_array(0, 2), 5.0, _array(1, 3), 0.5))
    yield Case("targets of mean 0: no step", (_array(1, 2, 6), 3.0, _array(-4, 1, 3), 0.1))
    u, t = np.random.default_rng(0).normal((4.0, -2.0), size=(9, 2)).T
    yield Case("nine values, targets of negative mean", (u, 0.25, t, 0.03))


def _naive(_u: Array, b: float, t: Array, learning_rate: float) -> float:
    return b + closed_forms.bias_drift(1, learning_rate, t.mean())


NAIVE_BIAS_STEP = Exercise(
    "naive-bias-step",
    CHAPTER,
    "the bias after one step of descent that takes the mean for a constant",
    ("u", "b", "t", "learning_rate"),
    oracle=_naive,
    cases=_naive_cases,
    slips={
        "This differentiates the mean, too; here descent takes it for a constant.": (
            lambda _u, b, _t, _rate: b
        ),
        "The output is centred before it is compared with t: y = x − mean of x.": (
            lambda u, b, t, rate: b - rate * (u + b - t).mean()
        ),
        "Descent goes against the gradient.": lambda _u, b, t, rate: b - rate * t.mean(),
        "The loss is an average over the m values: the gradient is, too.": (
            lambda _u, b, t, rate: b + rate * t.sum()
        ),
        "The factor ½ of the loss cancels the 2 of the square.": (
            lambda _u, b, t, rate: b + 2 * rate * t.mean()
        ),
        "The new bias is asked for, not the step.": lambda _u, _b, t, rate: rate * t.mean(),
        "The step is the learning rate times the gradient.": lambda _u, b, t, _rate: b + t.mean(),
        "The mean of x moves with b: it is that of u + b, not of u.": (
            lambda u, b, t, rate: b - rate * (u + b - u.mean() - t).mean()
        ),
    },
)


def _paths_cases() -> Iterator[Case]:
    yield Case("two values", (_array(1, 0), _array(1, 3), 1.0, 0.0))
    yield Case("a scale γ", (_array(1, 0), _array(1, 3), -3.0, 0.0))
    yield Case("an ε that counts", (_array(1, 2), _array(1, 3), 1.0, 3.0))
    g, x = np.random.default_rng(0).normal((0.5, 3.0), size=(7, 2)).T
    yield Case("seven values", (g, x, 2.0, 0.1))


def _moved(g: Array, x: Array, gamma: float, eps: float, by: Array) -> tuple[float, float, float]:
    """What Σ g·y changes by at x + `by`: of itself, of the mean, and of the variance alone."""
    (mean, var), column = reference.moments(x[:, None]), x[:, None]

    def loss(values: Array, centre: Array) -> float:
        y = reference.inference(values, centre, var, np.full(1, gamma), eps=eps)
        return float(g @ y[:, 0])

    direct = loss(column + by[:, None], mean) - loss(column, mean)
    through_mean = loss(column, mean + by.mean()) - loss(column, mean)
    # With fixed statistics y is a straight line in x and in the mean, so both are exact.
    whole = float(reference.backward(g[:, None], _batch(x, gamma, eps)).x[:, 0] @ by)
    return direct, through_mean, whole - direct - through_mean


def _batch(x: Array, gamma: float, eps: float) -> reference.Batch:
    return reference.forward(x[:, None], np.full(1, gamma), eps=eps)


def _paths(grad_y: Array, x: Array, gamma: float, eps: float) -> tuple[float, float, float]:
    direct, through_mean, _ = _moved(grad_y, x, gamma, eps, np.ones_like(x))
    return direct, through_mean, 0.0


def _with_paths(
    change: Callable[[float, float, Array, Array, float, float], tuple[float, float, float]],
) -> Callable[..., tuple[float, float, float]]:
    """A mistake, of Σ g, s, and all arguments."""

    def mistaken(g: Array, x: Array, gamma: float, eps: float) -> tuple[float, float, float]:
        s = float(np.sqrt(x.var() + eps))
        return change(float(g.sum()), s, g, x, gamma, eps)

    return mistaken


def _add_up(parts: Any, grad_y: Array, *_given: Any) -> float:
    scale = max(float(np.abs(np.asarray(parts, float)).max()), float(np.abs(grad_y).sum()))
    return abs(sum(map(float, parts))) / (scale or 1.0)


TRUE_BIAS_GRAD = Exercise(
    "true-bias-grad",
    CHAPTER,
    "what reaches the bias directly, through the mean, and through the variance",
    ("grad_y", "x", "gamma", "eps"),
    oracle=_paths,
    cases=_paths_cases,
    properties=(Property("The three parts add up to 0", _add_up),),
    returns=("direct", "through_mean", "through_var"),
    slips={
        "A gradient adds up over the values: Σ g, not its average.": _with_paths(
            lambda _G, s, g, _x, gamma, _eps: (gamma / s * g.mean(), -gamma / s * g.mean(), 0.0)
        ),
        "The mean moves by 1 when b does, and moves all m outputs: nothing is divided by m.": (
            _with_paths(
                lambda G, s, _g, x, gamma, _eps: (gamma / s * G, -gamma / s * G / len(x), 0.0)
            )
        ),
        "The mean is subtracted: what comes through it has the other sign.": _with_paths(
            lambda G, s, _g, _x, gamma, _eps: (gamma / s * G, gamma / s * G, 0.0)
        ),
        "y = γ(x − μ)/s + β: each path is multiplied by γ.": _with_paths(
            lambda G, s, _g, _x, _gamma, _eps: (G / s, -G / s, 0.0)
        ),
        "The outputs are divided by s, and so are their derivatives.": _with_paths(
            lambda G, _s, _g, _x, gamma, _eps: (gamma * G, -gamma * G, 0.0)
        ),
        "s = √(σ² + ε): the ε is missing.": _with_paths(
            lambda G, _s, _g, x, gamma, _eps: (gamma / x.std() * G, -gamma / x.std() * G, 0.0)
        ),
        "s is the root of σ² + ε.": _with_paths(
            lambda G, s, _g, _x, gamma, _eps: (gamma / s**2 * G, -gamma / s**2 * G, 0.0)
        ),
        "A bias moves all values alike, so that their variance stays: nothing comes through it.": (
            _with_paths(
                lambda G, s, g, x, gamma, _eps: (
                    gamma / s * G,
                    -gamma / s * G,
                    -gamma / (2 * s**3) * float(g @ (x - x.mean())),
                )
            )
        ),
        "σ² is the biased variance: divide by m, not by m − 1.": _with_paths(
            lambda G, _s, _g, x, gamma, eps: (
                gamma / np.sqrt(x.var(ddof=1) + eps) * G,
                -gamma / np.sqrt(x.var(ddof=1) + eps) * G,
                0.0,
            )
        ),
    },
)


def _stopped_cases() -> Iterator[Case]:
    g, x = _array(1, 0), _array(1, 3)
    yield Case("two values, and a bias", (g, x, _array(1, 1), 1.0, 0.0))
    yield Case(
        "three values, and a weight with x = wu at w = 1",
        (_array(1, 0, 0), *2 * [_array(0, 1, 5)], 1.0, 0.0),
    )
    yield Case("a scale γ, and an ε that counts", (g, x, _array(0, 2), -2.0, 3.0))
    g, x, v = np.random.default_rng(0).normal((0.5, 3.0, 1.0), size=(7, 3)).T
    yield Case("seven values, any rates", (g, x, v, 2.0, 0.1))


def _stopped(
    grad_y: Array, x: Array, rates: Array, gamma: float, eps: float
) -> tuple[float, float, float, float]:
    direct, through_mean, through_var = _moved(grad_y, x, gamma, eps, rates)
    largest = max(map(abs, (direct, through_mean, through_var)))

    def total(*parts: float) -> float:
        """Their sum, 0 where they cancel but for rounding."""
        return sum(parts) if abs(sum(parts)) > 1e-12 * largest else 0.0

    return (
        total(direct, through_mean, through_var),
        total(direct, through_var),
        total(direct, through_mean),
        direct,
    )


def _of_stopped(change: Callable[..., Any]) -> Callable[..., Any]:
    """A mistake made with the four right numbers."""
    return lambda *given: change(*_stopped(*given))


def _whole_and_stops(result: Any, *_given: Any) -> float:
    whole, no_mean, no_std, neither = map(float, result)
    scale = max(map(abs, (whole, no_mean, no_std, neither))) or 1.0
    return abs(no_mean + no_std - whole - neither) / scale


STOPPED_GRADIENTS = Exercise(
    "stopped-gradients",
    CHAPTER,
    "a parameter's gradient: whole, and with the mean, the width, or both taken for constants",
    ("grad_y", "x", "rates", "gamma", "eps"),
    oracle=_stopped,
    cases=_stopped_cases,
    properties=(
        Property(
            "What a stop takes away does not depend on the other: "
            "mean_stopped + std_stopped = whole + both_stopped",
            _whole_and_stops,
        ),
    ),
    returns=("whole", "mean_stopped", "std_stopped", "both_stopped"),
    slips={
        "The second is with the mean stopped, the third with the width stopped.": _of_stopped(
            lambda a, b, c, d: (a, c, b, d)
        ),
        "The whole gradient comes first, that with both stopped last.": _of_stopped(
            lambda a, b, c, d: (d, c, b, a)
        ),
        "This is what comes through the stopped path; what is left when it is stopped is asked "
        "for.": _of_stopped(lambda a, b, c, d: (a, a - b, a - c, a - d)),
        "y = γ(x − μ)/s + β: the derivatives are multiplied by γ.": (
            lambda g, x, v, _gamma, eps: _stopped(g, x, v, 1.0, eps)
        ),
        "s = √(σ² + ε): the ε is missing.": (
            lambda g, x, v, gamma, _eps: _stopped(g, x, v, gamma, 0.0)
        ),
        "∂x_i/∂θ is rates[i], and not 1 for all.": (
            lambda g, x, v, gamma, eps: _stopped(g, x, np.ones_like(v), gamma, eps)
        ),
        "A gradient adds up over the values; it is not their average.": (
            lambda g, x, v, gamma, eps: tuple(
                each / len(g) for each in _stopped(g, x, v, gamma, eps)
            )
        ),
    },
)


def _stale_cases() -> Iterator[Case]:
    yield Case("a new mean before each of 5 steps", (0.0, 2.0, 0.25, 5, 1))
    yield Case("three steps of a mean that serves ten", (1.0, 2.0, 0.5, 3, 10))
    yield Case("two means of two steps each", (0.0, 2.0, 0.5, 4, 2))
    yield Case("a third mean that serves one step only", (-3.0, 4.0, 0.5, 5, 2))
    yield Case("no step", (7.0, 1.0, 0.1, 0, 3))
    yield Case("a learning rate over 1", (0.0, -1.5, 1.5, 7, 3))


def _stale(b: float, target_mean: float, rate: float, steps: int, every: int) -> float:
    return b + closed_forms.bias_drift(steps, rate, target_mean, every)


def _blocks(blocks: Callable[[int, int], int]) -> Callable[..., float]:
    """As many whole blocks of steps as a mistake counts."""

    def stale(b: float, target_mean: float, rate: float, steps: int, every: int) -> float:
        return _stale(b, target_mean, rate, blocks(steps, every) * every, every)

    return stale


STALE_DRIFT = Exercise(
    "stale-drift",
    CHAPTER,
    "the bias after some steps, when one mean serves several of them",
    ("b", "target_mean", "learning_rate", "steps", "every"),
    oracle=_stale,
    cases=_stale_cases,
    slips={
        "Between two means b learns: a step takes η of what is left of the distance, not of all "
        "of it.": lambda b, t, rate, steps, _every: b + rate * steps * t,
        "The mean is computed anew before every `every` steps: from there the way begins again.": (
            lambda b, t, rate, steps, _every: b + t * (1 - (1 - rate) ** steps)
        ),
        "The steps after the last whole block count, too.": _blocks(lambda n, k: n // k),
        "The last block has only the steps that are left.": _blocks(lambda n, k: -(-n // k)),
        "The drift comes on top of the b that is given.": (
            lambda _b, t, rate, steps, every: _stale(0.0, t, rate, steps, every)
        ),
        "b after the steps is asked for, not how far it went.": (
            lambda b, t, rate, steps, every: _stale(b, t, rate, steps, every) - b
        ),
        "In a block (1 − η)^k of the distance is left; what is gone is asked for.": (
            lambda b, t, rate, steps, every: (
                b + t * (steps // every * (1 - rate) ** every + (1 - rate) ** (steps % every))
            )
        ),
        "Descent goes against the gradient: towards the targets' mean.": (
            lambda b, t, rate, steps, every: _stale(b, -t, rate, steps, every)
        ),
    },
)

EXERCISES = (NAIVE_BIAS_STEP, TRUE_BIAS_GRAD, STOPPED_GRADIENTS, STALE_DRIFT)
