"""Batch normalization in NumPy and float64: the oracle every other implementation is held against.

Read it beside the paper. Each step names the equation of the book that it computes, as
``Eq. (number) chapter/label``. Nothing here is fast; everything can be checked by eye.

Layouts: ``(m, C)`` and ``(N, C, *spatial)``. By default statistics are taken over every axis but
axis 1, so that there is one mean and one variance per channel, over ``m`` values. Every function
takes ``axes`` to choose another set. ``gamma``, ``beta`` and the statistics have the shape of the
axes that are kept (``(C,)`` by default).

Source: Ioffe & Szegedy (2015), arXiv:1502.03167.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def channel_axes(ndim: int) -> tuple[int, ...]:
    """Axes that batch normalization reduces in an array of rank `ndim`: all but axis 1.

    Parameters
    ----------
    ndim
        the array's rank, at least 2

    Examples
    --------
    >>> channel_axes(4)
    (0, 2, 3)
    """
    if ndim < 2:
        raise ValueError(f"ndim: expected an array of rank 2 or more, (m, C, ...), got rank {ndim}")
    return (0, *range(2, ndim))


def _resolve_axes(ndim: int, axes: Iterable[int] | None) -> tuple[int, ...]:
    if axes is None:
        return channel_axes(ndim)
    axes = tuple(axes)
    resolved = tuple(sorted(axis % ndim for axis in axes if -ndim <= axis < ndim))
    if len(set(resolved)) != len(axes) or not resolved:
        raise ValueError(f"axes: expected distinct axes of an array of rank {ndim}, got {axes}")
    return resolved


def _check_not_negative(name: str, value: float | Array) -> None:
    if np.any(value < 0):
        raise ValueError(f"{name}: expected numbers not below 0, got {value}")


def _as_float64(**named: ArrayLike) -> list[Array]:
    """Convert to float64, refusing what has no float64 value."""
    converted = []
    for name, value in named.items():
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
        converted.append(array.astype(np.float64))
    return converted


@dataclass(frozen=True)
class Batch:
    """What the forward pass computed, in the paper's order; the backward pass needs all of it.

    ``batch_mean``, ``batch_var`` (biased) and ``inv_std`` keep the reduced axes as length 1, so
    that they broadcast against ``x``; so do ``gamma`` and ``beta``.

    Parameters
    ----------
    axes
        that share one mean and one variance
    x
        the input
    gamma, beta
        scale and shift
    eps
        ε, added to the variance, inside the root
    batch_mean, batch_var
        of the batch, the latter biased
    inv_std
        1/√(σ²_B + ε)
    x_hat
        x̂, the normalized input
    y
        the output

    Examples
    --------
    >>> batch = forward([[1.0], [3.0]], eps=0.0)
    >>> batch.m, batch.squeeze(batch.batch_mean), batch.x_hat.ravel()
    (2, array([2.]), array([-1.,  1.]))
    """

    axes: tuple[int, ...]
    x: Array
    gamma: Array
    beta: Array
    eps: float
    batch_mean: Array
    batch_var: Array
    inv_std: Array
    x_hat: Array
    y: Array

    @property
    def m(self) -> int:
        """Number of values behind each mean and each variance."""
        return int(np.prod([self.x.shape[axis] for axis in self.axes]))

    def mean(self, values: Array) -> Array:
        """Average over the reduced axes, which stay as length 1."""
        return values.mean(axis=self.axes, keepdims=True)

    def sum(self, values: Array) -> Array:
        """Sum over the reduced axes, which stay as length 1."""
        return values.sum(axis=self.axes, keepdims=True)

    def squeeze(self, per_channel: Array) -> Array:
        """Drop the reduced axes: ``(1, C, 1, 1)`` becomes ``(C,)``."""
        return per_channel.squeeze(axis=self.axes)

    def project(self, values: Array) -> Array:
        """Apply P = I - 11ᵀ/m - x̂x̂ᵀ/m in every channel. Eq. (12) backprop/projector."""
        return values - self.mean(values) - self.x_hat * self.mean(values * self.x_hat)


class Gradients(NamedTuple):
    """Gradients of the loss.

    Parameters
    ----------
    x
        ∂L/∂x, in the shape of the input
    gamma, beta
        ∂L/∂γ and ∂L/∂β, per channel

    Examples
    --------
    >>> backward([[1.0], [1.0]], forward([[1.0], [3.0]])).beta
    array([2.])
    """

    x: Array
    gamma: Array
    beta: Array


class DoubleGradients(NamedTuple):
    """Gradients of a function of :class:`Gradients` with respect to what the backward pass read.

    Parameters
    ----------
    grad_y
        by ∂L/∂y, in the shape of the input
    x
        by x, in the shape of the input
    gamma
        by γ, per channel

    Examples
    --------
    >>> batch = forward([[1.0], [3.0], [8.0]])
    >>> double_backward([[1.0], [0.0], [0.0]], [[0.0], [1.0], [0.0]], batch).x.shape
    (3, 1)
    """

    grad_y: Array
    x: Array
    gamma: Array


def moments(x: ArrayLike, axes: Iterable[int] | None = None) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, by two passes and Björck's correction term.

    Parameters
    ----------
    x
        array of real numbers, any layout
    axes
        axes to reduce; all but axis 1 by default

    Returns
    -------
    batch_mean, batch_var : Array
        float64, in the shape of the axes that are kept

    Raises
    ------
    ValueError
        a rank under 2 without `axes`, repeated or unknown axes, or nothing to average
    TypeError
        complex or non-numeric input

    References
    ----------
    Eq. (1) mini-batch-algorithm/batch-mean, Eq. (2) mini-batch-algorithm/batch-var.

    Examples
    --------
    >>> moments([[1.0, 5.0], [3.0, 5.0]])
    (array([2., 5.]), array([1., 0.]))
    """
    (x64,) = _as_float64(x=x)
    reduced = _resolve_axes(x64.ndim, axes)
    mean, var = _moments(x64, reduced)
    return mean.squeeze(axis=reduced), var.squeeze(axis=reduced)


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    if x.size == 0:
        raise ValueError(f"x: expected at least one value per channel, got shape {x.shape}")
    mean = x.mean(axis=axes, keepdims=True)
    # The rounding error of the mean is itself a mean: add it back.
    mean = mean + (x - mean).mean(axis=axes, keepdims=True)
    centred = x - mean
    var = (centred**2).mean(axis=axes, keepdims=True)
    var = np.maximum(var - centred.mean(axis=axes, keepdims=True) ** 2, 0.0)
    return mean, var


def _per_channel(name: str, value: ArrayLike | None, default: float, like: Array) -> Array:
    """Give `value` the reduced axes as length 1, so that it broadcasts against the input."""
    if value is None:
        return np.full(like.shape, default)
    (array,) = _as_float64(**{name: value})
    if array.size != like.size:
        raise ValueError(
            f"{name}: expected {like.size} values, one per channel, got shape {array.shape}"
        )
    return array.reshape(like.shape)


def forward(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    eps: float = 1e-5,
    axes: Iterable[int] | None = None,
) -> Batch:
    """Algorithm 1, line by line.

    Parameters
    ----------
    x
        array ``(m, C)`` or ``(N, C, *spatial)``
    gamma, beta
        scale and shift per channel; 1 and 0 by default
    eps
        added to the variance, inside the root; not negative
    axes
        axes that share one mean and one variance; all but axis 1 by default

    Returns
    -------
    Batch
        every intermediate value, the result as ``.y``

    Raises
    ------
    ValueError, TypeError
        as :func:`moments`; also a negative `eps` or parameters of another size

    References
    ----------
    Algorithm 1 of the paper; Eqs. (1) to (4) of the chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> forward([[1.0], [3.0]], gamma=[2.0], beta=[10.0], eps=0.0).y
    array([[ 8.],
           [12.]])
    """
    _check_not_negative("eps", eps)
    (x64,) = _as_float64(x=x)
    reduced = _resolve_axes(x64.ndim, axes)
    # Eq. (1) mini-batch-algorithm/batch-mean and Eq. (2) mini-batch-algorithm/batch-var
    batch_mean, batch_var = _moments(x64, reduced)
    gamma64 = _per_channel("gamma", gamma, 1.0, batch_mean)
    beta64 = _per_channel("beta", beta, 0.0, batch_mean)
    # Eq. (3) mini-batch-algorithm/normalize
    with np.errstate(divide="ignore", invalid="ignore"):
        inv_std = 1.0 / np.sqrt(batch_var + eps)
        x_hat = (x64 - batch_mean) * inv_std
    # Eq. (4) mini-batch-algorithm/scale-shift
    y = gamma64 * x_hat + beta64
    return Batch(reduced, x64, gamma64, beta64, eps, batch_mean, batch_var, inv_std, x_hat, y)


def _upstream(name: str, value: ArrayLike, batch: Batch) -> Array:
    (array,) = _as_float64(**{name: value})
    if array.shape != batch.x.shape:
        raise ValueError(
            f"{name}: expected the shape of the input, {batch.x.shape}, got {array.shape}"
        )
    return array


def backward_staged(grad_y: ArrayLike, batch: Batch) -> Gradients:
    """The paper's six equations, one node of the graph at a time.

    Parameters
    ----------
    grad_y
        ∂L/∂y, in the shape of the input
    batch
        what :func:`forward` returned

    References
    ----------
    Section 3 of the paper; Eqs. (2) to (7) of the chapter `backprop`.

    Examples
    --------
    >>> batch = forward([[0.0], [2.0], [4.0]])
    >>> staged, short = (f([[1.0], [0.0], [0.0]], batch) for f in (backward_staged, backward))
    >>> np.allclose(staged.x, short.x, rtol=0.0, atol=1e-15)
    True
    """
    g = _upstream("grad_y", grad_y, batch)
    m, centred = batch.m, batch.x - batch.batch_mean
    # Eq. (2) backprop/grad-x-hat
    grad_x_hat = g * batch.gamma
    # Eq. (3) backprop/grad-var
    grad_var = batch.sum(grad_x_hat * centred) * -0.5 * batch.inv_std**3
    # Eq. (4) backprop/grad-mean
    grad_mean = -batch.sum(grad_x_hat) * batch.inv_std + grad_var * batch.sum(-2.0 * centred) / m
    # Eq. (5) backprop/grad-x
    grad_x = grad_x_hat * batch.inv_std + grad_var * 2.0 * centred / m + grad_mean / m
    # Eq. (6) backprop/grad-gamma
    grad_gamma = batch.sum(g * batch.x_hat)
    # Eq. (7) backprop/grad-beta
    grad_beta = batch.sum(g)
    return Gradients(grad_x, batch.squeeze(grad_gamma), batch.squeeze(grad_beta))


def backward(grad_y: ArrayLike, batch: Batch) -> Gradients:
    """The backward pass in one line: (γ/s)·P·∂L/∂y; the result is that of :func:`backward_staged`.

    Parameters
    ----------
    grad_y
        ∂L/∂y, in the shape of the input
    batch
        what :func:`forward` returned

    References
    ----------
    Eq. (9) backprop/closed-form, exact for every ε.

    Examples
    --------
    >>> batch = forward([[0.0], [0.0], [2.0], [2.0]], eps=0.0)
    >>> backward([[1.0], [0.0], [0.0], [0.0]], batch)
    Gradients(x=array([[ 0.5],
           [-0.5],
           [ 0. ],
           [ 0. ]]), gamma=array([-1.]), beta=array([1.]))
    """
    g = _upstream("grad_y", grad_y, batch)
    return Gradients(
        batch.gamma * batch.inv_std * batch.project(g),
        batch.squeeze(batch.sum(g * batch.x_hat)),
        batch.squeeze(batch.sum(g)),
    )


def jacobian(x: ArrayLike, gamma: float = 1.0, eps: float = 1e-5) -> Array:
    """The m×m matrix J[i, j] = ∂y_i/∂x_j of one channel.

    Parameters
    ----------
    x
        the m values of one channel, shape ``(m,)``
    gamma
        the channel's scale
    eps
        ε, added to the variance, inside the root

    Returns
    -------
    Array
        ``(m, m)``, symmetric

    Raises
    ------
    ValueError
        `x` is not one channel

    References
    ----------
    Eq. (11) backprop/jacobian.

    Examples
    --------
    >>> jacobian([0.0, 0.0, 2.0, 2.0], eps=0.0)
    array([[ 0.5, -0.5,  0. ,  0. ],
           [-0.5,  0.5,  0. ,  0. ],
           [ 0. ,  0. ,  0.5, -0.5],
           [ 0. ,  0. , -0.5,  0.5]])
    """
    (values,) = _as_float64(x=x)
    if values.ndim != 1:
        raise ValueError(f"x: expected one channel's values, shape (m,), got shape {values.shape}")
    batch = forward(values[:, None], eps=eps)
    m, x_hat = values.size, batch.x_hat[:, 0]
    projector = np.eye(m) - np.ones((m, m)) / m - np.outer(x_hat, x_hat) / m
    return gamma * batch.inv_std.item() * projector


def double_backward(
    v_x: ArrayLike,
    grad_y: ArrayLike,
    batch: Batch,
    v_gamma: ArrayLike | None = None,
    v_beta: ArrayLike | None = None,
) -> DoubleGradients:
    """Differentiate the backward pass: gradients of ⟨v_x, ∂L/∂x⟩ + ⟨v_γ, ∂L/∂γ⟩ + ⟨v_β, ∂L/∂β⟩.

    Parameters
    ----------
    v_x
        weight of ∂L/∂x, in the shape of the input
    grad_y
        ∂L/∂y, in the shape of the input
    batch
        what :func:`forward` returned
    v_gamma, v_beta
        weights of ∂L/∂γ and ∂L/∂β, per channel; 0 by default

    Returns
    -------
    DoubleGradients
        with respect to ``grad_y``, ``x`` and ``gamma``

    References
    ----------
    Eqs. (18) to (20) of the chapter `backprop`.

    Examples
    --------
    >>> batch = forward([[0.0], [0.0], [2.0], [2.0]], eps=0.0)
    >>> v = [[1.0], [0.0], [0.0], [0.0]]
    >>> double_backward(v, [[0.0]] * 4, batch).grad_y.ravel()  # the Jacobian's first row
    array([ 0.5, -0.5,  0. ,  0. ])
    """
    v, g = _upstream("v_x", v_x, batch), _upstream("grad_y", grad_y, batch)
    v_gamma64 = _per_channel("v_gamma", v_gamma, 0.0, batch.batch_mean)
    v_beta64 = _per_channel("v_beta", v_beta, 0.0, batch.batch_mean)
    gamma, inv_std, x_hat, m = batch.gamma, batch.inv_std, batch.x_hat, batch.m
    projected_g = batch.project(g)
    # Eq. (18) backprop/double-grad-y
    into_grad_y = gamma * inv_std * batch.project(v) + v_gamma64 * x_hat + v_beta64
    # Eq. (19) backprop/double-gamma
    into_gamma = inv_std * batch.sum(v * projected_g)
    # Eq. (20) backprop/double-x
    mixed = batch.sum(g * x_hat) * v + batch.sum(v * x_hat) * g
    into_x = (
        -gamma * inv_std * into_gamma / m * x_hat
        - gamma * inv_std**2 / m * batch.project(mixed)
        + v_gamma64 * inv_std * projected_g
    )
    return DoubleGradients(into_grad_y, into_x, batch.squeeze(into_gamma))


def population_statistics(
    batches: Iterable[ArrayLike], axes: Iterable[int] | None = None
) -> tuple[Array, Array]:
    """Algorithm 2, lines 8 to 10: E[x] = E_B[μ_B] and Var[x] = m/(m-1)·E_B[σ²_B].

    Parameters
    ----------
    batches
        mini-batches of one size m ≥ 2
    axes
        axes that share one mean and one variance; all but axis 1 by default

    Raises
    ------
    ValueError
        no batch, batches of different sizes, or one value per channel

    References
    ----------
    Eq. (12) mini-batch-algorithm/population.

    Examples
    --------
    >>> population_statistics([[[1.0], [3.0]], [[5.0], [5.0]]])
    (array([3.5]), array([1.]))
    """
    means, variances, sizes = [], [], set()
    for values in batches:
        (x64,) = _as_float64(batches=values)
        mean, var = moments(x64, axes)
        means.append(mean)
        variances.append(var)
        sizes.add(x64.size // mean.size)
    if len(sizes) != 1:
        raise ValueError(f"batches: expected batches of one size, got sizes {sorted(sizes)}")
    m = sizes.pop()
    if m < 2:
        raise ValueError(f"batches: expected at least 2 values per channel, got {m}")
    return np.mean(means, axis=0), m / (m - 1) * np.mean(variances, axis=0)


def inference_affine(
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array]:
    """Algorithm 2, line 11: the two numbers per channel that inference multiplies by and adds.

    Parameters
    ----------
    mean, var
        of the population, per channel
    gamma, beta
        scale and shift per channel; 1 and 0 by default
    eps
        ε, added to the variance, inside the root; not negative

    Returns
    -------
    scale, shift : Array
        y = scale·x + shift

    Raises
    ------
    ValueError
        a negative `var` or `eps`, or parameters of another size

    References
    ----------
    Eq. (13) mini-batch-algorithm/inference.

    Examples
    --------
    >>> inference_affine(mean=[2.0], var=[4.0], gamma=[6.0], beta=[1.0], eps=0.0)
    (array([3.]), array([-5.]))
    """
    mean64, var64 = _as_float64(mean=mean, var=var)
    _check_not_negative("eps", eps)
    _check_not_negative("var", var64)
    gamma64 = _per_channel("gamma", gamma, 1.0, mean64)
    beta64 = _per_channel("beta", beta, 0.0, mean64)
    scale = gamma64 / np.sqrt(var64 + eps)
    return scale, beta64 - scale * mean64


def inference(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    eps: float = 1e-5,
    axes: Iterable[int] | None = None,
) -> Array:
    """Normalize with fixed statistics: each value on its own, whatever else is in the batch.

    Parameters
    ----------
    x
        array ``(m, C)`` or ``(N, C, *spatial)``
    mean, var
        of the population, per channel
    gamma, beta, eps, axes
        as :func:`forward`

    Raises
    ------
    ValueError
        a negative `var` or `eps`, or values of another size

    References
    ----------
    Algorithm 2 of the paper; Eq. (13) mini-batch-algorithm/inference, centred first.

    Examples
    --------
    >>> inference([[3.0]], mean=[2.0], var=[4.0], gamma=[6.0], beta=[1.0], eps=0.0)
    array([[4.]])
    """
    (x64,) = _as_float64(x=x)
    reduced = _resolve_axes(x64.ndim, axes)
    shape = tuple(1 if axis in reduced else size for axis, size in enumerate(x64.shape))
    like = np.empty(shape)
    values: dict[str, Any] = {"mean": mean, "var": var, "gamma": gamma, "beta": beta}
    defaults = {"mean": 0.0, "var": 1.0, "gamma": 1.0, "beta": 0.0}
    mean64, var64, gamma64, beta64 = (
        _per_channel(name, value, defaults[name], like) for name, value in values.items()
    )
    _check_not_negative("eps", eps)
    _check_not_negative("var", var64)
    return gamma64 * (x64 - mean64) / np.sqrt(var64 + eps) + beta64
