"""The exercises of the chapter `mini-batch-algorithm`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from companion import reference

from .exercise import Case, Exercise
from .properties import MEAN_IS_BETA, VARIANCE

CHAPTER = "mini-batch-algorithm"


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
    yield Case("images", (rng.normal(size=(2, 3, 2, 4)), gamma, beta, 1e-5))
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
        "The statistics go over the examples: axis 0, and H and W of images; not over features.": (
            lambda x, gamma, beta, eps: _with_variance(
                lambda x, _axes: x.var(axis=1, keepdims=True), _inside
            )(x - x.mean(axis=1, keepdims=True), gamma, beta, eps)
        ),
    },
)

EXERCISES = (BN_FORWARD,)
