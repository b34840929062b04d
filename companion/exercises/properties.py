"""Equations that hold of batch normalization, whoever computes it.

The checks of exercises tell a reader which of them a wrong answer violates; the unit tests hold
every implementation of the package against them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import reference

from .exercise import Property

Array = NDArray[np.float64]


def _channels(values: Any) -> Array:
    """Values of a channel as a row: ``(m, C)`` or ``(N, C, *spatial)`` becomes ``(C, values)``."""
    return np.moveaxis(np.asarray(values, float), 1, 0).reshape(values.shape[1], -1)


def _off(value: Any, expected: Any, scale: Any = 1.0) -> float:
    return float(np.max(np.abs(value - expected) / scale))


def _mean_is_beta(y: Any, _x: Any, _gamma: Any, beta: Any, _eps: float) -> float:
    rows = _channels(y)
    return _off(rows.mean(axis=1), beta, np.abs(rows).max() or 1.0)


def _variance(y: Any, x: Any, gamma: Any, _beta: Any, eps: float) -> float:
    _, var = reference.moments(x)
    expected = np.asarray(gamma) ** 2 * var / (var + eps)
    return _off(_channels(y).var(axis=1), expected, expected.max() or 1.0)


def _no_move(grad_x: Any, grad_y: Any, _x: Any, gamma: Any, _eps: float) -> float:
    scale = np.abs(_channels(grad_y)).sum() * np.abs(gamma).max() or 1.0
    return _off(_channels(grad_x).sum(axis=1), 0.0, scale)


def _no_stretch(grad_x: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    batch = reference.forward(x, gamma, eps=eps)
    var = batch.squeeze(batch.batch_var)
    share = eps / (var + eps)
    grad_gamma = (_channels(grad_y) * _channels(batch.x_hat)).sum(axis=1)
    expected = np.asarray(gamma) * grad_gamma * share / np.sqrt(var + eps)
    along = (_channels(grad_x) * _channels(batch.x_hat)).sum(axis=1)
    return _off(along, expected, np.abs(_channels(grad_x)).sum() or 1.0)


MEAN_IS_BETA = Property("The mean of each channel of y is β", _mean_is_beta)
VARIANCE = Property("The variance of each channel of y is γ²σ²/(σ² + ε)", _variance)
NO_MOVE = Property("The gradients of x sum to 0 in every channel", _no_move)
NO_STRETCH = Property("The gradients of x, times x̂, sum to γ·(∂L/∂γ)·ε/(σ² + ε)^1.5", _no_stretch)


def _fixed_line(y: Any, x: Any, _mean: Any, var: Any, gamma: Any, _beta: Any, eps: float) -> float:
    step = np.diff(_channels(x)) * (np.asarray(gamma) / np.sqrt(np.asarray(var) + eps))[:, None]
    return _off(np.diff(_channels(y)), step, np.abs(step).max(initial=0) or 1.0)


FIXED_LINE = Property(
    "With fixed statistics y changes by γ/√(σ² + ε) times the change of x", _fixed_line, 1e-6
)
