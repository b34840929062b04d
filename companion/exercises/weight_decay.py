"""The exercises of the chapter `weight-decay`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import closed_forms

from .exercise import Case, Exercise, Property

CHAPTER = "weight-decay"
Array = NDArray[np.float64]


def _array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def _norm_cases() -> Iterator[Case]:
    yield Case("ηλ = ½, G² = ¾: r* is 1", (1.0, 0.5, math.sqrt(0.75)))
    yield Case("a gradient four times as long", (1.0, 0.5, 2 * math.sqrt(3)))
    yield Case("a learning rate and a decay of the digits", (0.4, 0.02, 0.11))
    yield Case("a tenth of that learning rate", (0.04, 0.02, 0.11))


def _norm_mistake(fourth_power: Callable[[float, float, float], float]) -> Callable[..., float]:
    """A mistake in r*⁴."""
    return lambda rate, decay, gradient: fourth_power(rate, decay, gradient) ** 0.25


EQUILIBRIUM_NORM = Exercise(
    "equilibrium-norm",
    CHAPTER,
    "the length at which decay takes from the weights what their steps add",
    ("learning_rate", "weight_decay", "gradient"),
    oracle=closed_forms.equilibrium_norm,
    cases=_norm_cases,
    slips={
        "That is r*⁴: take the fourth root.": lambda n, k, g: n * g**2 / (k * (2 - n * k)),
        "In the balance stands the square of the gradient's length: G², not G.": _norm_mistake(
            lambda n, k, g: n * g / (k * (2 - n * k))
        ),
        "(1 − ηλ)² takes 2ηλ − (ηλ)² of r², not 2ηλ: the small term is not left out here.": (
            _norm_mistake(lambda n, k, g: n * g**2 / (2 * k))
        ),
        "r² is multiplied by (1 − ηλ)², not by 1 − ηλ.": _norm_mistake(
            lambda n, k, g: n * g**2 / k
        ),
        "At weights of length r the gradient is G/r long: r² gains η²G²/r², and not η²G². So the "
        "balance gives r*⁴.": (lambda n, k, g: math.sqrt(n * g**2 / (k * (2 - n * k)))),
    },
)


def _angle_cases() -> Iterator[Case]:
    yield Case("no decay, a step as long as the weights", (_array(1, 0), _array(0, 2), 0.5, 0.0))
    yield Case("half of the weights decays", (_array(2, 0), _array(0, -1), 1.0, 0.5))
    w, v = np.random.default_rng(0).normal(size=(2, 7))
    across = v - (v @ w) / (w @ w) * w
    yield Case("seven weights", (w, across, 0.3, 0.1))
    yield Case(
        "a step 10⁻⁹ long",
        (w, 1e-8 * across, 0.1, 1e-6),
        advice="Near 1 a cosine has lost the digits of its angle: 1 − cos θ is θ²/2, here 10⁻¹⁸. "
        "Take the arc tangent of what the step adds across over what is left along w.",
    )


def _angle(w: Array, gradient: Array, learning_rate: float, weight_decay: float) -> float:
    """Twice the arc sine of half the distance between the two directions."""
    new = w - learning_rate * (gradient + weight_decay * w)
    apart = w / np.linalg.norm(w) - new / np.linalg.norm(new)
    across = learning_rate * np.linalg.norm(gradient)
    along = (1 - learning_rate * weight_decay) * np.linalg.norm(w)
    half = np.linalg.norm(apart) / 2
    # Of small angles the distance has few digits left, and the sine is the angle.
    return float(2 * math.asin(half) if half > 1e-5 else across / along)


def _of_lengths(change: Callable[[float, float, float, float], float]) -> Callable[..., float]:
    """A mistake, of the lengths of weights and gradient, η and λ."""

    def mistaken(w: Array, gradient: Array, rate: float, decay: float) -> float:
        return change(float(np.linalg.norm(w)), float(np.linalg.norm(gradient)), rate, decay)

    return mistaken


ANGULAR_UPDATE = Exercise(
    "angular-update",
    CHAPTER,
    "the angle between scale-invariant weights before and after a step, in radians",
    ("w", "gradient", "learning_rate", "weight_decay"),
    oracle=_angle,
    cases=_angle_cases,
    slips={
        "The decay shortens what lies along w, by the factor 1 − ηλ.": _of_lengths(
            lambda r, g, n, _k: math.atan2(n * g, r)
        ),
        "This is the tangent of the angle; the angle is asked for.": _of_lengths(
            lambda r, g, n, k: n * g / ((1 - n * k) * r)
        ),
        "w after the step is the hypotenuse: the leg across over that along is the tangent, not "
        "the sine.": _of_lengths(lambda r, g, n, k: math.asin(min(1.0, n * g / ((1 - n * k) * r)))),
        "This is the angle of the equilibrium. Here the length of w and the gradient are given.": (
            _of_lengths(lambda _r, _g, n, k: math.acos(1 - n * k))
        ),
        "In radians, not in degrees.": (lambda w, g, n, k: math.degrees(_angle(w, g, n, k))),
        "The cosine of the angle is not the angle.": lambda w, g, n, k: math.cos(
            _angle(w, g, n, k)
        ),
        "The leg across is η‖∇L‖ long: the learning rate is missing.": _of_lengths(
            lambda r, g, n, k: math.atan2(g, (1 - n * k) * r)
        ),
    },
)


def _schedule_cases() -> Iterator[Case]:
    yield Case("one step", (_array(0.5), 1.0))
    yield Case("three steps, each leaves half", (_array(0.5, 0.5, 0.5), 1.0))
    yield Case("no decay: the rates as they are", (_array(0.3, 0.1), 0.0))
    yield Case("a rate that drops", (_array(0.5, 0.5, 0.25, 0.25), 1.0))
    yield Case("a rate that rises from 0", (_array(0.0, 0.1, 0.2, 0.3, 0.4), 0.5))
    yield Case("a thousand steps", (np.full(1000, 0.1), 0.05))


def _schedule(rates: Array, weight_decay: float) -> Array:
    """With 50 digits: w_t = A_t·w̃_t, where A_t is what decay has left before step t."""
    with localcontext(prec=50):
        left, grown = Decimal(1), []
        for rate in map(Decimal, rates.tolist()):
            after = left * (1 - rate * Decimal(weight_decay))
            grown.append(float(rate / (left * after)))
            left = after
    return np.array(grown)


def _kept(rates: Array, decay: float) -> Array:
    """A_0, …, A_T."""
    return np.concatenate([[1.0], np.cumprod(1 - rates * decay)])


def _ratios(result: Any, rates: Array, weight_decay: float) -> float:
    """Off from η̃_t·A_t·A_{t+1} = η_t."""
    kept = _kept(rates, weight_decay)
    back = np.asarray(result, float) * kept[:-1] * kept[1:]
    return float(np.max(np.abs(back - rates)) / np.max(np.abs(rates)))


EXP_LR_SCHEDULE = Exercise(
    "exp-lr-schedule",
    CHAPTER,
    "the learning rates without decay that make the same network of scale-invariant weights",
    ("rates", "weight_decay"),
    oracle=_schedule,
    cases=_schedule_cases,
    properties=(
        Property("Times A_t and A_{t+1}, what decay has left, it is the rate again", _ratios),
    ),
    slips={
        "The step itself decays the weights, too: divide by A_t and A_{t+1}, not twice by A_t.": (
            lambda rates, decay: rates / _kept(rates, decay)[:-1] ** 2
        ),
        "Before the step only the decay of earlier steps has acted: divide by A_t and by A_{t+1}, "
        "not by A_{t+1} twice.": lambda rates, decay: rates / _kept(rates, decay)[1:] ** 2,
        "The gradient at w̃ = w/A is A times that at w: the rate is divided twice.": (
            lambda rates, decay: rates / _kept(rates, decay)[1:]
        ),
        "Without decay the rate has to grow: divide by what is left.": (
            lambda rates, decay: rates * _kept(rates, decay)[:-1] * _kept(rates, decay)[1:]
        ),
        "The rates may differ: what is left is the product of all 1 − η_kλ so far, not a power of "
        "the last.": lambda rates, decay: (
            rates * (1 - rates * decay) ** (-2 * np.arange(len(rates)) - 1)
        ),
        "The rates may differ: what is left is the product of all 1 − η_kλ so far, not a power of "
        "the first.": (
            lambda rates, decay: rates * (1 - rates[0] * decay) ** (-2 * np.arange(len(rates)) - 1)
        ),
        "The first step has t = 0, and decays the weights by A_1: the exponent is −2t − 1.": (
            lambda rates, decay: rates * (1 - rates * decay) ** (-2.0 * np.arange(len(rates)) + 1)
        ),
        "This decays by λ a step; it is by ηλ.": (
            lambda rates, decay: rates * (1 - decay) ** (-2.0 * np.arange(len(rates)) - 1)
        ),
    },
)


def _path_cases() -> Iterator[Case]:
    yield Case("one step of a long gradient", (_array(1.0), 3.0, 0.0, 12.0))
    yield Case("two steps that only decay", (_array(0.5, 0.5), 4.0, 0.5, 0.0))
    yield Case("at the equilibrium", (_array(1.0, 1.0), 1.0, 0.5, math.sqrt(0.75)))
    yield Case("far below it", (np.full(4, 0.4), 0.01, 0.02, 0.11))
    yield Case("a rate that drops", (np.repeat([0.4, 0.04], 300), 1.0, 0.02, 0.11))


def _path(rates: Array, norm: float, weight_decay: float, gradient: float) -> Array:
    """Weights in the plane, and a gradient orthogonal to them."""
    w, lengths = complex(norm), [norm]
    for rate in rates:
        w = w - rate * (1j * w * gradient / abs(w) ** 2 + weight_decay * w)
        lengths.append(abs(w))
    return np.array(lengths)


def _path_mistake(step: Callable[[float, float, float, float], float]) -> Callable[..., Array]:
    """A mistake in r after a step, of r, η, λ and G."""

    def mistaken(rates: Array, norm: float, decay: float, gradient: float) -> Array:
        lengths = [norm]
        for rate in rates:
            lengths.append(step(lengths[-1], float(rate), decay, gradient))
        return np.array(lengths)

    return mistaken


NORM_PATH = Exercise(
    "norm-path",
    CHAPTER,
    "the length of scale-invariant weights before each step and after the last",
    ("rates", "norm", "weight_decay", "gradient"),
    oracle=_path,
    cases=_path_cases,
    slips={
        "The gradient is G long at weights of length 1; at length r it is G/r.": _path_mistake(
            lambda r, n, k, g: math.hypot((1 - n * k) * r, n * g)
        ),
        "The step is orthogonal to w: squares add up, lengths do not.": _path_mistake(
            lambda r, n, k, g: (1 - n * k) * r + n * g / r
        ),
        "Decay takes ηλw, not λw.": _path_mistake(
            lambda r, n, k, g: math.hypot((1 - k) * r, n * g / r)
        ),
        "That is the square of the length.": _path_mistake(
            lambda r, n, k, g: ((1 - n * k) * r) ** 2 + (n * g / r) ** 2
        ),
        "The length before the first step belongs to the path.": (
            lambda rates, norm, k, g: _path(rates, norm, k, g)[1:]
        ),
        "The length after the last step belongs to the path.": (
            lambda rates, norm, k, g: _path(rates, norm, k, g)[:-1]
        ),
        "r² is multiplied by (1 − ηλ)².": _path_mistake(
            lambda r, n, k, g: math.sqrt((1 - n * k) * r**2 + (n * g / r) ** 2)
        ),
    },
)

EXERCISES = (NORM_PATH, EQUILIBRIUM_NORM, ANGULAR_UPDATE, EXP_LR_SCHEDULE)
