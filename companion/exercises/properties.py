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


def _restored(result: Any, mean: Any, var: Any, eps: float) -> float:
    gamma, beta = (np.asarray(each) for each in result)
    mean, var = np.asarray(mean), np.asarray(var)
    x = mean + np.linspace(-2.0, 2.0, 5)[:, None] * np.sqrt(var + eps)
    return _off(reference.inference(x, mean, var, gamma, beta, eps), x, np.abs(x).max() or 1.0)


def _covariance(x: Any, y: Any = None) -> Array:
    """Biased, of the columns of x with those of y, or of x."""
    x, y = (np.asarray(each, float) for each in (x, x if y is None else y))
    return (x - x.mean(axis=0)).T @ (y - y.mean(axis=0)) / len(x)


def _columns_centred(y: Any, *_given: Any) -> float:
    return _off(np.asarray(y, float).mean(axis=0), 0.0)


def _unit_variances(y: Any, *_given: Any) -> float:
    return _off(np.diagonal(_covariance(y)), 1.0)


def _white(y: Any, *_given: Any) -> float:
    return _off(_covariance(y), np.eye(y.shape[1]))


def _principal_variances(y: Any, x: Any, eps: float) -> float:
    before = np.linalg.eigvalsh(_covariance(x)).clip(min=0.0)
    before[before < 1e-13 * before[-1]] = 0.0  # rounding, in directions that the batch lacks
    expected = np.divide(before, before + eps, where=before > 0.0, out=np.zeros_like(before))
    return _off(np.linalg.eigvalsh(_covariance(y)), expected)


def _unturned(y: Any, x: Any, *_eps: float) -> float:
    both = _covariance(x, y)
    scale = np.abs(both).max() or 1.0
    least = np.linalg.eigvalsh((both + both.T) / 2)[0]
    return max(_off(both, both.T, scale), -least / scale)


def _triangular(y: Any, x: Any) -> float:
    both = _covariance(x, y)
    scale = np.abs(both).max() or 1.0
    return max(_off(np.triu(both, 1), 0.0, scale), -np.diagonal(both).min() / scale)


MEAN_IS_BETA = Property("The mean of each channel of y is β", _mean_is_beta)
VARIANCE = Property("The variance of each channel of y is γ²σ²/(σ² + ε)", _variance)
NO_MOVE = Property("The gradients of x sum to 0 in every channel", _no_move)
NO_STRETCH = Property("The gradients of x, times x̂, sum to γ·(∂L/∂γ)·ε/(σ² + ε)^1.5", _no_stretch)
RESTORED = Property("With these γ and β, inference mode returns its input", _restored)
CENTRED = Property("Each column of the result has mean 0", _columns_centred, 1e-7)
UNIT_VARIANCES = Property("Each column of the result has variance 1", _unit_variances)
WHITE = Property("The covariance matrix of the result is I", _white)
PRINCIPAL_VARIANCES = Property(
    "Along its principal axes the result has the variances λ/(λ + ε)", _principal_variances
)
UNTURNED = Property(
    "The covariance of x with the result is symmetric, and has no negative eigenvalue", _unturned
)
TRIANGULAR = Property(
    "Column k of the result has no covariance with the columns of x before k, and none below 0 "
    "with its own",
    _triangular,
)
