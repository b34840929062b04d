"""Batch normalization in plain PyTorch: any device, any floating-point type, differentiable.

Per-channel quantities (mean, variance, the sums of the backward pass) are float64 whatever the
input is: they are tiny, and nearly all that goes wrong in other implementations goes wrong there.
Work on whole activations is done in the input's own type, half precision in float32, and is
rounded to the input's type once, at the end.

Every function here is pure, and made of differentiable operations, so that a backward pass
written with it has a backward pass of its own.

Source: Ioffe & Szegedy (2015), arXiv:1502.03167; chapters `mini-batch-algorithm` and `backprop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .layouts import computed_once, with_layout_of

HALF_PRECISION = (torch.float16, torch.bfloat16)

_Elementwise = Callable[..., Tensor]

# Float64 copies are made of one block at a time: on the CPU a block (2 MB) stays in the cache, on
# other devices the limit only bounds the memory used.
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**24


class OutputGradients(NamedTuple):
    """∂L/∂ of what a batch was turned into; None where nothing depends on it.

    ``y`` has the input's shape and type, ``mean`` and ``var`` are float64, ``(C,)``.
    """

    y: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None


class InputGradients(NamedTuple):
    """Gradients of the loss; None where nobody asked.

    ``x`` has the input's shape, the others one value per channel in float64. ``mean`` and ``var``
    are filled for fixed statistics only.
    """

    x: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None


def reduced_axes(ndim: int) -> tuple[int, ...]:
    """Axes that batch normalization averages over: all but the channels, axis 1."""
    return (0, *range(2, ndim))


def values_per_channel(x: Tensor) -> int:
    """m, the number of values behind each mean: the product of all sizes but axis 1."""
    count = x.shape[0]
    for size in x.shape[2:]:
        count = count * size
    return count


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type activations are computed in: float32 for half precision, else `dtype` itself."""
    return torch.float32 if dtype in HALF_PRECISION else dtype


def _along_channels(value: Tensor, like: Tensor) -> Tensor:
    """View ``(C,)`` as ``(1, C, 1, ...)``, so that it broadcasts against `like`."""
    return value.reshape(1, value.shape[0], *(1,) * (like.ndim - 2))


def _cut(x: Tensor) -> tuple[int, int]:
    """Into how many blocks of bounded size to cut `x`, and along which axis: never the channels."""
    if torch.compiler.is_compiling():
        # The compiler fuses what a block would keep in the cache; a loop would only be unrolled.
        return 1, 0
    count = -(-x.numel() // (_CPU_BLOCK if x.device.type == "cpu" else _DEVICE_BLOCK))
    if x.shape[0] >= count:
        return count, 0
    return count, max(reduced_axes(x.ndim), key=lambda axis: x.shape[axis])


def _blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut tensors of one shape into blocks, see :func:`_cut`."""
    count, axis = _cut(tensors[0])
    if count <= 1:
        return [tensors]
    return zip(*(tensor.chunk(count, axis) for tensor in tensors), strict=True)


def _by_blocks(function: _Elementwise, *tensors: Tensor) -> Tensor:
    """Apply an elementwise function block by block: what lies in between is never whole."""
    results = [function(*parts) for parts in _blocks(*tensors)]
    return results[0] if len(results) == 1 else torch.cat(results, _cut(tensors[0])[1])


def batch_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, in one pass over the data.

    The sums are those of x - shift and its square, in float64. The shift is one of the channel's
    own values, so it lies within √(m-1) standard deviations of the mean (|x̂| ≤ √(m-1)): the
    subtraction below loses at most a factor m of float64's precision, whatever the offset is, and
    its result is not negative. A constant channel has variance 0 exactly. float32 squares, up to
    1e77, do not overflow.

    Parameters
    ----------
    x
        floating-point tensor ``(N, C, *)`` with at least one value per channel

    Returns
    -------
    mean, var : Tensor
        float64, ``(C,)``. A NaN in a channel makes both NaN; an infinity makes the mean infinite
        and the variance NaN.

    References
    ----------
    Eq. (1) mini-batch-algorithm/batch-mean, Eq. (2) mini-batch-algorithm/batch-var.
    """
    axes, m = reduced_axes(x.ndim), values_per_channel(x)
    # Detached: mean and variance do not depend on the shift, nor do their derivatives.
    first = x.detach()[0]
    for _ in x.shape[2:]:
        first = first[:, 0]
    # 0 for what is not finite: NaN is not less than anything.
    finite = torch.where(first.abs() < math.inf, first, torch.zeros_like(first))
    shift = computed_once(finite).to(torch.float64)
    total, squares = torch.zeros_like(shift), torch.zeros_like(shift)
    for (block,) in _blocks(x):
        shifted = block.to(torch.float64) - _along_channels(shift, x)
        total = total + shifted.sum(axes)
        squares = squares + shifted.square().sum(axes)
    offset = total / m
    return shift + offset, squares / m - offset.square()


def inv_std(var: Tensor, eps: float) -> Tensor:
    """1/√(σ² + ε), with ε inside the root, per channel."""
    return (var + eps).rsqrt()


def _split(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Write a float64 value as the sum of one that `dtype` holds and a small float64 one."""
    high = value.to(dtype)
    return high, value - high.to(torch.float64)


def _scale(weight: Tensor | None, inverse: Tensor) -> Tensor:
    return inverse if weight is None else weight.to(torch.float64) * inverse


def _line(centre: Tensor, slope: Tensor, shift: Tensor | None, like: Tensor) -> _Elementwise:
    """The function (x - centre)·slope + shift, in the type of computation.

    The arguments are float64, ``(C,)``. The centre is subtracted in two parts, so that neither a
    large offset nor a centre that falls between two numbers of the input's type costs precision:
    first the part that the type holds, then what is left, small, as part of the shift.
    """
    dtype = compute_dtype(like.dtype)
    high, low = _split(centre, dtype)
    constant = -low * slope if shift is None else shift - low * slope
    high = _along_channels(computed_once(high), like)
    factor = _along_channels(computed_once(slope.to(dtype)), like)
    added = _along_channels(computed_once(constant.to(dtype)), like)
    return lambda x: torch.addcmul(added, x - high, factor)


def normalize(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """(x - mean)/√(var + ε)·weight + bias, centred first.

    Parameters
    ----------
    x
        floating-point tensor ``(N, C, *)``
    mean, var
        statistics, ``(C,)``, float64
    weight, bias
        ``(C,)``, any floating-point type, or None for 1 and 0
    eps
        added to the variance, inside the root

    Returns
    -------
    Tensor
        of the shape, type and memory format of `x`

    References
    ----------
    Eq. (3) mini-batch-algorithm/normalize, Eq. (4) mini-batch-algorithm/scale-shift.
    """
    shift = None if bias is None else bias.to(torch.float64)
    line = _line(mean, _scale(weight, inv_std(var, eps)), shift, x)
    return with_layout_of(x, _by_blocks(lambda part: line(part).to(x.dtype), x))


def moments_with(values: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Σ v and Σ v·(x - mean) per channel, in float64."""
    axes = reduced_axes(x.ndim)
    total, product = torch.zeros_like(mean), torch.zeros_like(mean)
    for v, block in _blocks(values, x):
        v64, centred = v.to(torch.float64), block.to(torch.float64) - _along_channels(mean, x)
        total = total + v64.sum(axes)
        product = product + (v64 * centred).sum(axes)
    return total, product


def batch_backward(
    grads: OutputGradients,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
) -> InputGradients:
    """Gradients of batch normalization whose statistics are those of `x`.

    Parameters
    ----------
    grads
        ∂L/∂ of y and of what :func:`batch_stats` returned
    x, mean, var, weight, eps
        as in :func:`normalize`

    Returns
    -------
    InputGradients
        of `x`, the weight and the bias

    References
    ----------
    Eq. (9) backprop/closed-form, exact for every ε.
    """
    through = _through_statistics(grads, x, mean)
    if grads.y is None:
        if through is None:
            return InputGradients()
        line = through
        grad_x = _by_blocks(lambda part: line(part).to(x.dtype), x)
        return InputGradients(with_layout_of(x, grad_x))
    sums = gradient_sums(grads.y, x, mean, var, eps)
    grad_x = project(grads.y, x, mean, var, weight, eps, sums, values_per_channel(x), through)
    return InputGradients(grad_x, sums[1], sums[0])


def gradient_sums(
    grad_y: Tensor, x: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Σg and Σg·x̂ per channel, float64: the gradients of bias and weight; 0 for an empty `x`."""
    total, product = moments_with(grad_y, x, mean)
    return total, product * inv_std(var, eps)


def project(
    grad_y: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
    sums: tuple[Tensor, Tensor],
    m: int | Tensor,
    through: _Elementwise | None = None,
) -> Tensor:
    """(γ/s)·(g - ḡ - x̂·mean(g·x̂)): the gradient of `x`, given the sums that the means need.

    Parameters
    ----------
    grad_y, x, mean, var, weight, eps
        as in :func:`batch_backward`
    sums
        of :func:`gradient_sums`, over all values that `mean` and `var` are of
    m
        how many these are, per channel; they may be more than `x` holds
    through
        what is added to the result, as a function of `x`

    References
    ----------
    Eq. (9) backprop/closed-form, exact for every ε.
    """
    total, grad_weight = sums
    inverse, dtype = inv_std(var, eps), compute_dtype(x.dtype)
    high, low = _split(total / m, dtype)
    high = _along_channels(computed_once(high), x)
    along = _line(mean, -inverse * grad_weight / m, -low, x)
    slope = _along_channels(computed_once(_scale(weight, inverse).to(dtype)), x)

    def projected(g: Tensor, part: Tensor) -> Tensor:
        # With x̂ = (x - mean)/s.
        grad = (along(part) + (g - high)) * slope
        return (grad if through is None else grad + through(part)).to(x.dtype)

    return with_layout_of(x, _by_blocks(projected, grad_y, x))


def _through_statistics(grads: OutputGradients, x: Tensor, mean: Tensor) -> _Elementwise | None:
    """What reaches `x` through the mean, 1/m each, and through the variance, 2(x - mean)/m."""
    if grads.mean is None and grads.var is None:
        return None
    m = values_per_channel(x)
    slope = torch.zeros_like(mean) if grads.var is None else 2.0 * grads.var / m
    return _line(mean, slope, None if grads.mean is None else grads.mean / m, x)


def fixed_backward(
    grad_y: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
) -> InputGradients:
    """Gradients of :func:`normalize` with statistics that do not depend on `x`.

    Parameters and result as :func:`batch_backward`, with the gradients of `mean` and `var` too.

    Source: derivatives of Eq. (13) mini-batch-algorithm/inference.
    """
    inverse = inv_std(var, eps)
    scale = _scale(weight, inverse)
    total, product = moments_with(grad_y, x, mean)
    slope = _along_channels(computed_once(scale.to(compute_dtype(x.dtype))), x)
    grad_x = _by_blocks(lambda g: (g * slope).to(x.dtype), grad_y)
    return InputGradients(
        x=with_layout_of(x, grad_x),
        weight=product * inverse,
        bias=total,
        mean=-scale * total,
        var=-0.5 * scale * inverse.square() * product,
    )


def batch_stats_tangent(x_tangent: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of :func:`batch_stats` along `x_tangent`: float64, ``(C,)`` each.

    Source: Eq. (1) mini-batch-algorithm/batch-mean, Eq. (2) mini-batch-algorithm/batch-var.
    """
    total, product = moments_with(x_tangent, x, mean)
    m = values_per_channel(x)
    return total / m, 2.0 * product / m


def normalize_tangent(
    tangents: InputGradients,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
) -> Tensor:
    """Derivative of :func:`normalize` along `tangents` of its five tensors, None standing for 0.

    Returns
    -------
    Tensor
        of the shape and type of `x`

    References
    ----------
    Eq. (3) mini-batch-algorithm/normalize, Eq. (4) mini-batch-algorithm/scale-shift.
    """
    inverse = inv_std(var, eps)
    scale = _scale(weight, inverse)
    slope, shift = torch.zeros_like(mean), torch.zeros_like(mean)
    if tangents.weight is not None:
        slope = slope + tangents.weight.to(torch.float64) * inverse
    if tangents.var is not None:
        slope = slope - 0.5 * scale * inverse.square() * tangents.var
    if tangents.bias is not None:
        shift = shift + tangents.bias.to(torch.float64)
    if tangents.mean is not None:
        shift = shift - scale * tangents.mean
    y_tangent = _line(mean, slope, shift, x)(x)
    if tangents.x is not None:
        y_tangent = y_tangent + tangents.x * _along_channels(scale.to(y_tangent.dtype), x)
    return with_layout_of(x, y_tangent.to(x.dtype))
