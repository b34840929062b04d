"""The Triton kernels of the backward pass, for statistics of the batch and for fixed ones.

Where the programs of a block meet, :func:`meeting_backward` reads it once, and holds it. A split
one is swept by :func:`part_sums`, and again, from its end, by :func:`project`: what the first sweep
read last is then still in the L2 cache.
"""

# ruff: noqa: ARG001 (all kernels take the sizes of a plan, whether or not they need each)

import triton
import triton.language as tl

from .held import held_sums, hold
from .tiles import (
    add_tile,
    added_shares,
    anew,
    block_channels,
    by_channel,
    by_lane,
    double,
    first_rows,
    line,
    meet,
    next_rows,
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
        grad = tl.where(activation.to(slope.dtype) <= 0.0, 0.0, grad).to(grad.dtype)
    return grad


@triton.jit
def recalled(mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE):
    """Per channel the mean and 1/√(var + ε), and the line that the forward pass computed with."""
    batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
    batch_var = tl.load(var + channel, mask=exists, other=0.0)
    scale = parameter(weight, channel, exists)
    shift = parameter(bias, channel, exists)
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
def products_of(grad, x, mask, high):
    """What a tile adds to Σg and to Σg·(x - mean), value by value. A gradient outside is 0."""
    grad = grad.to(high.dtype)
    return grad, tl.where(mask, grad * (x.to(high.dtype) - high), 0.0)


@triton.jit
def projected(grad, x, high, grad_high, along, offset, slope):
    """(γ/s)·(g - ḡ - x̂·mean(g·x̂)), with x̂ = (x - mean)/s, both centred first."""
    return ((grad.to(high.dtype) - grad_high) + on_line(x, high, along, offset)) * slope


@triton.jit
def about_the_mean(sums, products, batch_mean, inv_std, COMPUTE):
    """Σg·x̂ from Σg·(x - mean), whose mean was what the type of computation holds of it."""
    _, low = split(batch_mean, COMPUTE)
    return (products - low * sums) * inv_std


# --- One launch ----------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS)
def meeting_backward(
    grad_y, x, y, mean, var, weight, bias, shares, arrived, parts,
    grad_x, grad_residual, grad_weight, grad_bias, inv_m_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    PHASE: tl.constexpr, RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr, UNIT: tl.constexpr, WRAPS: tl.constexpr, TILES: tl.constexpr,
    FULL: tl.constexpr, FEW: tl.constexpr, STEP: tl.constexpr, PIECED: tl.constexpr,
    EXACT: tl.constexpr, WHOLE: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Both sweeps: between them, a program holds its part of x and of grad_y in registers. 3T.

    `PHASE` as in :func:`.forward.meeting_forward`.

    Source: Eq. (9) backprop/closed-form, exact for every ε.
    """
    index = tl.program_id(0) % parts
    block = (tl.program_id(0) // parts).to(tl.int64)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    held, masks = hold(
        x, begin, end, block, C, channels, values, pieces, total,
        LANES, ROWS, UNIT, TILES, FULL, PIECED, EXACT, FOLDED, INDEX,
    )  # fmt: skip
    held_grad, masks = hold(
        grad_y, begin, end, block, C, channels, values, pieces, total,
        LANES, ROWS, UNIT, TILES, FULL, PIECED, EXACT, FOLDED, INDEX,
    )  # fmt: skip
    batch_mean, inv_std, high, slope, constant = recalled(
        mean, var, weight, bias, eps_bits, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    if RELU:
        at, piece = first_rows(
            begin, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX
        )
        passed = ()
        for step in tl.static_range(TILES):
            offsets, mask = tile(
                at, piece, end - begin - step * ROWS, block, C, channels, values, total,
                LANES, ROWS, UNIT, step < FULL, EXACT, FOLDED, INDEX,
            )  # fmt: skip
            grad = before_relu(
                held_grad[step], held[step], y, offsets, mask, high, slope, constant, RELU
            )
            if grad_residual is not None:
                tl.store(grad_residual + offsets, grad, mask=mask)
            passed += (grad,)
            at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
        held_grad = passed
    if PHASE != 2:
        sums, products = held_sums(
            products_of, held_grad, held, masks, high, run, C,
            LANES, ROWS, CHANNELS, UNIT, WRAPS, FEW, TILES, COMPUTE,
        )  # fmt: skip
        products = about_the_mean(sums, products, batch_mean, inv_std, COMPUTE)
        if shares is not None:
            store_share(shares, index, parts, channel, exists, C, sums, products)
            if PHASE == 0:
                meet(arrived + block, parts)
    if PHASE != 1:
        if shares is not None:
            sums, products = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
        grad_high, along, offset = projection(
            batch_mean, inv_std, sums, products, inv_m_bits, run, C, LANES, CHANNELS, COMPUTE
        )
        # As if it were another: the compiler would hold all offsets, too.
        begin = anew(begin)
        at, piece = first_rows(
            begin, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX
        )
        for step in tl.static_range(TILES):
            offsets, mask = tile(
                at, piece, end - begin - step * ROWS, block, C, channels, values, total,
                LANES, ROWS, UNIT, step < FULL, EXACT, FOLDED, INDEX,
            )  # fmt: skip
            grad, x_tile = anew(held_grad[step]), anew(held[step])
            grad = projected(grad, x_tile, high, grad_high, along, offset, slope)
            tl.store(grad_x + offsets, grad.to(x_tile.dtype), mask=mask)
            at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
        mine = only_of(index == 0, exists)
        store_gradients(grad_weight, grad_bias, channel, mine, sums, products)


# --- Two launches --------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS[-1:])
def part_sums(
    grad_y, x, y, mean, var, weight, bias, grad_x, grad_residual, shares, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, WRAPS: tl.constexpr, PIECED: tl.constexpr, EXACT: tl.constexpr,
    WHOLE: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
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
    sums = no_sums(LANES, ROWS, CHANNELS, UNIT, WRAPS, COMPUTE)
    products = sums
    at, piece = first_rows(begin, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX)
    for start in range(begin, end, ROWS):
        offsets, mask = tile(
            at, piece, end - start, block, C, channels, values, total,
            LANES, ROWS, UNIT, WHOLE, EXACT, FOLDED, INDEX,
        )  # fmt: skip
        x_tile = tl.load(x + offsets, mask=mask, other=0.0)
        grad = tl.load(grad_y + offsets, mask=mask, other=0.0)
        grad = before_relu(grad, x_tile, y, offsets, mask, high, slope, constant, RELU)
        few, few_products = products_of(grad, x_tile, mask, high)
        if grad_x is not None:
            tl.store(grad_x + offsets, (few * slope).to(x_tile.dtype), mask=mask)
            if grad_residual is not None:
                tl.store(grad_residual + offsets, grad, mask=mask)
        sums = add_tile(sums, few, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        products = add_tile(products, few_products, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
    sums = by_channel(sums, run, C, LANES, CHANNELS)
    products = by_channel(products, run, C, LANES, CHANNELS)
    products = about_the_mean(sums, products, batch_mean, inv_std, COMPUTE)
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
    UNIT: tl.constexpr, WRAPS: tl.constexpr, STEP: tl.constexpr, PIECED: tl.constexpr,
    EXACT: tl.constexpr, WHOLE: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
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
    grad_high, along, offset = projection(
        batch_mean, inv_std, sums, products, inv_m_bits, run, C, LANES, CHANNELS, COMPUTE
    )
    last = begin + (end - 1 - begin) // ROWS * ROWS
    at, piece = first_rows(last, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX)
    for start in range(begin, end, ROWS):
        offsets, mask = tile(
            at, piece, end - begin + start - last, block, C, channels, values, total,
            LANES, ROWS, UNIT, WHOLE, EXACT, FOLDED, INDEX,
        )  # fmt: skip
        x_tile = tl.load(x + offsets, mask=mask, other=0.0)
        grad = tl.load(grad_y + offsets, mask=mask, other=0.0)
        grad = before_relu(grad, x_tile, y, offsets, mask, high, slope, constant, RELU)
        if grad_residual is not None:
            tl.store(grad_residual + offsets, grad, mask=mask)
        grad = projected(grad, x_tile, high, grad_high, along, offset, slope)
        tl.store(grad_x + offsets, grad.to(x_tile.dtype), mask=mask)
        at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, True)
