"""The exercises of the chapter `backprop`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from companion import reference

from .exercise import Case, Exercise
from .properties import (
    LINEAR_IN_GAMMA,
    LINEAR_IN_GRAD_Y,
    NO_MOVE,
    NO_STRETCH,
    ROWS_ALONG_X_HAT,
    ROWS_SUM_TO_0,
    SECOND_NO_MOVE,
    TANGENTS_SUM_TO_0,
)

CHAPTER = "backprop"

STATISTICS = "μ and σ² move with x; here they are held constant in the derivative."
EPS = "ε is missing: s = √(σ² + ε) wherever s stands."
BIASED = "σ² is the biased variance, divided by m, as in the forward pass."
# What P leaves of an array, with mistakes: parts of it left out, and other numbers.
MISTAKES: dict[str, dict[str, Any]] = {
    STATISTICS: {"mean": 0, "variance": 0},
    "The path through the mean is missing: the centring term, an average over the batch.": {
        "mean": 0
    },
    "The path through the variance is missing: what moves σ² moves every x̂.": {"variance": 0},
    "γ is missing: y = γx̂ + β.": {"scale": 0},
    EPS: {"share": 0},
    BIASED: {"ddof": 1},
}


def _pass(
    mean: float = 1,
    variance: float = 1,
    scale: int = 1,
    share: float = 1,
    ddof: int = 0,
) -> Callable[..., Any]:
    """(γ/s)·P·a, in columns, with as much of each of its parts as said."""

    def passed(a: Any, x: Any, gamma: Any, eps: float) -> Any:
        s = np.sqrt(x.var(axis=0, ddof=ddof) + share * eps)
        x_hat = (x - x.mean(axis=0)) / s
        rest = a - mean * a.mean(axis=0) - variance * x_hat * (a * x_hat).mean(axis=0)
        return gamma**scale / s * rest

    return passed


def _cases(upstream: int, **last: Case) -> Iterator[Case]:
    """Cases of a function of so many arrays like x, and of x, γ and ε."""
    rng = np.random.default_rng(0)
    units = [np.eye(3)[:, [place]] for place in range(upstream)]

    def drawn(what: str, x: Any, gamma: list[float], eps: float, **more: Any) -> Case:
        arrays = rng.normal(size=(upstream, *x.shape))
        return Case(what, (*arrays, x, np.array(gamma), eps), **more)

    two, three, one = np.array([[1.0], [3.0]]), np.array([[0.0], [0.0], [6.0]]), np.ones(1)
    first = [unit[:2] if place == 0 else two - 1 for place, unit in enumerate(units)]
    yield Case("two values, ε = 0: nothing reaches x", (*first, two, one, 0.0))
    yield Case("two values, ε as large as σ²", (*first, two, one, 1.0))
    yield Case("three values", (*units, three, 3 * one, 1.0))
    gamma = [2.0, -1.0, 0.5]
    yield drawn("three features", rng.normal(1, 2, size=(5, 3)), gamma, 0.1)
    yield drawn("as many examples as features", rng.normal(size=(3, 3)), gamma, 1e-5)
    yield drawn("a constant feature", np.full((4, 1), 7.0), [2.0], 1e-2)
    yield drawn("one value", np.array([[7.0]]), [2.0], 1e-2)
    yield from last.values()
    yield drawn(
        "values around 10⁸",
        rng.normal(1e8, 1, size=(20, 1)),
        [1.0],
        1e-5,
        tolerance=1e-6,
        advice="Where the mean is large, take it off before you square.",
    )


def _six(
    half: float = -0.5,
    power: int = 3,
    over: Callable[[int], float] = lambda m: m,
    again: tuple[int, int] = (0, 0),
    **mistake: Any,
) -> Callable[..., Any]:
    """The six equations; `half`, `power` and `over` are those of the variance.

    `again` has the powers of γ in the gradients of γ and β.
    """

    def equations(grad_y: Any, x: Any, gamma: Any, eps: float) -> Any:
        c, parts = x - x.mean(axis=0), {"mean": 1, "variance": 1, "scale": 1} | mistake
        var = x.var(axis=0, ddof=mistake.get("ddof", 0))
        s = np.sqrt(var + mistake.get("share", 1) * eps)
        grad_x_hat = grad_y * gamma ** parts["scale"]
        grad_var = half * (grad_x_hat * c).sum(axis=0) / s**power
        grad_mean = -grad_x_hat.sum(axis=0) / s
        through_var = parts["variance"] * grad_var * 2 * c / over(len(x))
        grad_x = grad_x_hat / s + through_var + parts["mean"] * grad_mean / len(x)
        return (
            grad_x_hat,
            grad_var,
            grad_mean,
            grad_x,
            gamma ** again[0] * (grad_y * c / s).sum(axis=0),
            gamma ** again[1] * grad_y.sum(axis=0),
        )

    return equations


def _six_by_the_line(grad_y: Any, x: Any, gamma: Any, eps: float) -> Any:
    """The six results, the statistics' by Eq. (8) backprop/collapsed-statistics."""
    batch = reference.forward(x, gamma, eps=eps)
    grads, inv_std = reference.backward(grad_y, batch), batch.squeeze(batch.inv_std)
    grad_var = -gamma * inv_std**2 * grads.gamma / 2
    return grad_y * gamma, grad_var, -gamma * inv_std * grads.beta, *grads


SIX_EQUATIONS = Exercise(
    "six-equations",
    CHAPTER,
    "the paper's six equations, one result each",
    ("grad_y", "x", "gamma", "eps"),
    oracle=_six_by_the_line,
    cases=lambda: _cases(1),
    properties=(NO_MOVE.of(3), NO_STRETCH.of(3)),
    returns=("grad_x_hat", "grad_var", "grad_mean", "grad_x", "grad_gamma", "grad_beta"),
    slips={
        **{advice: _six(**mistake) for advice, mistake in MISTAKES.items()},
        "The derivative of (σ² + ε)^(−1/2) has the power −3/2: s³ stands below.": _six(power=2),
        "The derivative of (σ² + ε)^(−1/2) has the factor −1/2, with its sign.": _six(half=0.5),
        "The derivative of (σ² + ε)^(−1/2) has the factor −1/2.": _six(half=-1.0),
        "x_i is one of m values in the variance: its derivative is 2(x_i − μ)/m.": _six(
            over=lambda _m: 1
        ),
        "The gradients of γ and β begin at grad_y, not at grad_x_hat, which has γ in it.": _six(
            again=(1, 1)
        ),
        "The gradient of γ begins at grad_y, not at grad_x_hat, which has γ in it.": _six(
            again=(1, 0)
        ),
        "The gradient of β begins at grad_y, not at grad_x_hat, which has γ in it.": _six(
            again=(0, 1)
        ),
    },
)


def _backward(
    count: Callable[[int], float] = lambda m: m,
    centred: Callable[[Any, Any], Any] = lambda x_hat, _s: x_hat,
    order: tuple[int, ...] = (0, 1, 2),
    averaged: bool = False,
    **mistake: Any,
) -> Callable[..., Any]:
    """The one line, with mistakes of :func:`_pass` and others."""

    def backward(grad_y: Any, x: Any, gamma: Any, eps: float) -> Any:
        g, values = grad_y.astype(np.float64), x.astype(np.float64)
        var = values.var(axis=0, ddof=mistake.get("ddof", 0))
        s = np.sqrt(var + mistake.get("share", 1) * eps)
        x_hat = (values - values.mean(axis=0)) / s
        share = len(x) / count(len(x))
        divisor = len(x) if averaged else 1
        parts = {"mean": share, "variance": share} | mistake
        results = (
            _pass(**parts)(g, values, gamma, eps),
            (g * centred(x_hat, s)).sum(axis=0) / divisor,
            g.sum(axis=0) / divisor,
        )
        return tuple(results[place] for place in order)

    return backward


def _backward_cases() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    x = rng.normal(100, 1, size=(64, 2)).astype(np.float32)
    grad_y = rng.normal(10, 1, size=(64, 2)).astype(np.float32)
    yield from _cases(
        1,
        single=Case(
            "grad_y and x in float32",
            (grad_y, x, np.array([1.0, 2.0]), 1e-5),
            advice="Sums of float32 values lose digits; compute in float64.",
        ),
    )


BN_BACKWARD = Exercise(
    "bn-backward",
    CHAPTER,
    "the gradients of x, γ and β, with two sums over the batch",
    ("grad_y", "x", "gamma", "eps"),
    oracle=lambda grad_y, x, gamma, eps: tuple(
        reference.backward_staged(grad_y, reference.forward(x, gamma, eps=eps))
    ),
    cases=_backward_cases,
    properties=(NO_MOVE.of(0), NO_STRETCH.of(0)),
    returns=("grad_x", "grad_gamma", "grad_beta"),
    slips={
        **{advice: _backward(**mistake) for advice, mistake in MISTAKES.items()},
        "The line has averages: both sums are divided by m there.": _backward(count=lambda _m: 1),
        "γ multiplies x̂: its gradient sums grad_y·x̂, not grad_y·(x − μ).": _backward(
            centred=lambda x_hat, s: x_hat * s
        ),
        "The gradients of γ and β are sums; the line for x alone has averages.": _backward(
            averaged=True
        ),
        "The order of the results is x, γ, β.": _backward(order=(0, 2, 1)),
    },
)


def _jacobian_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    yield Case("two values, ε = 0: nothing passes", (np.array([1.0, 3.0]), 1.0, 0.0))
    yield Case("two values, ε as large as σ²", (np.array([1.0, 3.0]), 1.0, 1.0))
    yield Case("three values", (np.array([0.0, 0.0, 6.0]), 3.0, 1.0))
    yield Case("six values", (rng.normal(1, 2, size=6), -1.7, 0.1))
    yield Case("a constant feature", (np.full(4, 7.0), 2.0, 1e-2))
    yield Case("one value", (np.array([7.0]), 2.0, 1e-2))
    yield Case(
        "values around 10⁸",
        (rng.normal(1e8, 1, size=8), 1.0, 1e-5),
        tolerance=1e-6,
        advice="Where the mean is large, take it off before you square.",
    )


def _matrix(**mistake: Any) -> Callable[..., Any]:
    """The Jacobian with mistakes of :func:`_pass`: its columns are what unit vectors become."""
    return lambda x, gamma, eps: _pass(**mistake)(np.eye(len(x)), x[:, None], gamma, eps)


def _outer_of_x(x: Any, gamma: float, eps: float) -> Any:
    m, s = len(x), np.sqrt(x.var() + eps)
    c = x - x.mean()
    return gamma / s * (np.eye(m) - 1 / m - np.outer(c, c) / m)


def _outer_whole(x: Any, gamma: float, eps: float) -> Any:
    m, s = len(x), np.sqrt(x.var() + eps)
    c = x - x.mean()
    return gamma / s * (np.eye(m) - 1 / m - np.outer(c, c) / s**2)


def _inner(x: Any, gamma: float, eps: float) -> Any:
    m, s = len(x), np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / s
    return gamma / s * (np.eye(m) - 1 / m - x_hat @ x_hat / m)


def _columns(x: Any, gamma: float, eps: float) -> Any:
    """Column j is the gradient of y_j by the paper's six equations: J is symmetric."""
    copies = np.repeat(x[:, None], len(x), axis=1)
    batch = reference.forward(copies, np.full(len(x), gamma), eps=eps)
    return reference.backward_staged(np.eye(len(x)), batch).x


BN_JACOBIAN = Exercise(
    "bn-jacobian",
    CHAPTER,
    "the derivative of each output by each input, of one feature",
    ("x", "gamma", "eps"),
    oracle=_columns,
    cases=_jacobian_cases,
    properties=(ROWS_SUM_TO_0, ROWS_ALONG_X_HAT),
    slips={
        **{advice: _matrix(**mistake) for advice, mistake in MISTAKES.items()},
        "The second outer product is of x̂, not of x − μ.": _outer_of_x,
        "The outer product of x̂ is divided by m, as that of the ones is.": _outer_whole,
        "x̂ @ x̂ is a number, the sum of the squares; the outer product is m × m: np.outer.": _inner,
    },
)


def _by_the_matrix(x_dot: Any, x: Any, gamma: Any, eps: float) -> Any:
    """ẏ = J·ẋ, feature by feature."""
    columns = [
        reference.jacobian(x[:, place], gamma[place], eps) @ x_dot[:, place]
        for place in range(x.shape[1])
    ]
    return np.stack(columns, axis=1)


def _quotient_by_s(x_dot: Any, x: Any, gamma: Any, eps: float) -> Any:
    c, c_dot, s = x - x.mean(axis=0), x_dot - x_dot.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    s_dot = (c * c_dot).mean(axis=0) / s
    return gamma * (c_dot - c * s_dot) / s


BN_JVP = Exercise(
    "bn-jvp",
    CHAPTER,
    "forward mode: how y moves when x does",
    ("x_dot", "x", "gamma", "eps"),
    oracle=_by_the_matrix,
    cases=lambda: _cases(1),
    properties=(TANGENTS_SUM_TO_0,),
    slips={
        **{advice: _pass(**mistake) for advice, mistake in MISTAKES.items()},
        "The derivative of a square has a factor 2, and that of s = √v is v̇/(2s).": _pass(
            variance=0.5
        ),
        "The derivative of s = √v is v̇/(2s), with the 2.": _pass(variance=2),
        "In x̂ = c/s, a larger s makes x̂ smaller: its term has a minus.": _pass(variance=-1),
        "The derivative of c/s by s is −c/s²: s² stands below ṡ, not s.": _quotient_by_s,
    },
)


def _double(
    moving: float = 1,
    grad_y_part: float = 1,
    v_part: float = 1,
    projected: bool = True,
    count: Callable[[int], float] = lambda m: m,
    scale: int = 1,
    again: tuple[int, int] = (0, 0),
    **mistake: Any,
) -> Callable[..., Any]:
    """The backward pass differentiated, with parts of the gradient by x left out.

    `again` has the powers of γ in the gradient by γ, and where the one by x uses this.
    """

    def double(v: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> Any:
        s = np.sqrt(x.var(axis=0, ddof=mistake.get("ddof", 0)) + mistake.get("share", 1) * eps)
        x_hat, ones = (x - x.mean(axis=0)) / s, np.ones_like(gamma)
        parts = _pass(**mistake)
        into_gamma = (v * parts(grad_y, x, ones, eps)).sum(axis=0)
        mixed = grad_y_part * (v * x_hat).sum(axis=0) * grad_y
        mixed = mixed + v_part * (grad_y * x_hat).sum(axis=0) * v
        mixed = parts(mixed, x, ones, eps) if projected else mixed / s
        into_x = -(moving * gamma ** again[1] * into_gamma * x_hat + mixed) / s / count(len(x))
        factor = gamma**scale
        return factor * parts(v, x, ones, eps), factor * into_x, gamma ** again[0] * into_gamma

    return double


BN_DOUBLE_BACKWARD = Exercise(
    "bn-double-backward",
    CHAPTER,
    "the backward pass, differentiated again",
    ("v", "grad_y", "x", "gamma", "eps"),
    oracle=lambda v, grad_y, x, gamma, eps: tuple(
        reference.double_backward(v, grad_y, reference.forward(x, gamma, eps=eps))
    ),
    cases=lambda: _cases(2),
    properties=(LINEAR_IN_GRAD_Y, SECOND_NO_MOVE, LINEAR_IN_GAMMA),
    returns=("by_grad_y", "by_x", "by_gamma"),
    slips={
        "φ is v·(γ/s)·P·grad_y: s and x̂ move with x; here they are held constant.": _double(
            moving=0, grad_y_part=0, v_part=0
        ),
        "1/s moves with x as well: the gradient by x has a term along x̂.": _double(moving=0),
        "x̂ stands twice in P: grad_y and v both appear in the bracket, each times a sum.": (
            _double(grad_y_part=0)
        ),
        "x̂ stands twice in P: v and grad_y both appear in the bracket, each times a sum.": (
            _double(v_part=0)
        ),
        "x̂ moves by P·δ/s: the bracket goes through P.": _double(projected=False),
        "The gradient by x is divided by m, as the averages in P are.": _double(count=lambda _m: 1),
        "γ is missing: ∂L/∂x has it as a factor.": _double(scale=0),
        "φ is linear in γ: its gradient by γ does not have γ as a factor.": _double(again=(1, 0)),
        "φ is linear in γ: its gradient by γ has no factor γ, nor where ∂φ/∂x uses it.": (
            _double(again=(1, 1))
        ),
        EPS: _double(share=0),
        BIASED: _double(ddof=1),
    },
)

EXERCISES = (SIX_EQUATIONS, BN_BACKWARD, BN_JACOBIAN, BN_JVP, BN_DOUBLE_BACKWARD)
