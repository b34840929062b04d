"""The Triton kernels of the forward pass: statistics and normalization.

Where the programs of a block meet, :func:`meeting_forward` reads it once, and holds it. A split
one is swept by :func:`part_moments`, and again, from its end, by :func:`normalize`: what the first
sweep read last is then still in the L2 cache.

All parts of a channel are summed about the same number, the channel's first value. So their sums
only have to be added.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arguments import Shares
from .running import publish
from .sweeps import held_sums, hold, read_sums, sums_of_all, visit_from_the_end, visit_held
from .tiles import (
    about,
    added_shares,
    anew,
    block_channels,
    by_lane,
    double,
    first_values,
    line_by_lane,
    on_line,
    parameter,
    part_of_block,
    store_share,
    trusted,
    values_before,
)

_BITS = ["momentum_bits", "correction_bits", "inv_m_bits", "eps_bits"]


# --- Sums ----------------------------------------------------------------------------------------


class Shifted(NamedTuple):
    """Values, and what to subtract from each before they are added up."""

    x: Any
    shift: Any


@triton.jit
def moments_of(values, _values, mask, shift):
    """What a tile adds to Σ(x - shift) and to Σ(x - shift)², value by value."""
    shifted = tl.where(mask, values.to(shift.dtype) - shift, 0.0)
    return shifted, shifted * shifted


@triton.jit
def moments_read(given, offsets, mask):
    """The same of a tile that is still to be read; `given` is :class:`Shifted`."""
    values = tl.load(given.x + offsets, mask=mask, other=0.0)
    return moments_of(values, values, mask, given.shift)


@triton.jit
def part_sums(x, first, part, sizes, TILE, COMPUTE):
    """Σ(x - first) and Σ(x - first)² over a part, per channel: float64."""
    shift = by_lane(first.to(COMPUTE), sizes, TILE)
    return read_sums(moments_read, Shifted(x, shift), part, sizes, TILE, COMPUTE)


@triton.jit
def repeated_if_needed(sums, squares, x, part, sizes, TILE):
    """The sums of a part; float32 sums that are not to be trusted are summed again in float64.

    There any shift will do.
    """
    if TILE.COMPUTE != tl.float64:  # noqa: SIM300
        count = values_before(part.end, sizes, TILE) - values_before(part.begin, sizes, TILE)
        if not trusted(count, sums, squares, part.exists):
            first = first_values(x, part.channel, sizes.run, part.exists)
            sums, squares = part_sums(x, first, part, sizes, TILE, tl.float64)
    return sums, squares


# --- Output --------------------------------------------------------------------------------------


class Output(NamedTuple):
    """What is to be written, and from what."""

    x: Any
    """Where it is; or the tiles that are held of it."""
    residual: Any
    y: Any
    line: Any
    RELU: Any


@triton.jit
def normalizing(mean, var, scale, shift, eps_bits, sizes, TILE):
    """The line (x - mean)/√(var + ε)·scale + shift."""
    slope = tl.rsqrt(var + double(eps_bits))
    if scale is not None:
        slope *= scale
    return line_by_lane(mean, slope, shift, sizes, TILE)


@triton.jit
def write(x, given, offsets, mask):
    """Normalize a tile, add the residual, round to the output's type, then ReLU, which keeps NaN.

    `given` is an :class:`Output`.
    """
    value = on_line(x, given.line)
    if given.residual is not None:
        value += tl.load(given.residual + offsets, mask=mask, other=0.0).to(value.dtype)
    y = value.to(given.y.dtype.element_ty)
    if given.RELU:
        y = tl.where(y.to(value.dtype) <= 0.0, 0.0, y).to(y.dtype)
    tl.store(given.y + offsets, y, mask=mask)
    return y


@triton.jit
def write_held(given, step, offsets, mask):
    return write(anew(given.x[step]), given, offsets, mask)


@triton.jit
def write_read(given, offsets, mask):
    write(tl.load(given.x + offsets, mask=mask, other=0.0), given, offsets, mask)


# --- One launch ----------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_BITS)
def meeting_forward(
    x, residual, y, moments, affine, running, shares, arrived,
    momentum_bits, correction_bits, inv_m_bits, eps_bits,
    sizes, TILE: tl.constexpr, RELU: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Both sweeps: between them, a program holds its part in registers. 2T.

    The programs of a block's parts meet in between, to add up their shares of the sums.

    Source: Eqs. (1) to (4) of the chapter `mini-batch-algorithm`.
    """
    index = tl.program_id(0) % shares.parts
    block = (tl.program_id(0) // shares.parts).to(tl.int64)
    part = part_of_block(block, index, sizes, TILE)
    first = first_values(x, part.channel, sizes.run, part.exists)
    tiles, masks = hold(x, part, sizes, TILE)
    # Here, to be on their way while the values are summed.
    scale = parameter(affine.weight, part)
    shift = parameter(affine.bias, part)
    centre = by_lane(first.to(TILE.COMPUTE), sizes, TILE)
    sums, squares = held_sums(moments_of, tiles, tiles, masks, centre, sizes, TILE)
    sums, squares = repeated_if_needed(sums, squares, x, part, sizes, TILE)
    sums, squares = sums_of_all(sums, squares, shares, arrived, part, sizes, TILE, STEP)
    mean, var = about(first, double(inv_m_bits), sums, squares)
    line = normalizing(mean, var, scale, shift, eps_bits, sizes, TILE)
    output = Output(tiles, residual, y, line, RELU)
    visit_held(write_held, output, anew(part.begin), part, sizes, TILE)
    mask = tl.where(part.index == 0, part.exists, False)
    publish(mean, var, moments, running, momentum_bits, correction_bits, block, part.channel, mask)


# --- Two launches --------------------------------------------------------------------------------


@triton.jit
def part_moments(x, shares, sizes, TILE: tl.constexpr):
    """Every part's share of Σ(x - first) and Σ(x - first)². Reads 1T."""
    part = part_of_block(tl.program_id(0).to(tl.int64), tl.program_id(1), sizes, TILE)
    first = first_values(x, part.channel, sizes.run, part.exists)
    sums, squares = part_sums(x, first, part, sizes, TILE, TILE.COMPUTE)
    sums, squares = repeated_if_needed(sums, squares, x, part, sizes, TILE)
    store_share(Shares(shares, tl.num_programs(1)), part, sizes.C, sums, squares)


@triton.jit(do_not_specialize=_BITS[:-1])
def merge_moments(
    x, shares, moments, running, momentum_bits, correction_bits, inv_m_bits, C, run,
    CHANNELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Mean and variance of every channel from the shares of its parts.

    Where :func:`normalize` can merge as well, it saves this launch.
    """
    block = tl.program_id(0).to(tl.int64)
    channel, exists = block_channels(block, C, CHANNELS, CHANNELS)
    first = first_values(x, channel, run, exists)
    sums, squares = added_shares(shares, channel, exists, C, CHANNELS, STEP)
    mean, var = about(first, double(inv_m_bits), sums, squares)
    publish(mean, var, moments, running, momentum_bits, correction_bits, block, channel, exists)


@triton.jit(do_not_specialize=_BITS)
def normalize(
    x, residual, y, shares, given, moments, affine, running,
    momentum_bits, correction_bits, inv_m_bits, eps_bits,
    sizes, TILE: tl.constexpr, RELU: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Apply statistics: what `shares` add up to; else the `given` ones; else those in `moments`.

    What they are goes to `moments`. Reads and writes 1T, in the reverse of the order of
    :func:`part_moments`: programs start in the order of their numbers.

    Source: Eqs. (3), (4) and (13) of the chapter `mini-batch-algorithm`.
    """
    block = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    part = part_of_block(block, tl.num_programs(1) - 1 - tl.program_id(1), sizes, TILE)
    channel, exists = part.channel, part.exists
    scale = parameter(affine.weight, part)
    shift = parameter(affine.bias, part)
    if shares.sums is not None:
        first = first_values(x, channel, sizes.run, exists)
        sums, squares = added_shares(shares, channel, exists, sizes.C, TILE.CHANNELS, STEP)
        mean, var = about(first, double(inv_m_bits), sums, squares)
    elif given.mean is not None:
        mean, var = parameter(given.mean, part), parameter(given.var, part)
    else:
        mean, var = parameter(moments.mean, part), parameter(moments.var, part)
    if shares.sums is not None or given.mean is not None:
        mask = tl.where(part.index == 0, exists, False)
        publish(mean, var, moments, running, momentum_bits, correction_bits, block, channel, mask)
    line = normalizing(mean, var, scale, shift, eps_bits, sizes, TILE)
    visit_from_the_end(write_read, Output(x, residual, y, line, RELU), part, sizes, TILE)
