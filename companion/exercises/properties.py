"""Equations that hold of batch normalization, whoever computes it.

The checks of exercises tell a reader which of them a wrong answer violates; the unit tests hold
every implementation of the package against them. Arrays and tensors are ``(m, C)`` or
``(N, C, *spatial)``, on the CPU; errors are relative to the largest terms that an equation adds up,
times what normalizing makes of the rounding of `x`, channel by channel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion import reference

from .calls import as_array
from .exercise import Property

Array = NDArray[np.float64]


def _channels(values: Any) -> Array:
    """Values of a channel as a row: ``(m, C)`` or ``(N, C, *spatial)`` becomes ``(C, values)``."""
    array = np.asarray(as_array(values), np.float64)
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def _per_channel(values: Any) -> Array:
    return np.asarray(as_array(values), np.float64)


def _off(value: Any, expected: Any, *scales: Any) -> float:
    """The largest error of a channel, relative to the product of its scales."""
    scale = np.prod([np.broadcast_to(each, value.shape) for each in scales], axis=0)
    return float(np.max(np.abs(value - expected) / np.where(scale == 0, 1.0, scale), initial=0.0))


def _normalized(x: Any, eps: float) -> tuple[Array, Array, Array, Array]:
    """x̂ as rows; σ², 1/s, and how much s magnifies the rounding of x, per channel."""
    batch = reference.forward(as_array(x), eps=eps)
    mean, var, inv_std = map(batch.squeeze, (batch.batch_mean, batch.batch_var, batch.inv_std))
    return _channels(batch.x_hat), var, inv_std, 1 + np.abs(mean) * inv_std


def _mean_is_beta(y: Any, x: Any, gamma: Any, beta: Any, eps: float) -> float:
    rows, beta = _channels(y), _per_channel(beta)
    *_, condition = _normalized(x, eps)
    return _off(rows.mean(axis=1), beta, np.abs(_per_channel(gamma)) + np.abs(beta), condition)


def _variance(y: Any, x: Any, gamma: Any, beta: Any, eps: float) -> float:
    _, var, inv_std, condition = _normalized(x, eps)
    gamma, beta = _per_channel(gamma), _per_channel(beta)
    std = np.abs(gamma) * np.sqrt(var) * inv_std
    return _off(_channels(y).var(axis=1), std**2, std * (std + np.abs(beta)), condition)


def _no_move(grad_x: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    _, _, inv_std, condition = _normalized(x, eps)
    terms = np.abs(_channels(grad_y)).sum(axis=1)
    scale = np.abs(_per_channel(gamma)) * inv_std * terms
    return _off(_channels(grad_x).sum(axis=1), 0.0, scale, condition)


def _no_stretch(grad_x: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    x_hat, _, inv_std, condition = _normalized(x, eps)
    gamma, g = _per_channel(gamma), _channels(grad_y)
    expected = gamma * (g * x_hat).sum(axis=1) * eps * inv_std**3
    scale = np.abs(gamma) * inv_std * np.abs(g).sum(axis=1) * np.abs(x_hat).max(axis=1)
    return _off((_channels(grad_x) * x_hat).sum(axis=1), expected, scale, condition)


def _of_rows(check: Any) -> Any:
    """A property of ∂L/∂x as one of the Jacobian of one channel: row i is the gradient of y_i."""

    def error(jacobian: Any, x: Any, gamma: float, eps: float) -> float:
        matrix, m = np.asarray(as_array(jacobian), np.float64), len(x)
        copies = np.repeat(np.reshape(as_array(x), (m, 1)), m, axis=1)
        return float(check(matrix.T, np.eye(m), copies, np.full(m, gamma), eps))

    return error


def _second_order(v: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> tuple[Array, Array]:
    """Φ = Σ v·∂L/∂x of each channel, by the first-order oracle; and the size of its terms."""
    batch = reference.forward(as_array(x), as_array(gamma), eps=eps)
    grads = reference.backward(as_array(grad_y), batch)
    v, g = _channels(v), _channels(grad_y)
    scale = np.abs(_per_channel(gamma)) * batch.squeeze(batch.inv_std)
    scale = scale * np.sqrt((v**2).sum(axis=1) * (g**2).sum(axis=1))
    return (v * _channels(grads.x)).sum(axis=1), scale


def _linear_in_grad_y(grads: Any, v: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    phi, scale = _second_order(v, grad_y, x, gamma, eps)
    *_, condition = _normalized(x, eps)
    return _off((_channels(grads[0]) * _channels(grad_y)).sum(axis=1), phi, scale, condition)


def _second_no_move(grads: Any, v: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    _, scale = _second_order(v, grad_y, x, gamma, eps)
    _, _, inv_std, condition = _normalized(x, eps)
    return _off(_channels(grads[1]).sum(axis=1), 0.0, scale * inv_std, condition)


def _linear_in_gamma(grads: Any, v: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    phi, scale = _second_order(v, grad_y, x, gamma, eps)
    *_, condition = _normalized(x, eps)
    return _off(_per_channel(gamma) * _per_channel(grads[2]), phi, scale, condition)


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


def _totals(counts: Any, means: Any, m2s: Any) -> tuple[Array, Array]:
    """Σx and Σx² of every part that is not empty, a row each."""
    filled = counts > 0
    sums = counts[filled, None] * means[filled]
    return sums, m2s[filled] + sums * means[filled]


def _merged_sums(merged: Any, counts: Any, means: Any, m2s: Any) -> float:
    sums, _ = _totals(counts, means, m2s)
    return _off(merged[0] * merged[1], sums.sum(axis=0), np.abs(sums).sum() or 1.0)


def _merged_squares(merged: Any, counts: Any, means: Any, m2s: Any) -> float:
    _, squares = _totals(counts, means, m2s)
    n, mean, m2 = merged
    return _off(m2 + n * mean**2, squares.sum(axis=0), squares.sum() or 1.0)


def _fixed_line(y: Any, x: Any, _mean: Any, var: Any, gamma: Any, _beta: Any, eps: float) -> float:
    step = np.diff(_channels(x)) * (np.asarray(gamma) / np.sqrt(np.asarray(var) + eps))[:, None]
    return _off(np.diff(_channels(y)), step, np.abs(step).max(initial=0) or 1.0)


def _line(y: Any, x: Any, gamma: Any, beta: Any, eps: float) -> float:
    _, _, inv_std, condition = _normalized(x, eps)
    step = np.diff(_channels(x)) * (_per_channel(gamma) * inv_std)[:, None]
    scale = (np.abs(step).max(axis=1, initial=0.0) + np.abs(_per_channel(beta))) * condition
    return _off(np.diff(_channels(y)), step, scale[:, None])


def _valid_alone(y: Any, x: Any, mask: Any, eps: float) -> float:
    y, x = (np.moveaxis(np.asarray(as_array(each), np.float64), 1, -1) for each in (y, x))
    valid = np.asarray(as_array(mask))
    return _off(y[valid], reference.forward(x[valid], eps=eps).y)


def _slope(grad_x: Any, grad_y: Any, x: Any, gamma: Any, eps: float) -> float:
    """Along one direction, against the central difference of Σ ∂L/∂y·y, in every channel."""
    _, var, inv_std, _ = _normalized(x, eps)
    g, x, gamma = _channels(grad_y), _channels(x), _per_channel(gamma)
    direction = np.random.default_rng(0).normal(size=x.shape)
    step = 1e-5 * np.sqrt(var + eps)[:, None]
    losses = [
        (g * reference.forward((x + h * direction).T, gamma, eps=eps).y.T).sum(axis=1)
        for h in (step, -step)
    ]
    expected = (losses[0] - losses[1]) / (2 * step[:, 0])
    scale = np.abs(gamma) * inv_std * np.abs(g * direction).sum(axis=1)
    return _off((_channels(grad_x) * direction).sum(axis=1), expected, scale)


def _fixed_mean(y: Any, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float) -> float:
    mean, var, gamma, beta = map(_per_channel, (mean, var, gamma, beta))
    rows = gamma * (_channels(x).mean(axis=1) - mean) / np.sqrt(var + eps)
    return _off(_channels(y).mean(axis=1), rows + beta, np.abs(rows) + np.abs(beta))


def _fixed_slope(
    grad_x: Any, grad_y: Any, _x: Any, _mean: Any, var: Any, gamma: Any, eps: float
) -> float:
    expected = (_per_channel(gamma) / np.sqrt(_per_channel(var) + eps))[:, None] * _channels(grad_y)
    return _off(_channels(grad_x), expected, np.abs(expected).max(axis=1, keepdims=True))


def _tracked(place: int) -> Any:
    """A property of the running mean, at place 0, or of the running variance, at place 1."""

    def error(
        result: Any, channels: int, batches: Sequence[Any], momentum: float, _eps: float
    ) -> float:
        expected = np.full(channels, float(place))
        for batch in batches:
            rows = _channels(batch)
            own = (rows.mean(axis=1), rows.var(axis=1, ddof=1))[place]
            expected = (1 - momentum) * expected + momentum * own
        return _off(_per_channel(result[place]), expected, np.maximum(np.abs(expected), 1.0))

    return error


def _pooled(result: Any, _model: Any, batches: Sequence[Any]) -> float:
    rows = np.concatenate([_channels(batch) for batch in batches], axis=1)
    mean, var = map(_per_channel, result)
    width = rows.std(axis=1)
    return max(_off(mean, rows.mean(axis=1), width), _off(var, rows.var(axis=1, ddof=1), width**2))


def _stay(result: Any, *_given: Any) -> float:
    before, after = (np.concatenate([*map(_per_channel, each)]) for each in result)
    return _off(after, before)


def _finite(result: Any, *_given: Any) -> float:
    return float(not all(np.isfinite(_per_channel(each)).all() for each in result))


def _shares_add_up(shares: Any, grads: Any, xs: Any, gamma: Any, eps: float) -> float:
    x, grad_y = (np.concatenate([*map(as_array, each)]) for each in (xs, grads))
    batch = reference.forward(x, as_array(gamma), eps=eps)
    scale = (np.abs(grad_y) * np.abs(batch.x_hat)).sum(axis=0)
    total = np.sum([*map(_per_channel, shares)], axis=0)
    return _off(total, reference.backward(grad_y, batch).gamma, scale)


def _same_outputs(outputs: Any, model: Any, x: Any) -> float:
    before = np.asarray(as_array(copy.deepcopy(model).eval()(x)))
    return _off(np.asarray(as_array(outputs)), before, np.abs(before).max() or 1.0)


def _same_modes(modes: Any, model: Any, _x: Any) -> float:
    before = [each.training for each in model.modules() if hasattr(each, "running_mean")]
    return float([*modes] != before)


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
ROWS_SUM_TO_0 = Property("Every row of the Jacobian sums to 0", _of_rows(_no_move))
ROWS_ALONG_X_HAT = Property("J·x̂ = γ·ε/(σ² + ε)^1.5 · x̂", _of_rows(_no_stretch))
TANGENTS_SUM_TO_0 = Property("The changes of y sum to 0 in every channel", _no_move)
LINEAR_IN_GRAD_Y = Property("φ is linear in ∂L/∂y: (∂φ/∂(∂L/∂y))·∂L/∂y = φ", _linear_in_grad_y)
SECOND_NO_MOVE = Property("∂φ/∂x sums to 0 in every channel", _second_no_move)
LINEAR_IN_GAMMA = Property("φ is linear in γ: γ·∂φ/∂γ = φ", _linear_in_gamma)
MERGED_SUMS = Property("The sums add up: n·μ = Σ n_r·μ_r", _merged_sums)
MERGED_SQUARES = Property(
    "The sums of squares add up: M + n·μ² = Σ (M_r + n_r·μ_r²)", _merged_squares
)
FIXED_LINE = Property(
    "With fixed statistics y changes by γ/√(σ² + ε) times the change of x", _fixed_line, 1e-6
)
LINE = Property("All values of a channel are shifted and scaled alike, by γ/√(σ² + ε)", _line)
VALID_ALONE = Property("Valid values are normalized as if there were no padding", _valid_alone)
SLOPE = Property("The gradient of x is the slope of the loss in every direction", _slope, 1e-7)
FIXED_MEAN = Property(
    "With fixed statistics the mean of y is β + γ·(the mean of x - μ)/√(σ² + ε)", _fixed_mean
)
FIXED_SLOPE = Property(
    "With fixed statistics the gradient of x is γ/√(σ² + ε) times that of y", _fixed_slope
)
RUNNING_MEAN = Property(
    "From 0 on, each batch moves the running mean by momentum times the distance to its own",
    _tracked(0),
)
RUNNING_VAR = Property(
    "From 1 on, each batch moves the running variance by momentum times the distance to its own, "
    "the unbiased one",
    _tracked(1),
)
POOLED = Property(
    "The running statistics are the mean and the unbiased variance of all values together", _pooled
)
STATISTICS_STAY = Property("The running statistics are what they were", _stay)
STAY_FINITE = Property("The running statistics are finite", _finite)
SHARES_ADD_UP = Property(
    "The processes' gradients of γ add up to that of the whole batch", _shares_add_up
)
SAME_OUTPUTS = Property("The model computes what it did before", _same_outputs)
SAME_MODES = Property("Each layer is in the mode that it was in", _same_modes)
