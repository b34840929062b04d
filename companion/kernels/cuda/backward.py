"""The Triton kernels of the backward pass, for statistics of the batch and for fixed ones.

A resident block is read once, by :func:`resident_backward`. A split one is read by
:func:`part_sums`, and again, from its end, by :func:`project`.
"""

# ruff: noqa: ARG001 (all kernels take the sizes of a plan, whether or not they need each)

import triton
import triton.language as tl

from .tiles import (
    block_channels,
    by_channel,
    by_lane,
    line,
    on_line,
    only_of,
    scales,
    split,
    tile,
    whole,
)


@triton.jit
def before_relu(grad, x, y, at, mask, high, slope, constant, RELU):
    """The gradient before the ReLU: 0 where the activation is not positive; NaN lets it pass.

    The activation is read from `y`, or recomputed from `x` as it was computed, rounding included.
    """
    if RELU:
        if y is None:
            activation = on_line(x, high, slope, constant).to(x.dtype)
        else:
            activation = tl.load(y + at, mask=mask, other=0.0)
        grad = tl.where(activation.to(slope.dtype) <= 0.0, 0.0, grad)
    return grad


@triton.jit
def projection(mean, inv_std, sums, products, m, run, C, LANES, CHANNELS, COMPUTE):
    """What :func:`projected` subtracts, from Σg and Σg·x̂: ḡ, and x̂·mean(g·x̂) as a line."""
    _, mean_low = split(mean, COMPUTE)
    grad_high, grad_low = split(sums / whole(m), COMPUTE)
    along = -inv_std * products / whole(m)
    offset = -tl.fma(mean_low, along, grad_low)
    return (
        by_lane(grad_high, run, C, LANES, CHANNELS),
        by_lane(along.to(COMPUTE), run, C, LANES, CHANNELS),
        by_lane(offset.to(COMPUTE), run, C, LANES, CHANNELS),
    )


@triton.jit
def projected(grad, x, high, grad_high, along, offset, slope):
    """(γ/s)·(g - ḡ - x̂·mean(g·x̂)), with x̂ = (x - mean)/s, both centred first."""
    return ((grad - grad_high) + on_line(x, high, along, offset)) * slope


@triton.jit(do_not_specialize=["eps_bits"])
def resident_backward(
    grad_y, x, y, mean, var, weight, bias, grad_x, grad_residual, sums_out, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    BATCH: tl.constexpr, RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr, UNIT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Differentiate blocks that fit one tile: x and grad_y read once, grad_x written once, 3T.

    `BATCH` says whether the statistics are those of `x`, or fixed. `sums_out`, float64 ``(2, C)``,
    receives ∂L/∂β and ∂L/∂γ.

    Source: Eq. (9) backprop/closed-form; Eq. (13) mini-batch-algorithm/inference.
    """
    block = tl.program_id(0).to(tl.int64)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    segment = tl.arange(0, ROWS)
    at, mask = tile(segment, segments, block, C, channels, values, pieces, total, LANES, UNIT)
    x_tile = tl.load(x + at, mask=mask, other=0.0)
    grad = tl.load(grad_y + at, mask=mask, other=0.0).to(COMPUTE)

    batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
    batch_var = tl.load(var + channel, mask=exists, other=0.0)
    inv_std, scale = scales(batch_var, weight, eps_bits, channel, exists)
    high, slope, constant = line(
        batch_mean, scale, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    grad = before_relu(grad, x_tile, y, at, mask, high, slope, constant, RELU)
    if grad_residual is not None:
        tl.store(grad_residual + at, grad.to(x_tile.dtype), mask=mask)

    product = tl.where(mask, grad * (x_tile.to(COMPUTE) - high), 0.0)
    sums = by_channel(grad, run, C, LANES, CHANNELS)
    products = by_channel(product, run, C, LANES, CHANNELS)
    # That was about the mean as the type holds it; what it leaves out is known exactly.
    _, low = split(batch_mean, COMPUTE)
    products = (products - low * sums) * inv_std
    tl.store(sums_out + channel, sums, mask=exists)
    tl.store(sums_out + C + channel, products, mask=exists)

    if BATCH:
        grad_high, along, offset = projection(
            batch_mean, inv_std, sums, products, m, run, C, LANES, CHANNELS, COMPUTE
        )
        grad = projected(grad, x_tile, high, grad_high, along, offset, slope)
    else:
        grad *= slope
    tl.store(grad_x + at, grad.to(x_tile.dtype), mask=mask)


@triton.jit(do_not_specialize=["eps_bits"])
def part_sums(
    grad_y, x, y, mean, var, weight, bias, grad_x, grad_residual, sums_out, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, UNROLL: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Every part's share of ∂L/∂β = Σg and ∂L/∂γ = Σg·x̂: `sums_out`, float64 ``(2, parts, C)``.

    Reads 2T. With fixed statistics grad_x needs no sum: `grad_x` is given then, and written in the
    same sweep, 1T, which completes the backward pass.

    Source: Eqs. (6) and (7) of the chapter `backprop`.
    """
    block, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
    batch_var = tl.load(var + channel, mask=exists, other=0.0)
    inv_std, scale = scales(batch_var, weight, eps_bits, channel, exists)
    high, slope, constant = line(
        batch_mean, scale, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    sums = tl.zeros((ROWS, LANES), tl.float64)
    products = tl.zeros((ROWS, LANES), tl.float64)
    for start in range(begin, end, ROWS * UNROLL):
        few = tl.zeros((ROWS, LANES), COMPUTE)
        few_products = tl.zeros((ROWS, LANES), COMPUTE)
        for step in tl.static_range(UNROLL):
            segment = start + step * ROWS + tl.arange(0, ROWS)
            at, mask = tile(segment, end, block, C, channels, values, pieces, total, LANES, UNIT)
            x_tile = tl.load(x + at, mask=mask, other=0.0)
            grad = tl.load(grad_y + at, mask=mask, other=0.0).to(COMPUTE)
            grad = before_relu(grad, x_tile, y, at, mask, high, slope, constant, RELU)
            few += grad
            few_products += tl.where(mask, grad * (x_tile.to(COMPUTE) - high), 0.0)
            if grad_x is not None:
                tl.store(grad_x + at, (grad * slope).to(x_tile.dtype), mask=mask)
                if grad_residual is not None:
                    tl.store(grad_residual + at, grad.to(x_tile.dtype), mask=mask)
        sums += few.to(tl.float64)
        products += few_products.to(tl.float64)
    share = by_channel(sums, run, C, LANES, CHANNELS)
    product = by_channel(products, run, C, LANES, CHANNELS)
    # As in the kernel above.
    _, low = split(batch_mean, COMPUTE)
    at = sums_out + index * C + channel
    tl.store(at, share, mask=exists)
    tl.store(at + tl.num_programs(1) * C, (product - low * share) * inv_std, mask=exists)


@triton.jit
def merged_sums(sums, parts, channel, exists, C, CHANNELS, STEP):
    """Add up what :func:`part_sums` wrote."""
    total = tl.zeros((STEP, CHANNELS), tl.float64)
    product = tl.zeros((STEP, CHANNELS), tl.float64)
    for first in range(0, parts, STEP):
        index = first + tl.arange(0, STEP)
        mask = (index < parts)[:, None] & exists[None, :]
        at = sums + index[:, None] * C + channel[None, :]
        total += tl.load(at, mask=mask, other=0.0)
        product += tl.load(at + parts * C, mask=mask, other=0.0)
    return tl.sum(total, 0), tl.sum(product, 0)


@triton.jit
def merge_sums(sums, merged, parts, C, CHANNELS: tl.constexpr, STEP: tl.constexpr):
    """Turn the sums of many parts, ``(2, parts, C)``, into those of one, ``(2, 1, C)``."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < C
    total, product = merged_sums(sums, parts, channel, exists, C, CHANNELS, STEP)
    tl.store(merged + channel, total, mask=exists)
    tl.store(merged + C + channel, product, mask=exists)


@triton.jit(do_not_specialize=["eps_bits"])
def project(
    grad_y, x, y, sums, parts, mean, var, weight, bias,
    grad_x, grad_residual, sums_out, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, STEP: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """grad_x from the sums of :func:`part_sums`, which are merged here.

    If there are several, what they merge to goes to `sums_out`.

    Reads 2T and writes 1T, in the reverse of that kernel's order.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    index = tl.num_programs(1) - 1 - tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    share, product = merged_sums(sums, parts, channel, exists, C, CHANNELS, STEP)
    if sums_out is not None:
        mine = only_of(index == 0, exists)
        tl.store(sums_out + channel, share, mask=mine)
        tl.store(sums_out + C + channel, product, mask=mine)

    batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
    batch_var = tl.load(var + channel, mask=exists, other=0.0)
    inv_std, scale = scales(batch_var, weight, eps_bits, channel, exists)
    high, slope, constant = line(
        batch_mean, scale, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    grad_high, along, offset = projection(
        batch_mean, inv_std, share, product, m, run, C, LANES, CHANNELS, COMPUTE
    )
    for start in range(begin, end, ROWS):
        # From the last tile to the first.
        segment = begin + (end - 1 - start) // ROWS * ROWS + tl.arange(0, ROWS)
        at, mask = tile(segment, end, block, C, channels, values, pieces, total, LANES, UNIT)
        x_tile = tl.load(x + at, mask=mask, other=0.0)
        grad = tl.load(grad_y + at, mask=mask, other=0.0).to(COMPUTE)
        grad = before_relu(grad, x_tile, y, at, mask, high, slope, constant, RELU)
        if grad_residual is not None:
            tl.store(grad_residual + at, grad.to(x_tile.dtype), mask=mask)
        grad = projected(grad, x_tile, high, grad_high, along, offset, slope)
        tl.store(grad_x + at, grad.to(x_tile.dtype), mask=mask)
