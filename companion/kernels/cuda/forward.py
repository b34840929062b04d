"""The Triton kernels of the forward pass: statistics, normalization, running statistics.

A resident block is read once, by :func:`resident_forward`. A split one is read by
:func:`part_moments`, and again, from its end, by :func:`normalize`: what the first sweep read last
is then still in the L2 cache.
"""

# ruff: noqa: ARG001 (all kernels take the sizes of a plan, whether or not they need each)

import triton
import triton.language as tl

from .tiles import (
    about,
    block_channels,
    by_channel,
    by_lane,
    double,
    finite_or_zero,
    first_values,
    is_finite,
    line,
    on_line,
    only_of,
    scales,
    tile,
    values_before,
    whole,
)

_BITS = ["momentum_bits", "eps_bits"]


@triton.jit
def activate(value, residual, at, mask, dtype, RELU):
    """What is stored: add the residual, round to the output's type, then ReLU, which keeps NaN."""
    if residual is not None:
        value += tl.load(residual + at, mask=mask, other=0.0).to(value.dtype)
    y = value.to(dtype)
    if RELU:
        y = tl.where(y.to(value.dtype) <= 0.0, 0.0, y).to(dtype)
    return y


# --- Running statistics --------------------------------------------------------------------------


@triton.jit
def unbiased(var, m):
    return var * (whole(m) / (whole(m) - 1.0))


@triton.jit
def move(running, stride, channel, mask, batch, factor):
    """running ← (1 - factor)·running + factor·batch, kept within the range of its type."""
    dtype: tl.constexpr = running.dtype.element_ty
    at = running + channel.to(tl.int64) * stride
    old = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    moved = (1.0 - factor) * old + factor * batch
    if dtype == tl.float16:
        largest = tl.full((1,), 65504.0, tl.float64)
    elif dtype == tl.bfloat16:
        largest = tl.full((1,), 3.3895313892515355e38, tl.float64)
    elif dtype == tl.float32:
        largest = tl.full((1,), 3.4028234663852886e38, tl.float64)
    else:
        largest = tl.full((1,), 1.7976931348623157e308, tl.float64)
    # A sum that is infinite already comes from an infinite value: that one is passed on.
    inside = tl.minimum(tl.maximum(moved, -largest), largest)
    moved = tl.where(is_finite(moved), inside, moved)
    if dtype != tl.float64:
        # As PyTorch rounds to half precision: by way of float32.
        moved = moved.to(tl.float32)
    tl.store(at, moved.to(dtype), mask=mask)


@triton.jit
def publish(
    mean, var, mean_out, var_out,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
    block, channel, mask, m,
):  # fmt: skip
    """Store a block's statistics and move its running ones; the first block counts the batch."""
    tl.store(mean_out + channel, mean, mask=mask)
    tl.store(var_out + channel, var, mask=mask)
    if running_mean is not None:
        factor = double(momentum_bits)
        move(running_mean, mean_stride, channel, mask, mean, factor)
        move(running_var, var_stride, channel, mask, unbiased(var, m), factor)
    if counter is not None:
        is_first = tl.max(only_of(block == 0, mask).to(tl.int32), 0) == 1
        tl.store(counter, tl.load(counter) + 1, mask=is_first)


@triton.jit(do_not_specialize=["momentum_bits"])
def move_running(
    mean, var,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, C, m,
    CUMULATIVE: tl.constexpr, SKIP_NONFINITE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Move all running statistics by one batch, in one program.

    Needed where the channels depend on each other: if one statistic that is not finite stops all
    updates, or if the momentum comes from the count, which changes here. Otherwise the program
    that knows a channel's statistics moves its running ones, see :func:`publish`.
    """
    factor = double(momentum_bits)
    if CUMULATIVE:
        factor = 1.0 / (tl.load(counter).to(tl.float64) + 1.0)
    nonfinite = 0
    if SKIP_NONFINITE:
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            exists = channel < C
            batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
            batch_var = unbiased(tl.load(var + channel, mask=exists, other=0.0), m)
            both = is_finite(batch_mean) & is_finite(batch_var)
            nonfinite += tl.sum(tl.where(both, 0, 1), 0)
    if running_mean is not None:
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            mask = channel < tl.where(nonfinite == 0, C, 0)
            batch_mean = tl.load(mean + channel, mask=mask, other=0.0)
            batch_var = unbiased(tl.load(var + channel, mask=mask, other=0.0), m)
            move(running_mean, mean_stride, channel, mask, batch_mean, factor)
            move(running_var, var_stride, channel, mask, batch_var, factor)
    if counter is not None:
        tl.store(counter, tl.load(counter) + 1, mask=nonfinite == 0)


# --- Resident blocks -----------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS)
def resident_forward(
    x, residual, y, mean_out, var_out, weight, bias,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Normalize blocks that fit one tile: every value is read once and written once, 2T.

    The sums are shifted by the channel's first value, as in ``eager.batch_stats``, in float64: the
    values are in registers by then, and the arithmetic hides behind the loads of other programs.

    Source: Eqs. (1) to (4) of the chapter `mini-batch-algorithm`.
    """
    block = tl.program_id(0).to(tl.int64)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    segment = tl.arange(0, ROWS)
    at, mask = tile(segment, segments, block, C, channels, values, pieces, total, LANES, UNIT)
    x_tile = tl.load(x + at, mask=mask, other=0.0)

    first = first_values(x, block * 0, block, C, channels, run, values, pieces, LANES, CHANNELS)
    shifted = x_tile.to(tl.float64) - by_lane(first, run, C, LANES, CHANNELS)
    shifted = tl.where(mask, shifted, 0.0)
    sums = by_channel(shifted, run, C, LANES, CHANNELS)
    squares = by_channel(shifted * shifted, run, C, LANES, CHANNELS)
    mean, spread = about(first, whole(m), sums, squares)
    var = spread / whole(m)

    _, scale = scales(var, weight, eps_bits, channel, exists)
    high, slope, constant = line(
        mean, scale, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    value = on_line(x_tile, high, slope, constant)
    tl.store(y + at, activate(value, residual, at, mask, y.dtype.element_ty, RELU), mask=mask)
    publish(
        mean, var, mean_out, var_out,
        running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
        block, channel, exists, m,
    )  # fmt: skip


# --- Split blocks --------------------------------------------------------------------------------


@triton.jit
def shifted_sums(
    x, shift, begin, end, block, C, channels, run, values, pieces, total,
    LANES, ROWS, CHANNELS, UNIT, UNROLL, COMPUTE,
):  # fmt: skip
    """Σ(x - shift) and Σ(x - shift)² over a part, per channel: float64."""
    shift = by_lane(shift.to(COMPUTE), run, C, LANES, CHANNELS)
    sums = tl.zeros((ROWS, LANES), tl.float64)
    squares = tl.zeros((ROWS, LANES), tl.float64)
    for start in range(begin, end, ROWS * UNROLL):
        few = tl.zeros((ROWS, LANES), COMPUTE)
        few_squares = tl.zeros((ROWS, LANES), COMPUTE)
        # Unrolled, so that several independent loads are under way at a time.
        for step in tl.static_range(UNROLL):
            segment = start + step * ROWS + tl.arange(0, ROWS)
            at, mask = tile(segment, end, block, C, channels, values, pieces, total, LANES, UNIT)
            shifted = tl.load(x + at, mask=mask, other=0.0).to(COMPUTE) - shift
            shifted = tl.where(mask, shifted, 0.0)
            few += shifted
            few_squares += shifted * shifted
        sums += few.to(tl.float64)
        squares += few_squares.to(tl.float64)
    return (
        by_channel(sums, run, C, LANES, CHANNELS),
        by_channel(squares, run, C, LANES, CHANNELS),
    )


@triton.jit
def part_moments(
    x, moments,
    C, channels, run, values, pieces, segments, part, m, total,
    LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, UNIT: tl.constexpr,
    UNROLL: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Count, mean and Σ(x - mean)² of every part: `moments`, float64 ``(3, parts, C)``. Reads 1T.

    The sums are shifted by the part's first value. float32 sums are trusted if the squares neither
    overflowed nor vanished, and if the shift is within 8 standard deviations of the mean. That is
    nearly always so. If not, the part is summed again in float64, where any shift will do.
    """
    block, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    count = whole(values_before(end, values, pieces, m, LANES))
    count -= values_before(begin, values, pieces, m, LANES)
    first = first_values(x, begin, block, C, channels, run, values, pieces, LANES, CHANNELS)
    sums, squares = shifted_sums(
        x, first, begin, end, block, C, channels, run, values, pieces, total,
        LANES, ROWS, CHANNELS, UNIT, UNROLL, COMPUTE,
    )  # fmt: skip
    if COMPUTE != tl.float64:  # noqa: SIM300
        _, spread = about(first, count, sums, squares)
        in_range = (squares > 1e-30 * count) & is_finite(squares) & (squares <= 64.0 * spread)
        is_constant = (squares == 0.0) & (sums == 0.0)
        if tl.min((in_range | is_constant | (exists == 0)).to(tl.int32), 0) == 0:
            sums, squares = shifted_sums(
                x, first, begin, end, block, C, channels, run, values, pieces, total,
                LANES, ROWS, CHANNELS, UNIT, 1, tl.float64,
            )  # fmt: skip
    mean, spread = about(first, count, sums, squares)
    parts = tl.num_programs(1)
    at = moments + index * C + channel
    tl.store(at, count + first * 0.0, mask=exists)
    tl.store(at + parts * C, mean, mask=exists)
    tl.store(at + 2 * parts * C, spread, mask=exists)


@triton.jit
def merged_moments(moments, parts, channel, exists, C, CHANNELS, STEP):
    """Mean and variance from the parts' moments, merged by Chan's formula.

    They are added up about the mean of part 0, in float64.

    Source: Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115.
    """
    shift = finite_or_zero(tl.load(moments + parts * C + channel, mask=exists, other=0.0))
    count = tl.zeros((STEP, CHANNELS), tl.float64)
    sums = tl.zeros((STEP, CHANNELS), tl.float64)
    squares = tl.zeros((STEP, CHANNELS), tl.float64)
    for first in range(0, parts, STEP):
        index = first + tl.arange(0, STEP)
        mask = (index < parts)[:, None] & exists[None, :]
        at = moments + index[:, None] * C + channel[None, :]
        part_count = tl.load(at, mask=mask, other=0.0)
        offset = tl.load(at + parts * C, mask=mask, other=0.0) - shift[None, :]
        offset = tl.where(mask, offset, 0.0)
        count += part_count
        sums += part_count * offset
        squares += tl.load(at + 2 * parts * C, mask=mask, other=0.0) + part_count * offset * offset
    count = tl.sum(count, 0)
    mean, spread = about(shift, count, tl.sum(sums, 0), tl.sum(squares, 0))
    return mean, spread / count


@triton.jit(do_not_specialize=["momentum_bits"])
def merge_moments(
    moments, parts, mean, var,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, C, m,
    CHANNELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Mean and variance of every channel from the moments of its parts.

    Where :func:`normalize` can merge as well, it saves this launch.
    """
    block = tl.program_id(0)
    channel, exists = block_channels(block, C, CHANNELS, CHANNELS)
    batch_mean, batch_var = merged_moments(moments, parts, channel, exists, C, CHANNELS, STEP)
    publish(
        batch_mean, batch_var, mean, var,
        running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
        block, channel, exists, m,
    )  # fmt: skip


@triton.jit(do_not_specialize=_BITS)
def normalize(
    x, residual, y, moments, parts, mean, var, weight, bias,
    running_mean, mean_stride, running_var, var_stride, counter, momentum_bits, eps_bits,
    C, channels, run, values, pieces, segments, part, m, total,
    RELU: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    UNIT: tl.constexpr, STEP: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Apply the statistics in `mean` and `var`, or, given `moments`, those that they merge to.

    In the second case `mean` and `var` are outputs. Reads and writes 1T, in the reverse of the
    order of :func:`part_moments`: programs start in the order of their numbers.

    Source: Eqs. (3), (4) and (13) of the chapter `mini-batch-algorithm`.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    index = tl.num_programs(1) - 1 - tl.program_id(1)
    begin = index * part
    end = tl.minimum(begin + part, segments)
    channel, exists = block_channels(block, C, channels, CHANNELS)
    if moments is not None:
        batch_mean, batch_var = merged_moments(moments, parts, channel, exists, C, CHANNELS, STEP)
        publish(
            batch_mean, batch_var, mean, var,
            running_mean, mean_stride, running_var, var_stride, counter, momentum_bits,
            block, channel, only_of(index == 0, exists), m,
        )  # fmt: skip
    else:
        batch_mean = tl.load(mean + channel, mask=exists, other=0.0)
        batch_var = tl.load(var + channel, mask=exists, other=0.0)
    _, scale = scales(batch_var, weight, eps_bits, channel, exists)
    high, slope, constant = line(
        batch_mean, scale, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE
    )
    for start in range(begin, end, ROWS):
        # From the last tile to the first.
        segment = begin + (end - 1 - start) // ROWS * ROWS + tl.arange(0, ROWS)
        at, mask = tile(segment, end, block, C, channels, values, pieces, total, LANES, UNIT)
        value = on_line(tl.load(x + at, mask=mask, other=0.0), high, slope, constant)
        tl.store(y + at, activate(value, residual, at, mask, y.dtype.element_ty, RELU), mask=mask)
