"""The exercises of the chapter `covariate-shift-debate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import reference

from .exercise import Case, Exercise, Property

CHAPTER = "covariate-shift-debate"
Array = NDArray[np.float64]


def _array(*values: Any) -> Array:
    return np.array(values, dtype=np.float64)


def _moved_cases() -> Iterator[Case]:
    two = _array([0], [2])
    yield Case("two values that move together", (two, two + 3))
    yield Case("two values that change places", (two, two[::-1].copy()))
    yield Case("two values that spread", (two, _array([-1], [3])))
    yield Case(
        "a unit that moves and one that stays", (_array([0, 0], [2, 8]), _array([1, 0], [3, 8]))
    )
    before = np.random.default_rng(0).normal(1.0, 2.0, (7, 3))
    after = before[::-1] * (0.5, 1.0, -2.0) + (0.0, 0.25, 1.0)
    yield Case("seven values of three units", (before, after))


def _moved(before: Array, after: Array) -> tuple[float, float]:
    """δ from the oracle's moments; ω as the area between two distribution functions."""
    (mean, var), (moved, _) = reference.moments(before), reference.moments(after)
    std = np.sqrt(var).ravel()
    areas = []
    for one, other in zip(before.T, after.T, strict=True):
        places = np.sort(np.concatenate([one, other]))
        gaps = [(one <= x).mean() - (other <= x).mean() for x in places[:-1]]
        areas.append(float(np.abs(gaps) @ np.diff(places)))
    drift = np.abs(moved - mean).ravel() / std
    return float(drift.mean()), float((np.array(areas) / std).mean())


def _at_least(result: Any, *_given: Any) -> float:
    drift, distance = map(float, result)
    return max(0.0, drift - distance) / (abs(drift) or 1.0)


def _distance(pair: Callable[[Array, Array], Any]) -> Callable[..., Any]:
    """A mistake of the second number, from both samples and the standard deviations before."""
    return lambda before, after: (
        _moved(before, after)[0],
        float(np.mean(pair(before, after) / before.std(0))),
    )


MOMENT_AND_SHAPE = Exercise(
    "moment-and-shape",
    CHAPTER,
    "the drift of the units' means and the distance of their distributions, in σ",
    ("before", "after"),
    oracle=_moved,
    cases=_moved_cases,
    properties=(Property("A mean cannot move farther than the values: δ ≤ ω", _at_least),),
    returns=("delta", "omega"),
    slips={
        "For ω sort each column first: not an image is followed, but the distribution.": _distance(
            lambda a, b: np.abs(b - a).mean(0)
        ),
        "For ω sort each unit's values by themselves, along axis 0.": _distance(
            lambda a, b: np.abs(np.sort(b, axis=1) - np.sort(a, axis=1)).mean(0)
        ),
        "For ω take the size of each distance before the average.": _distance(
            lambda a, b: np.abs((np.sort(b, 0) - np.sort(a, 0)).mean(0))
        ),
        "The unit is the standard deviation before the step, not after it.": lambda a, b: (
            float((np.abs(b.mean(0) - a.mean(0)) / b.std(0)).mean()),
            float((np.abs(np.sort(b, 0) - np.sort(a, 0)).mean(0) / b.std(0)).mean()),
        ),
        "σ is biased: divide by m, not by m − 1.": lambda a, b: tuple(
            each * math.sqrt((len(a) - 1) / len(a)) for each in _moved(a, b)
        ),
        "Divide by σ, not by the variance.": lambda a, b: (
            float((np.abs(b.mean(0) - a.mean(0)) / a.var(0)).mean()),
            float((np.abs(np.sort(b, 0) - np.sort(a, 0)).mean(0) / a.var(0)).mean()),
        ),
        "Divide each unit by its own σ, then average over the units.": lambda a, b: (
            float(np.abs(b.mean(0) - a.mean(0)).mean() / a.std(0).mean()),
            float(np.abs(np.sort(b, 0) - np.sort(a, 0)).mean() / a.std(0).mean()),
        ),
    },
)


def _bound_cases() -> Iterator[Case]:
    x = _array(1, 3, 8)
    yield Case("two values, of which nothing passes", (_array(1, 0), _array(1, 3), 1.0, 0.0))
    yield Case("three values, a gradient that passes whole", (_array(5, -7, 2), x, 1.0, 0.0))
    yield Case("a constant gradient: nothing passes", (_array(1, 1, 1), x, 1.0, 0.0), advice=_LEVEL)
    yield Case("a gradient along x: nothing passes", (2 * x, x, 1.0, 0.0), advice=_SLOPE)
    yield Case("a negative γ", (_array(1, 0, 0), x, -2.0, 0.0))
    yield Case("an ε that counts", (_array(1, 0, 2), x, 1.0, 5.0))
    g, x = np.random.default_rng(0).normal((0.5, 3.0), size=(9, 2)).T
    yield Case("nine values", (g, 0.1 * x, 1.5, 1e-3))


_LEVEL = "The level of the gradient, ⟨1, g⟩²/m, is taken off."
_SLOPE = "The slope of the gradient along x̂, ⟨g, x̂⟩²/m, is taken off."


def _bound(grad_y: Array, x: Array, gamma: float, eps: float) -> float:
    batch = reference.forward(x[:, None], np.full(1, gamma), eps=eps)
    return float(np.square(reference.backward(grad_y[:, None], batch).x).sum())


def _terms(
    change: Callable[[float, float, float, float, int, float], float], biased: bool = True
) -> Callable[..., float]:
    """A mistake, of ‖g‖², ⟨1, g⟩², ⟨g, x̂⟩², γ²/s², m and ε/s²."""

    def mistaken(g: Array, x: Array, gamma: float, eps: float) -> float:
        s = math.sqrt(x.var(ddof=0 if biased else 1) + eps)
        slope = float(g @ (x - x.mean())) / s
        return change(
            float(g @ g), float(g.sum()) ** 2, slope**2, (gamma / s) ** 2, len(x), eps / s**2
        )

    return mistaken


LIPSCHITZ_BOUND = Exercise(
    "lipschitz-bound",
    CHAPTER,
    "the squared length of ∂L/∂x, from that of g and two sums",
    ("grad_y", "x", "gamma", "eps"),
    oracle=_bound,
    cases=_bound_cases,
    slips={
        "1/m stands before both products, not 1/√m before the last.": _terms(
            lambda g, one, x, f, m, e: f * (g - one / m - (1 + e) * x / math.sqrt(m))
        ),
        "The squared length has the squared factor, γ²/s².": _terms(
            lambda g, one, x, f, m, e: math.sqrt(f) * (g - one / m - (1 + e) * x / m)
        ),
        "The factor γ²/s² is missing.": _terms(
            lambda g, one, x, _f, m, e: g - one / m - (1 + e) * x / m
        ),
        "P takes off the level too: ⟨1, g⟩²/m.": _terms(
            lambda g, _one, x, f, m, e: f * (g - (1 + e) * x / m)
        ),
        "P takes off the slope along x̂ too: ⟨g, x̂⟩²/m.": _terms(
            lambda g, one, _x, f, m, _e: f * (g - one / m)
        ),
        "With an ε, x̂ is shorter than √m, and the last term has the factor 1 + ε/s².": _terms(
            lambda g, one, x, f, m, _e: f * (g - one / m - x / m)
        ),
        "Both products are divided by m.": _terms(
            lambda g, one, x, f, _m, e: f * (g - one - (1 + e) * x)
        ),
        "The sums are squared before they are divided by m, and not after.": _terms(
            lambda g, one, x, f, m, e: f * (g - one / m**2 - (1 + e) * x / m**2)
        ),
        "This is the length; its square is asked for.": lambda *given: math.sqrt(_bound(*given)),
        "σ² is the biased variance: divide by m, not by m − 1.": _terms(
            lambda g, one, x, f, m, e: f * (g - one / m - (1 + e) * x / m), biased=False
        ),
    },
)


def _noisy_cases() -> Iterator[Case]:
    x, none = _array([1], [3]), np.zeros((2, 1))
    yield Case("no noise", (x, none[0], none[0] + 1, none, none))
    yield Case("a channel that is shifted", (x, none[0] + 0.5, none[0] + 1, none, none))
    yield Case("a channel that is stretched", (x, none[0], none[0] + 1.25, none, none))
    yield Case(
        "each value with a shift of its own",
        (x, none[0] - 0.5, none[0] + 1, _array([1], [-1]), none),
    )
    yield Case(
        "each value with a scale of its own", (x, none[0], none[0] + 1, none, _array([2], [-1]))
    )
    draw = np.random.default_rng(0)
    yield Case(
        "five values of three channels",
        (
            draw.normal(2.0, 3.0, (5, 3)),
            draw.uniform(-0.5, 0.5, 3),
            draw.uniform(1.0, 1.25, 3),
            draw.uniform(-1.0, 1.0, (5, 3)),
            draw.normal(size=(5, 3)),
        ),
    )


def _noisy(x: Array, mu: Array, sigma: Array, u: Array, z: Array) -> Array:
    x_hat = reference.forward(x, eps=0.0).x_hat
    result = np.empty_like(x)
    for (i, j), value in np.ndenumerate(x_hat):
        result[i, j] = (sigma[j] + 0.1 * z[i, j]) * value + mu[j] + 0.1 * u[i, j]
    return result


def _hat(x: Array) -> Array:
    return (x - x.mean(0)) / x.std(0)


NOISY_BN = Exercise(
    "noisy-bn",
    CHAPTER,
    "batch normalization with a scale and a shift at random for each value",
    ("x", "mu", "sigma", "u", "z"),
    oracle=_noisy,
    cases=_noisy_cases,
    slips={
        "The noise comes after the normalization, which would take some of it off.": (
            lambda x, mu, sigma, u, z: _hat((sigma + 0.1 * z) * x + mu + 0.1 * u)
        ),
        "u is multiplied by 0.1, too.": (
            lambda x, mu, sigma, u, z: (sigma + 0.1 * z) * _hat(x) + mu + u
        ),
        "z is multiplied by 0.1: it is a standard normal value.": (
            lambda x, mu, sigma, u, z: (sigma + z) * _hat(x) + mu + 0.1 * u
        ),
        "The shift is added after the scale, and not scaled.": (
            lambda x, mu, sigma, u, z: (sigma + 0.1 * z) * (_hat(x) + mu + 0.1 * u)
        ),
        "The scale is σ plus 0.1 z: it multiplies x̂, and σ is not multiplied by the noise.": (
            lambda x, mu, sigma, u, z: sigma * (1 + 0.1 * z) * _hat(x) + mu + 0.1 * u
        ),
        "The noise of the scale multiplies x̂; it is not added to it.": (
            lambda x, mu, sigma, u, z: sigma * _hat(x) + 0.1 * z + mu + 0.1 * u
        ),
        "Divide by the root of the biased variance: by m, not by m − 1.": (
            lambda x, mu, sigma, u, z: (
                (sigma + 0.1 * z) * (x - x.mean(0)) / x.std(0, ddof=1) + mu + 0.1 * u
            )
        ),
    },
)


def _predictive_cases() -> Iterator[Case]:
    g = _array(3, 4)
    yield Case("a gradient that does not change", (g, g[None], _array(0.5)))
    yield Case("one step that turns the gradient round", (g, -g[None], _array(0.5)))
    yield Case("two steps of a quadratic", (g, _array([1.5, 3.2], [0, 2.4]), _array(0.5, 1.0)))
    yield Case(
        "the larger step is not the worse one", (g, _array([0, 0], [3, 4.5]), _array(0.1, 0.4))
    )
    draw = np.random.default_rng(0)
    yield Case(
        "four steps, seven weights",
        (draw.normal(size=7), draw.normal(size=(4, 7)), _array(0.1, 0.2, 0.5, 1)),
    )


def _predictive(gradient: Array, along: Array, rates: Array) -> tuple[float, float]:
    length = math.hypot(*gradient)
    changes = [math.dist(each, gradient) for each in along]
    steps = [rate * length for rate in rates]
    return max(changes) / length, max(c / s for c, s in zip(changes, steps, strict=True))


GRADIENT_PREDICTIVENESS = Exercise(
    "gradient-predictiveness",
    CHAPTER,
    "how far the gradient changes along a step, and the smoothness that this shows",
    ("gradient", "along", "rates"),
    oracle=_predictive,
    cases=_predictive_cases,
    returns=("change", "smoothness"),
    slips={
        "The distance is the length of the difference, not the difference of the lengths.": (
            lambda g, along, rates: (
                float(np.abs(np.linalg.norm(along, axis=1) - np.linalg.norm(g)).max())
                / float(np.linalg.norm(g)),
                float((np.abs(np.linalg.norm(along, axis=1) - np.linalg.norm(g)) / rates).max())
                / float(np.linalg.norm(g)),
            )
        ),
        "The first number is a fraction of the length of the gradient at the start.": (
            lambda g, along, rates: (
                _predictive(g, along, rates)[0] * float(np.linalg.norm(g)),
                _predictive(g, along, rates)[1],
            )
        ),
        "The weights move by the rate times the length of the gradient.": (
            lambda g, along, rates: (
                _predictive(g, along, rates)[0],
                _predictive(g, along, rates)[1] * float(np.linalg.norm(g)),
            )
        ),
        "Divide each change by its own step, then take the largest.": (
            lambda g, along, rates: (
                _predictive(g, along, rates)[0],
                _predictive(g, along, rates)[0] / float(rates.max()),
            )
        ),
        "The largest over the steps is asked for, not the average.": (
            lambda g, along, rates: (
                float(np.linalg.norm(along - g, axis=1).mean() / np.linalg.norm(g)),
                float((np.linalg.norm(along - g, axis=1) / rates).mean() / np.linalg.norm(g)),
            )
        ),
        "The length is the root of the sum of the squares.": (
            lambda g, along, rates: (
                float(np.square(along - g).sum(1).max() / np.square(g).sum()),
                float((np.square(along - g).sum(1) / rates).max() / np.square(g).sum()),
            )
        ),
    },
)

EXERCISES = (MOMENT_AND_SHAPE, NOISY_BN, LIPSCHITZ_BOUND, GRADIENT_PREDICTIVENESS)
