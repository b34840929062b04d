"""The Triton kernels of the forward pass: statistics and normalization.

Where the programs of a block meet, :func:`meeting_forward` reads it once, and holds it. A split
one is swept by :func:`part_moments`, and again, from its end, by :func:`normalize`: what the first
sweep read last is then still in the L2 cache.

All parts of a channel are summed about the same number, the channel's first value. So their sums
only have to be added.
"""

# ruff: noqa: ARG001 (all kernels take the sizes of a plan, whether or not they need each)

import triton
import triton.language as tl

from .held import held_sums, hold
from .running import publish
from .tiles import (
    about,
    add_tile,
    added_shares,
    anew,
    block_channels,
    by_channel,
    by_lane,
    double,
    first_rows,
    first_values,
    line,
    meet,
    next_rows,
    no_sums,
    on_line,
    only_of,
    parameter,
    store_share,
    tile,
    trusted,
    values_before,
)

_BITS = ["momentum_bits", "correction_bits", "inv_m_bits", "eps_bits"]


@triton.jit
def activate(value, residual, at, mask, dtype, RELU):
    """What is stored: add the residual, round to the output's type, then ReLU, which keeps NaN."""
    if residual is not None:
        value += tl.load(residual + at, mask=mask, other=0.0).to(value.dtype)
    y = value.to(dtype)
    if RELU:
        y = tl.where(y.to(value.dtype) <= 0.0, 0.0, y).to(dtype)
    return y


@triton.jit
def normalizing(mean, var, scale, shift, eps_bits, run, C, LANES, CHANNELS, COMPUTE):
    """The line (x - mean)/√(var + ε)·scale + shift, for :func:`.tiles.on_line`."""
    slope = tl.rsqrt(var + double(eps_bits))
    if scale is not None:
        slope *= scale
    return line(mean, slope, shift, run, C, LANES, CHANNELS, COMPUTE)


# --- Sums ----------------------------------------------------------------------------------------


@triton.jit
def moments_of(values, _values, mask, shift):
    """What a tile adds to Σ(x - shift) and to Σ(x - shift)², value by value."""
    shifted = tl.where(mask, values.to(shift.dtype) - shift, 0.0)
    return shifted, shifted * shifted


@triton.jit
def swept(
    x, shift, begin, end, block, C, channels, run, values, pieces, total,
    LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, WHOLE, FOLDED, INDEX, COMPUTE,
):  # fmt: skip
    """Σ(x - shift) and Σ(x - shift)² over a part, per channel: float64."""
    shift = by_lane(shift.to(COMPUTE), run, C, LANES, CHANNELS)
    sums = no_sums(LANES, ROWS, CHANNELS, UNIT, WRAPS, COMPUTE)
    squares = sums
    at, piece = first_rows(begin, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX)
    for start in range(begin, end, ROWS):
        offsets, mask = tile(
            at, piece, end - start, block, C, channels, values, total,
            LANES, ROWS, UNIT, WHOLE, EXACT, FOLDED, INDEX,
        )  # fmt: skip
        x_tile = tl.load(x + offsets, mask=mask, other=0.0)
        few, few_squares = moments_of(x_tile, x_tile, mask, shift)
        sums = add_tile(sums, few, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        squares = add_tile(squares, few_squares, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
    return (
        by_channel(sums, run, C, LANES, CHANNELS),
        by_channel(squares, run, C, LANES, CHANNELS),
    )


@triton.jit
def repeated_if_needed(
    sums, squares, x, begin, end, block, channel, exists, C, channels, run, values, pieces, m,
    total, LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, WHOLE, FOLDED, INDEX, COMPUTE,
):  # fmt: skip
    """The sums of a part; float32 sums that are not to be trusted are summed again in float64.

    There any shift will do.
    """
    if COMPUTE != tl.float64:  # noqa: SIM300
        count = values_before(end, values, pieces, m, LANES)
        count -= values_before(begin, values, pieces, m, LANES)
        if not trusted(count, sums, squares, exists):
            first = first_values(x, channel, run, exists)
            sums, squares = swept(
                x, first, begin, end, block, C, channels, run, values, pieces, total,
                LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, WHOLE, FOLDED, INDEX, tl.float64,
            )  # fmt: skip
    return sums, squares


# --- One launch ----------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS)
def meeting_forward(
    x, residual, y, shares, arrived, parts, mean_out, var_out, weight, bias,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, correction_bits,
    inv_m_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    PHASE: tl.constexpr, RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr, UNIT: tl.constexpr, WRAPS: tl.constexpr, TILES: tl.constexpr,
    FULL: tl.constexpr, FEW: tl.constexpr, STEP: tl.constexpr, PIECED: tl.constexpr,
    EXACT: tl.constexpr, WHOLE: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Both sweeps: between them, a program holds its part in registers. 2T.

    The programs of a block's parts meet in between, to add up their shares of the sums. `PHASE` is
    0; where programs run one after another, and cannot meet, the kernel runs with 1, which ends
    before they would, and with 2, which begins after.

    Source: Eqs. (1) to (4) of the chapter `mini-batch-algorithm`.
    """
    index = tl.program_id(0) % parts
    block = (tl.program_id(0) // parts).to(tl.int64)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    first = first_values(x, channel, run, exists)
    held, masks = hold(
        x, begin, end, block, C, channels, values, pieces, total,
        LANES, ROWS, UNIT, TILES, FULL, PIECED, EXACT, FOLDED, INDEX,
    )  # fmt: skip
    # Here, to be on their way while the values are summed.
    scale = parameter(weight, channel, exists)
    shift = parameter(bias, channel, exists)
    if PHASE != 2:
        centre = by_lane(first.to(COMPUTE), run, C, LANES, CHANNELS)
        sums, squares = held_sums(
            moments_of, held, held, masks, centre, run, C,
            LANES, ROWS, CHANNELS, UNIT, WRAPS, FEW, TILES, COMPUTE,
        )  # fmt: skip
        sums, squares = repeated_if_needed(
            sums, squares, x, begin, end, block, channel, exists, C, channels, run, values,
            pieces, m, total, LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, False, FOLDED,
            INDEX, COMPUTE,
        )  # fmt: skip
        if shares is not None:
            store_share(shares, index, parts, channel, exists, C, sums, squares)
            if PHASE == 0:
                meet(arrived + block, parts)
    if PHASE != 1:
        if shares is not None:
            sums, squares = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
        mean, var = about(first, double(inv_m_bits), sums, squares)
        high, slope, constant = normalizing(
            mean, var, scale, shift, eps_bits, run, C, LANES, CHANNELS, COMPUTE
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
            value = on_line(anew(held[step]), high, slope, constant)
            value = activate(value, residual, offsets, mask, y.dtype.element_ty, RELU)
            tl.store(y + offsets, value, mask=mask)
            at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
        publish(
            mean, var, mean_out, var_out,
            running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
            correction_bits, block, channel, only_of(index == 0, exists),
        )  # fmt: skip


# --- Two launches --------------------------------------------------------------------------------


@triton.jit
def part_moments(
    x, shares,
    C, channels, run, values, pieces, segments, part, m, total,
    LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, UNIT: tl.constexpr,
    WRAPS: tl.constexpr, PIECED: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr,
    FOLDED: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Every part's share of Σ(x - first) and Σ(x - first)², into `shares`. Reads 1T."""
    block, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    first = first_values(x, channel, run, exists)
    sums, squares = swept(
        x, first, begin, end, block, C, channels, run, values, pieces, total,
        LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, WHOLE, FOLDED, INDEX, COMPUTE,
    )  # fmt: skip
    sums, squares = repeated_if_needed(
        sums, squares, x, begin, end, block, channel, exists, C, channels, run, values, pieces, m,
        total, LANES, ROWS, CHANNELS, UNIT, WRAPS, PIECED, EXACT, WHOLE, FOLDED, INDEX, COMPUTE,
    )  # fmt: skip
    store_share(shares, index, tl.num_programs(1), channel, exists, C, sums, squares)


@triton.jit(do_not_specialize=_BITS[:-1])
def merge_moments(
    x, shares, parts, mean, var,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, correction_bits,
    inv_m_bits, C, run,
    CHANNELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Mean and variance of every channel from the shares of its parts.

    Where :func:`normalize` can merge as well, it saves this launch.
    """
    block = tl.program_id(0).to(tl.int64)
    channel, exists = block_channels(block, C, CHANNELS, CHANNELS)
    first = first_values(x, channel, run, exists)
    sums, squares = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
    batch_mean, batch_var = about(first, double(inv_m_bits), sums, squares)
    publish(
        batch_mean, batch_var, mean, var,
        running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
        correction_bits, block, channel, exists,
    )  # fmt: skip


@triton.jit(do_not_specialize=_BITS)
def normalize(
    x, residual, y, shares, parts, given_mean, given_var, mean, var, weight, bias,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, correction_bits,
    inv_m_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, WRAPS: tl.constexpr, STEP: tl.constexpr, PIECED: tl.constexpr,
    EXACT: tl.constexpr, WHOLE: tl.constexpr, FOLDED: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Apply statistics: those that `shares` add up to; else the given ones; else `mean` and `var`.

    What they are goes to `mean` and `var`. Reads and writes 1T, in the reverse of the order of
    :func:`part_moments`: programs start in the order of their numbers.

    Source: Eqs. (3), (4) and (13) of the chapter `mini-batch-algorithm`.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    index = tl.num_programs(1) - 1 - tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    scale = parameter(weight, channel, exists)
    shift = parameter(bias, channel, exists)
    if shares is not None:
        first = first_values(x, channel, run, exists)
        sums, squares = added_shares(shares, parts, channel, exists, C, CHANNELS, STEP)
        batch_mean, batch_var = about(first, double(inv_m_bits), sums, squares)
    elif given_mean is not None:
        batch_mean = parameter(given_mean, channel, exists)
        batch_var = parameter(given_var, channel, exists)
    else:
        batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
        batch_var = tl.load(var + channel, mask=exists, other=0.0)
    if shares is not None or given_mean is not None:
        publish(
            batch_mean, batch_var, mean, var,
            running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
            correction_bits, block, channel, only_of(index == 0, exists),
        )  # fmt: skip
    high, slope, constant = normalizing(
        batch_mean, batch_var, scale, shift, eps_bits, run, C, LANES, CHANNELS, COMPUTE
    )
    last = begin + (end - 1 - begin) // ROWS * ROWS
    at, piece = first_rows(last, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX)
    for start in range(begin, end, ROWS):
        offsets, mask = tile(
            at, piece, end - begin + start - last, block, C, channels, values, total,
            LANES, ROWS, UNIT, WHOLE, EXACT, FOLDED, INDEX,
        )  # fmt: skip
        value = on_line(tl.load(x + offsets, mask=mask, other=0.0), high, slope, constant)
        value = activate(value, residual, offsets, mask, y.dtype.element_ty, RELU)
        tl.store(y + offsets, value, mask=mask)
        at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, True)
