"""The exercises of the chapter `bn-only`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import reference

from .exercise import Case, Exercise, Property

CHAPTER = "bn-only"
Array = NDArray[np.float64]


def _array(*values: Any) -> Array:
    return np.array(values, dtype=np.float64)


def _channel(x: Array, gamma: float, beta: float, eps: float) -> reference.Batch:
    return reference.forward(x[:, None], [gamma], [beta], eps)


def _distance_cases() -> Iterator[Case]:
    points, w = _array([0, 0], [2, 0]), _array(1, 0)
    yield Case("two points on a line", (points, w, 1.0, 0.0, 0.0))
    yield Case("weights of length 5", (points, _array(3, 4), 1.0, 0.0, 0.0))
    yield Case("γ = 2 and β = 1", (points, w, 2.0, 1.0, 0.0))
    yield Case("a negative γ", (points, w, -2.0, 1.0, 0.0))
    yield Case("an ε that counts", (points, w, 1.0, 1.0, 3.0))
    drawn = np.random.default_rng(0).normal((4.0, 1.0, -2.0), size=(7, 3))
    yield Case("seven points in three dimensions", (drawn, _array(0.5, -2, 1), -0.7, -1.2, 0.1))


def _distance(u: Array, w: Array, gamma: float, beta: float, eps: float) -> Array:
    batch = _channel(u @ w, gamma, beta, eps)
    # With the batch's statistics y is a straight line in u: its value over its slope.
    slope = abs(gamma) * batch.inv_std.item() * float(np.sqrt(np.square(w).sum()))
    return batch.y[:, 0] / slope


def _with_offset(
    offset: Callable[[float, float, float, float], float],
) -> Callable[..., Array]:
    """Distances from wᵀu = offset(μ, s, γ, β)."""

    def mistaken(u: Array, w: Array, gamma: float, beta: float, eps: float) -> Array:
        x = u @ w
        at = offset(float(x.mean()), float(np.sqrt(x.var() + eps)), gamma, beta)
        return np.sign(gamma) * (x - at) / np.sqrt(w @ w)

    return mistaken


def _unbiased(u: Array, w: Array, gamma: float, beta: float, eps: float) -> Array:
    x = u @ w
    at = x.mean() - beta / gamma * np.sqrt(x.var(ddof=1) + eps)
    return np.asarray(np.sign(gamma) * (x - at) / np.sqrt(w @ w))


HYPERPLANE_DISTANCE = Exercise(
    "hyperplane-distance",
    CHAPTER,
    "the distances of points from the hyperplane on which a normalized unit bends",
    ("u", "w", "gamma", "beta", "eps"),
    oracle=_distance,
    cases=_distance_cases,
    slips={
        "A difference of wᵀu is ‖w‖ times a distance: divide by ‖w‖.": (
            lambda u, w, *given: _distance(u, w, *given) * np.sqrt(w @ w)
        ),
        "Divide by the length of w, not by its square.": (
            lambda u, w, *given: _distance(u, w, *given) / np.sqrt(w @ w)
        ),
        "A negative γ turns the unit over: the distance is positive where the unit is active.": (
            lambda u, w, gamma, beta, eps: _distance(u, w, gamma, beta, eps) * np.sign(gamma)
        ),
        "y = 0 where x̂ = −β/γ: mind the sign of β.": _with_offset(
            lambda mean, s, gamma, beta: mean + beta / gamma * s
        ),
        "y = 0 where x̂ = −β/γ: β is divided by γ.": _with_offset(
            lambda mean, s, _gamma, beta: mean - beta * s
        ),
        "x̂ = −β/γ is in units of s: in x the hyperplane is β/γ times s from the mean.": (
            _with_offset(lambda mean, _s, gamma, beta: mean - beta / gamma)
        ),
        "The mean is taken off first: the hyperplane is near the points, not near the origin.": (
            _with_offset(lambda _mean, s, gamma, beta: -beta / gamma * s)
        ),
        "β moves the hyperplane from the mean.": _with_offset(lambda mean, *_: mean),
        "Keep the sign: negative where the unit is off.": (
            lambda *given: np.abs(_distance(*given))
        ),
        "This is what the unit computes; the distance in the space of u is asked for.": (
            lambda u, w, gamma, beta, eps: _channel(u @ w, gamma, beta, eps).y[:, 0]
        ),
        "s = √(σ² + ε): the ε is missing.": (
            lambda u, w, gamma, beta, _eps: _distance(u, w, gamma, beta, 0.0)
        ),
        "σ² is the biased variance: divide by m, not by m − 1.": _unbiased,
    },
)


def _step_cases() -> Iterator[Case]:
    v = _array([1], [-1])
    x = _array([0], [2])
    yield Case(
        "two examples, one unit, two classes",
        (x, v, np.array([0, 1]), _array(1), _array(0), 1.0, 0.0),
    )
    yield Case(
        "β = 2: the unit is active on both",
        (x, v, np.array([0, 1]), _array(1), _array(2), 0.5, 0.0),
    )
    rng = np.random.default_rng(0)
    drawn = rng.normal(1.0, 2.0, (6, 4)), rng.normal(size=(3, 4)), np.array([0, 1, 2, 2, 1, 0])
    yield Case("six examples, four units", (*drawn, _array(1, -2, 0.5, 1), np.zeros(4), 0.3, 0.0))
    yield Case("an ε that counts", (*drawn, np.ones(4), _array(0, 1, -0.5, 0.2), 0.3, 2.0))


def _upstream(
    x: Array, v: Array, t: Array, gamma: Array, beta: Array, eps: float
) -> tuple[reference.Batch, Array]:
    """The layer, and the gradient of the mean cross-entropy by its outputs."""
    batch = reference.forward(x, gamma, beta, eps)
    logits = np.maximum(batch.y, 0.0) @ v.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = powers / powers.sum(axis=1, keepdims=True) - np.eye(len(v))[t]
    return batch, errors @ v * (batch.y > 0) / len(x)


def _step(
    x: Array, v: Array, t: Array, gamma: Array, beta: Array, rate: float, eps: float
) -> tuple[Array, Array]:
    batch, grad_y = _upstream(x, v, t, gamma, beta, eps)
    gradients = reference.backward(grad_y, batch)
    return gamma - rate * gradients.gamma, beta - rate * gradients.beta


def _of_step(change: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
    """A mistake made with the gradients of γ and β, the batch, and what comes from above."""

    def mistaken(
        x: Array, v: Array, t: Array, gamma: Array, beta: Array, rate: float, eps: float
    ) -> tuple[Array, Array]:
        batch, g = _upstream(x, v, t, gamma, beta, eps)
        of_gamma, of_beta = change((g * batch.x_hat).sum(axis=0), g.sum(axis=0), batch, g)
        return gamma - rate * of_gamma, beta - rate * of_beta

    return mistaken


def _no_relu(
    x: Array, v: Array, t: Array, gamma: Array, beta: Array, rate: float, eps: float
) -> tuple[Array, Array]:
    batch = reference.forward(x, gamma, beta, eps)
    logits = np.maximum(batch.y, 0.0) @ v.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    g = (powers / powers.sum(axis=1, keepdims=True) - np.eye(len(v))[t]) @ v / len(x)
    return gamma - rate * (g * batch.x_hat).sum(axis=0), beta - rate * g.sum(axis=0)


BN_ONLY_STEP = Exercise(
    "bn-only-step",
    CHAPTER,
    "γ and β after one step of descent that leaves all weights as they are",
    ("x", "weight_out", "t", "gamma", "beta", "learning_rate", "eps"),
    oracle=_step,
    cases=_step_cases,
    returns=("gamma", "beta"),
    slips={
        "The loss is the mean over the m examples: the gradients are divided by m.": _of_step(
            lambda of_gamma, of_beta, batch, _g: (
                of_gamma * len(batch.x),
                of_beta * len(batch.x),
            )
        ),
        "Descent goes against the gradient.": _of_step(
            lambda of_gamma, of_beta, *_: (-of_gamma, -of_beta)
        ),
        "Where the ReLU is off, nothing passes back through it.": _no_relu,
        "∂y/∂γ is x̂: the gradient of γ is Σ g·x̂.": _of_step(
            lambda _gamma, of_beta, *_: (of_beta, of_beta)
        ),
        "∂y/∂γ is the normalized x̂, not x.": _of_step(
            lambda _gamma, of_beta, batch, g: ((g * batch.x).sum(axis=0), of_beta)
        ),
        "∂y/∂β is 1: the gradient of β is Σ g, without x̂.": _of_step(
            lambda of_gamma, *_: (of_gamma, of_gamma)
        ),
        "β is learned, too.": _of_step(lambda of_gamma, of_beta, *_: (of_gamma, 0 * of_beta)),
        "γ is learned, too.": _of_step(lambda of_gamma, of_beta, *_: (0 * of_gamma, of_beta)),
        "The new γ and β are asked for, not their gradients.": (
            lambda x, v, t, gamma, beta, _rate, eps: tuple(
                reference.backward(*_upstream(x, v, t, gamma, beta, eps)[::-1])[1:]
            )
        ),
        "s = √(σ² + ε): the ε is missing.": (
            lambda x, v, t, gamma, beta, rate, _eps: _step(x, v, t, gamma, beta, rate, 0.0)
        ),
    },
)


def _absorb_cases() -> Iterator[Case]:
    yield Case("one unit, γ = 2", (_array(2), _array(0), _array([3])))
    yield Case("a β", (_array(2), _array(1), _array([3])))
    yield Case("a negative γ", (_array(-2), _array(1), _array([3])))
    rng = np.random.default_rng(0)
    yield Case(
        "three units, three outputs",
        (_array(0.5, -4, 1), _array(-1, 2, 0), rng.normal(size=(3, 3))),
    )


def _absorb(gamma: Array, beta: Array, v: Array) -> tuple[Array, Array, Array]:
    """What is seen of each unit: the side it is active on, its kink, and its slope there."""
    kink, side = -beta / gamma, np.sign(gamma)
    near, far = (np.maximum(gamma * (kink + side * k) + beta, 0.0) for k in (1.0, 2.0))
    return side, -side * kink, v * (far - near)


def _of_absorb(change: Callable[..., Any]) -> Callable[..., Any]:
    """A mistake made with γ, β, the output's weights, and the three right results."""
    return lambda gamma, beta, v: change(gamma, beta, v, *_absorb(gamma, beta, v))


def _same_outputs(result: Any, gamma: Array, beta: Array, v: Array) -> float:
    side, shift, out = (np.asarray(each, np.float64) for each in result)
    x_hat = np.linspace(-3, 3, 13)[:, None]
    before = np.maximum(gamma * x_hat + beta, 0.0) @ v.T
    after = np.maximum(side * x_hat + shift, 0.0) @ out.T
    return float(np.abs(after - before).max() / (np.abs(before).max() or 1.0))


ABSORB_GAMMA = Exercise(
    "absorb-gamma",
    CHAPTER,
    "the last layer's γ as signs alone, its sizes taken over by the output layer",
    ("gamma", "beta", "weight_out"),
    oracle=_absorb,
    cases=_absorb_cases,
    returns=("gamma", "beta", "weight_out"),
    properties=(Property("The network computes what it did before", _same_outputs),),
    slips={
        "Only a positive factor passes through a ReLU: the output layer takes |γ|, not γ.": (
            _of_absorb(lambda gamma, _beta, v, side, shift, _out: (side, shift, v * gamma))
        ),
        "γ·x̂ + β = |γ|·(±x̂ + β/|γ|): β is divided, too.": _of_absorb(
            lambda _gamma, beta, _v, side, _shift, out: (side, beta, out)
        ),
        "β is divided by |γ|: its sign stays.": _of_absorb(
            lambda gamma, beta, _v, side, _shift, out: (side, beta / gamma, out)
        ),
        "What γ loses, the output's weights gain: multiply them.": _of_absorb(
            lambda gamma, _beta, v, side, shift, _out: (side, shift, v / np.abs(gamma))
        ),
        "The sign of γ stays: it says on which side the unit is active.": _of_absorb(
            lambda gamma, _beta, _v, _side, shift, out: (np.ones_like(gamma), shift, out)
        ),
        "Unit j feeds column j of the output's weights: scale the columns, not the rows.": (
            _of_absorb(
                lambda gamma, _beta, v, side, shift, out: (
                    side,
                    shift,
                    v * np.abs(gamma)[:, None] if len(v) == len(gamma) else out,
                )
            )
        ),
    },
)


def _share_cases() -> Iterator[Case]:
    yield Case("two examples, one unit", (_array([0], [2]), _array(1), _array(0), 0.0))
    yield Case("a β of −2: off", (_array([0], [2]), _array(1), _array(-2), 0.0))
    x = _array([0, 5], [1, 7], [5, 6])
    yield Case("two units, γ of both signs", (x, _array(1, -1), _array(0.5, 0), 0.0))
    yield Case("γ = 0, with β above 0 and below", (x, _array(0, 0), _array(1, -1), 0.0))
    yield Case("a constant feature at β = 0", (_array([3], [3]), _array(1), _array(0), 1.0))
    yield Case("an ε that counts", (_array([0], [2]), _array(1), _array(-0.6), 3.0))
    drawn = np.random.default_rng(0).normal(2.0, size=(11, 3))
    yield Case("eleven examples", (drawn, _array(2, -1, 0.3), _array(-1, 0.5, -0.6), 1e-5))


def _share(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    return np.asarray((reference.forward(x, gamma, beta, eps).y > 0).mean(axis=0))


ACTIVE_SHARE = Exercise(
    "active-share",
    CHAPTER,
    "the share of a batch on which each normalized unit is active",
    ("x", "gamma", "beta", "eps"),
    oracle=_share,
    cases=_share_cases,
    slips={
        "The ReLU is active where γx̂ + β is above 0, not where x is.": (
            lambda x, *_: (x > 0).mean(axis=0)
        ),
        "The share is asked for, not the number.": (lambda x, *given: _share(x, *given) * len(x)),
        "One number a unit: average over the examples, the first axis.": (
            lambda x, gamma, beta, eps: (reference.forward(x, gamma, beta, eps).y > 0).mean(axis=1)
        ),
        "β decides, too.": lambda x, gamma, beta, eps: _share(x, gamma, 0 * beta, eps),
        "A negative γ turns the unit over.": (
            lambda x, gamma, beta, eps: _share(x, np.abs(gamma), beta, eps)
        ),
        "At γ = 0 the unit is constant, max(β, 0): active everywhere if β > 0.": (
            lambda x, gamma, beta, eps: _share(x, gamma, beta, eps) * (gamma != 0)
        ),
        "Where γx̂ + β is exactly 0, the unit is 0: it is not active.": (
            lambda x, gamma, beta, eps: (reference.forward(x, gamma, beta, eps).y >= 0).mean(axis=0)
        ),
        "s = √(σ² + ε): the ε is missing.": (
            lambda x, gamma, beta, _eps: _share(x, gamma, beta, 1e-300)
        ),
        "This is the share on which the unit is off.": (lambda *given: 1.0 - _share(*given)),
    },
)

EXERCISES = (HYPERPLANE_DISTANCE, ACTIVE_SHARE, ABSORB_GAMMA, BN_ONLY_STEP)
