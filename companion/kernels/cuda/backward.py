"""The Triton kernels of the backward pass, for statistics of the batch and for fixed ones.

Where the programs of a block meet, :func:`meeting_backward` reads it once, and holds it. A split
one is swept by :func:`part_sums`, and again, from its end, by :func:`project`: what the first sweep
read last is then still in the L2 cache.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arguments import Shares
from .sweeps import held_sums, hold, read_sums, sums_of_all, visit_from_the_end, visit_held
from .tiles import (
    Line,
    added_shares,
    anew,
    block_channels,
    by_lane,
    double,
    line_by_lane,
    on_line,
    parameter,
    part_of_block,
    rounded,
    split,
    store_share,
)

_BITS = ["inv_m_bits", "eps_bits"]


class Input(NamedTuple):
    """What the gradient is computed from, and what of it is written in the same sweep."""

    grad_y: Any
    """Where it is; or the tiles that are held of it."""
    x: Any
    """As `grad_y`."""
    y: Any
    """The activation, if it is not to be recomputed."""
    line: Any
    """That the activation was computed with."""
    grad_x: Any
    grad_residual: Any
    RELU: Any


class Projection(NamedTuple):
    """(γ/s)·(g - ḡ - x̂·mean(g·x̂)), with x̂ = (x - mean)/s."""

    high: Any
    """ḡ, as far as the type of computation holds it; the rest is in the constant of `along`."""
    along: Any
    """x̂·mean(g·x̂), as a line."""
    slope: Any


class Projected(NamedTuple):
    """What :func:`write` needs."""

    source: Any
    """:class:`Input`."""
    projection: Any


@triton.jit
def before_relu(grad, x, given, offsets, mask):
    """The gradient before the ReLU: 0 where the activation is not positive; NaN lets it pass.

    The activation is read, or recomputed from `x` as it was computed, rounding included.
    """
    if given.RELU:
        if given.y is None:
            activation = on_line(x, given.line).to(x.dtype)
        else:
            activation = tl.load(given.y + offsets, mask=mask, other=0.0)
        grad = tl.where(activation.to(given.line.slope.dtype) <= 0.0, 0.0, grad).to(grad.dtype)
    return grad


@triton.jit
def recalled(moments, affine, eps_bits, part, sizes, TILE):
    """Per channel the mean and 1/√(var + ε), and the line that the forward pass computed with."""
    mean, var = parameter(moments.mean, part), parameter(moments.var, part)
    scale = parameter(affine.weight, part)
    shift = parameter(affine.bias, part)
    inv_std = tl.rsqrt(var + double(eps_bits))
    slope = inv_std
    if scale is not None:
        slope *= scale
    return mean, inv_std, line_by_lane(mean, slope, shift, sizes, TILE)


@triton.jit
def store_gradients(gradients, channel, mask, sums, products):
    """∂L/∂β = Σg and ∂L/∂γ = Σg·x̂, in the types of the parameters, where there are any."""
    weight, bias = gradients.weight, gradients.bias
    if bias is not None:
        tl.store(bias + channel, rounded(sums, bias.dtype.element_ty), mask=mask)
    if weight is not None:
        tl.store(weight + channel, rounded(products, weight.dtype.element_ty), mask=mask)


# --- Sums ----------------------------------------------------------------------------------------


@triton.jit
def products_of(grad, x, mask, high):
    """What a tile adds to Σg and to Σg·(x - mean), value by value. A gradient outside is 0."""
    grad = grad.to(high.dtype)
    return grad, tl.where(mask, grad * (x.to(high.dtype) - high), 0.0)


@triton.jit
def products_read(given, offsets, mask):
    """The same of a tile that is still to be read; `given` is an :class:`Input`."""
    x = tl.load(given.x + offsets, mask=mask, other=0.0)
    grad = tl.load(given.grad_y + offsets, mask=mask, other=0.0)
    grad = before_relu(grad, x, given, offsets, mask)
    term, product = products_of(grad, x, mask, given.line.high)
    if given.grad_x is not None:
        tl.store(given.grad_x + offsets, (term * given.line.slope).to(x.dtype), mask=mask)
        if given.grad_residual is not None:
            tl.store(given.grad_residual + offsets, grad, mask=mask)
    return term, product


@triton.jit
def pass_held(given, step, offsets, mask):
    """The gradient before the ReLU of a tile that is held; that of the residual is written."""
    grad = before_relu(given.grad_y[step], given.x[step], given, offsets, mask)
    if given.grad_residual is not None:
        tl.store(given.grad_residual + offsets, grad, mask=mask)
    return grad


@triton.jit
def about_the_mean(sums, products, mean, inv_std, COMPUTE):
    """Σg·x̂ from Σg·(x - mean), whose mean was what the type of computation holds of it."""
    _, low = split(mean, COMPUTE)
    return (products - low * sums) * inv_std


# --- Output --------------------------------------------------------------------------------------


@triton.jit
def projecting(mean, inv_std, line, sums, products, inv_m_bits, sizes, TILE):
    """The :class:`Projection` for Σg and Σg·x̂; both g and x are centred first."""
    inv_m = double(inv_m_bits)
    _, mean_low = split(mean, TILE.COMPUTE)
    grad_high, grad_low = split(sums * inv_m, TILE.COMPUTE)
    along = -inv_std * products * inv_m
    offset = -tl.fma(mean_low, along, grad_low)
    return Projection(
        by_lane(grad_high, sizes, TILE),
        Line(
            line.high,
            by_lane(along.to(TILE.COMPUTE), sizes, TILE),
            by_lane(offset.to(TILE.COMPUTE), sizes, TILE),
        ),
        line.slope,
    )


@triton.jit
def write(grad, x, given, offsets, mask):
    """Project the gradient of a tile and store it; `given` is :class:`Projected`."""
    high, along, slope = given.projection.high, given.projection.along, given.projection.slope
    grad_x = ((grad.to(high.dtype) - high) + on_line(x, along)) * slope
    grad_x = grad_x.to(x.dtype)
    tl.store(given.source.grad_x + offsets, grad_x, mask=mask)
    return grad_x


@triton.jit
def write_held(given, step, offsets, mask):
    grad, x = anew(given.source.grad_y[step]), anew(given.source.x[step])
    return write(grad, x, given, offsets, mask)


@triton.jit
def write_read(given, offsets, mask):
    source = given.source
    x = tl.load(source.x + offsets, mask=mask, other=0.0)
    grad = tl.load(source.grad_y + offsets, mask=mask, other=0.0)
    grad = before_relu(grad, x, source, offsets, mask)
    if source.grad_residual is not None:
        tl.store(source.grad_residual + offsets, grad, mask=mask)
    write(grad, x, given, offsets, mask)


# --- One launch ----------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS)
def meeting_backward(
    grad_y, x, y, moments, affine, shares, arrived, grad_x, grad_residual, gradients,
    inv_m_bits, eps_bits, sizes, TILE: tl.constexpr, RELU: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Both sweeps: between them, a program holds its part of x and of grad_y in registers. 3T.

    The programs of a block's parts meet in between, to add up their shares of the sums.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    index = tl.program_id(0) % shares.parts
    block = (tl.program_id(0) // shares.parts).to(tl.int64)
    part = part_of_block(block, index, sizes, TILE)
    tiles, masks = hold(x, part, sizes, TILE)
    grads, masks = hold(grad_y, part, sizes, TILE)
    mean, inv_std, line = recalled(moments, affine, eps_bits, part, sizes, TILE)
    if RELU:
        source = Input(grads, tiles, y, line, grad_x, grad_residual, RELU)
        grads = visit_held(pass_held, source, part.begin, part, sizes, TILE)
    sums, products = held_sums(products_of, grads, tiles, masks, line.high, sizes, TILE)
    products = about_the_mean(sums, products, mean, inv_std, TILE.COMPUTE)
    sums, products = sums_of_all(sums, products, shares, arrived, part, sizes, TILE, STEP)
    projection = projecting(mean, inv_std, line, sums, products, inv_m_bits, sizes, TILE)
    source = Input(grads, tiles, y, line, grad_x, grad_residual, RELU)
    visit_held(write_held, Projected(source, projection), anew(part.begin), part, sizes, TILE)
    mask = tl.where(part.index == 0, part.exists, False)
    store_gradients(gradients, part.channel, mask, sums, products)


# --- Two launches --------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS[-1:])
def part_sums(
    grad_y, x, y, moments, affine, grad_x, grad_residual, shares,
    eps_bits, sizes, TILE: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """Every part's share of ∂L/∂β = Σg and ∂L/∂γ = Σg·x̂.

    Reads 2T. With fixed statistics grad_x needs no sum: `grad_x` is given then, and written in the
    same sweep, 1T, which completes the backward pass.

    Source: Eqs. (6) and (7) of the chapter `backprop`.
    """
    part = part_of_block(tl.program_id(0).to(tl.int64), tl.program_id(1), sizes, TILE)
    mean, inv_std, line = recalled(moments, affine, eps_bits, part, sizes, TILE)
    source = Input(grad_y, x, y, line, grad_x, grad_residual, RELU)
    sums, products = read_sums(products_read, source, part, sizes, TILE, TILE.COMPUTE)
    products = about_the_mean(sums, products, mean, inv_std, TILE.COMPUTE)
    store_share(Shares(shares, tl.num_programs(1)), part, sizes.C, sums, products)


@triton.jit
def merge_sums(shares, merged, gradients, C, CHANNELS: tl.constexpr, STEP: tl.constexpr):
    """Add up the shares of many parts: the parameters' gradients, and `merged`, of one part."""
    channel, exists = block_channels(tl.program_id(0), C, CHANNELS, CHANNELS)
    sums, products = added_shares(shares, channel, exists, C, CHANNELS, STEP)
    store_gradients(gradients, channel, exists, sums, products)
    if merged is not None:
        tl.store(merged + channel, sums, mask=exists)
        tl.store(merged + C + channel, products, mask=exists)


@triton.jit(do_not_specialize=_BITS)
def project(
    grad_y, x, y, shares, moments, affine, grad_x, grad_residual, gradients,
    inv_m_bits, eps_bits, sizes, TILE: tl.constexpr, RELU: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """grad_x, and the parameters' gradients, from the shares of :func:`part_sums`.

    Reads 2T and writes 1T, in the reverse of that kernel's order.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    part = part_of_block(block, tl.num_programs(1) - 1 - tl.program_id(1), sizes, TILE)
    channel, exists = part.channel, part.exists
    sums, products = added_shares(shares, channel, exists, sizes.C, TILE.CHANNELS, STEP)
    mask = tl.where(part.index == 0, exists, False)
    store_gradients(gradients, channel, mask, sums, products)
    mean, inv_std, line = recalled(moments, affine, eps_bits, part, sizes, TILE)
    projection = projecting(mean, inv_std, line, sums, products, inv_m_bits, sizes, TILE)
    source = Input(grad_y, x, y, line, grad_x, grad_residual, RELU)
    visit_from_the_end(write_read, Projected(source, projection), part, sizes, TILE)
