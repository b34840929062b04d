"""The Triton kernels of the backward pass, for statistics of the batch and for fixed ones.

Where the programs of a block meet, :func:`meeting_backward` sweeps it twice. A split one is swept
by :func:`part_sums`, and again, from its end, by :func:`project`: what the first sweep read
last is then still in the L2 cache.
"""

# ruff: noqa: ARG001 (all kernels take the sizes of a plan, whether or not they need each)

import triton
import triton.language as tl

from .tiles import (
    add_tile,
    added_shares,
    block_channels,
    by_channel,
    by_lane,
    double,
    line,
    meet,
    no_sums,
    on_line,
    only_of,
    parameter,
    rounded,
    split,
    store_share,
    tile,
)

_BITS = ["inv_m_bits", "eps_bits"]


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
def recalled(mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE):
    """Per channel the mean and 1/√(var + ε), and the line that the forward pass computed with."""
    batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
    batch_var = tl.load(var + channel, mask=exists, other=0.0)
    scale, shift = parameter(weight, channel, exists), parameter(bias, channel, exists)
    inv_std = tl.rsqrt(batch_var + double(eps_bits))
    slope = inv_std
    if scale is not None:
        slope *= scale
    high, slope, constant = line(batch_mean, slope, shift, run, C, LANES, CHANNELS, COMPUTE)
    return batch_mean, inv_std, high, slope, constant


@triton.jit
def store_gradients(grad_weight, grad_bias, channel, mask, sums, products):
    """∂L/∂β = Σg and ∂L/∂γ = Σg·x̂, in the types of the parameters, where there are any."""
    if grad_bias is not None:
        tl.store(grad_bias + channel, rounded(sums, grad_bias.dtype.element_ty), mask=mask)
    if grad_weight is not None:
        tl.store(grad_weight + channel, rounded(products, grad_weight.dtype.element_ty), mask=mask)


@triton.jit
def projection(mean, inv_std, sums, products, inv_m_bits, run, C, LANES, CHANNELS, COMPUTE):
    """What :func:`projected` subtracts, from Σg and Σg·x̂: ḡ, and x̂·mean(g·x̂) as a line."""
    inv_m = double(inv_m_bits)
    _, mean_low = split(mean, COMPUTE)
    grad_high, grad_low = split(sums * inv_m, COMPUTE)
    along = -inv_std * products * inv_m
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


@triton.jit
def gradient_sums(
    grad_y, x, y, grad_x, grad_residual, batch_mean, inv_std, high, slope, constant,
    begin, end, block, C, channels, run, values, pieces, total,
    RELU, LANES, ROWS, CHANNELS, UNIT, WRAPS, UNROLL, FOLDED, INDEX, COMPUTE,
):  # fmt: skip
    """The first sweep over a part: Σg and Σg·x̂, float64; with fixed statistics also grad_x."""
    sums = no_sums(LANES, ROWS, CHANNELS, UNIT, WRAPS, COMPUTE)
    products = sums
    for start in range(begin, end, ROWS * UNROLL):
        few = tl.zeros((ROWS, LANES), COMPUTE)
        few_products = tl.zeros((ROWS, LANES), COMPUTE)
        for step in tl.static_range(UNROLL):
            segment = start + step * ROWS + tl.arange(0, ROWS)
            at, mask = tile(
                segment, end, block, C, channels, values, pieces, total, LANES, UNIT, FOLDED, INDEX
            )
            x_tile = tl.load(x + at, mask=mask, other=0.0)
            grad = tl.load(grad_y + at, mask=mask, other=0.0).to(COMPUTE)
            grad = before_relu(grad, x_tile, y, at, mask, high, slope, constant, RELU)
            few += grad
            few_products += tl.where(mask, grad * (x_tile.to(COMPUTE) - high), 0.0)
            if grad_x is not None:
                tl.store(grad_x + at, (grad * slope).to(x_tile.dtype), mask=mask)
                if grad_residual is not None:
                    tl.store(grad_residual + at, grad.to(x_tile.dtype), mask=mask)
        sums = add_tile(sums, few, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        products = add_tile(products, few_products, LANES, ROWS, CHANNELS, UNIT, WRAPS)
    sums = by_channel(sums, run, C, LANES, CHANNELS)
    products = by_channel(products, run, C, LANES, CHANNELS)
    # That was about the mean as the type holds it; what it leaves out is known exactly.
    _, low = split(batch_mean, COMPUTE)
    return sums, (products - low * sums) * inv_std


@triton.jit
def project_part(
    grad_y, x, y, grad_x, grad_residual, batch_mean, inv_std, high, slope, constant,
    sums, products, inv_m_bits, begin, end, block, C, channels, run, values, pieces, total,
    RELU, LANES, ROWS, CHANNELS, UNIT, FOLDED, INDEX, COMPUTE,
):  # fmt: skip
    """The second sweep over a part: grad_x, from the last tile to the first."""
    grad_high, along, offset = projection(
        batch_mean, inv_std, sums, products, inv_m_bits, run, C, LANES, CHANNELS, COMPUTE
    )
    for start in range(begin, end, ROWS):
        segment = begin + (end - 1 - start) // ROWS * ROWS + tl.arange(0, ROWS)
        at, mask = tile(
            segment, end, block, C, channels, values, pieces, total, LANES, UNIT, FOLDED, INDEX
        )
        x_tile = tl.load(x + at, mask=mask, other=0.0)
        grad = tl.load(grad_y + at, mask=mask, other=0.0).to(COMPUTE)
        grad = before_relu(grad, x_tile, y, at, mask, high, slope, constant, RELU)
        if grad_residual is not None:
            tl.store(grad_residual + at, grad.to(x_tile.dtype), mask=mask)
        grad = projected(grad, x_tile, high, grad_high, along, offset, slope)
        tl.store(grad_x + at, grad.to(x_tile.dtype), mask=mask)


@triton.jit(do_not_specialize=_BITS)
def meeting_backward(
    grad_y, x, y, mean, var, weight, bias, shares, arrived, parts,
    grad_x, grad_residual, grad_weight, grad_bias, inv_m_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    PHASE: tl.constexpr, RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr, UNIT: tl.constexpr, WRAPS: tl.constexpr, UNROLL: tl.constexpr,
    STEP: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Both sweeps: x and grad_y come from memory once, and the second time from a cache. 3T.

    `PHASE` as in :func:`.forward.meeting_forward`.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    index = tl.program_id(0) % parts
    block = (tl.program_id(0) // parts).to(tl.int64)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    batch_mean, inv_std, high, slope, constant = recalled(
        mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    if PHASE != 2:
        sums, products = gradient_sums(
            grad_y, x, y, None, None, batch_mean, inv_std, high, slope, constant,
            begin, end, block, C, channels, run, values, pieces, total,
            RELU, LANES, ROWS, CHANNELS, UNIT, WRAPS, UNROLL, FOLDED, INDEX, COMPUTE,
        )  # fmt: skip
        if shares is not None:
            store_share(shares, index, parts, channel, exists, C, sums, products)
            if PHASE == 0:
                meet(arrived + block, parts)
    if PHASE != 1:
        if shares is not None:
            sums, products = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
        project_part(
            grad_y, x, y, grad_x, grad_residual, batch_mean, inv_std, high, slope, constant,
            sums, products, inv_m_bits, begin, end, block, C, channels, run, values, pieces, total,
            RELU, LANES, ROWS * UNROLL, CHANNELS, UNIT, FOLDED, INDEX, COMPUTE,
        )  # fmt: skip
        mine = only_of(index == 0, exists)
        store_gradients(grad_weight, grad_bias, channel, mine, sums, products)


@triton.jit(do_not_specialize=_BITS[-1:])
def part_sums(
    grad_y, x, y, mean, var, weight, bias, grad_x, grad_residual, shares, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, WRAPS: tl.constexpr, UNROLL: tl.constexpr, FOLDED: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Every part's share of ∂L/∂β = Σg and ∂L/∂γ = Σg·x̂, into `shares`.

    Reads 2T. With fixed statistics grad_x needs no sum: `grad_x` is given then, and written in the
    same sweep, 1T, which completes the backward pass.

    Source: Eqs. (6) and (7) of the chapter `backprop`.
    """
    block, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    batch_mean, inv_std, high, slope, constant = recalled(
        mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    sums, products = gradient_sums(
        grad_y, x, y, grad_x, grad_residual, batch_mean, inv_std, high, slope, constant,
        begin, end, block, C, channels, run, values, pieces, total,
        RELU, LANES, ROWS, CHANNELS, UNIT, WRAPS, UNROLL, FOLDED, INDEX, COMPUTE,
    )  # fmt: skip
    store_share(shares, index, tl.num_programs(1), channel, exists, C, sums, products)


@triton.jit
def merge_sums(
    shares, parts, merged, grad_weight, grad_bias, C, CHANNELS: tl.constexpr, STEP: tl.constexpr
):
    """Add up the shares of many parts: the parameters' gradients, and `merged`, of one part."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < C
    sums, products = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
    store_gradients(grad_weight, grad_bias, channel, exists, sums, products)
    if merged is not None:
        store_share(merged, 0, 1, channel, exists, C, sums, products)


@triton.jit(do_not_specialize=_BITS)
def project(
    grad_y, x, y, shares, parts, mean, var, weight, bias,
    grad_x, grad_residual, grad_weight, grad_bias, inv_m_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, WRAPS: tl.constexpr, UNROLL: tl.constexpr,
    STEP: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """grad_x, and the parameters' gradients, from the shares of :func:`part_sums`.

    Reads 2T and writes 1T, in the reverse of that kernel's order.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    index = tl.num_programs(1) - 1 - tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    sums, products = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
    mine = only_of(index == 0, exists)
    store_gradients(grad_weight, grad_bias, channel, mine, sums, products)

    batch_mean, inv_std, high, slope, constant = recalled(
        mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    project_part(
        grad_y, x, y, grad_x, grad_residual, batch_mean, inv_std, high, slope, constant,
        sums, products, inv_m_bits, begin, end, block, C, channels, run, values, pieces, total,
        RELU, LANES, ROWS * UNROLL, CHANNELS, UNIT, FOLDED, INDEX, COMPUTE,
    )  # fmt: skip
