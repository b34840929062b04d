"""What the Triton kernels of the forward and the backward pass have in common.

The names of sizes are those of :class:`.plans.Sizes`, and those in capitals, which a kernel is
compiled for, of :class:`.arguments.Tile`; read these first.

*Precision.* Activations are computed in float32 (in float64 if they are float64), and what there
is one of per channel in float64. In between are sums over a whole batch. A thread adds up what it
loads together, up to 32 values, in float32, and of one channel these sums in float64. Of several
channels it adds them in float32 too, some dozen of them: a float64 takes two registers, and to
convert a number eight times as long as to add it. What the threads have added is float64.

Source: Ioffe & Szegedy (2015), arXiv:1502.03167; chapters `mini-batch-algorithm` and `backprop`.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

# --- Where the values of a program are -----------------------------------------------------------


class Part(NamedTuple):
    """What one program works on."""

    block: Any
    index: Any
    """Of the part in its block."""
    begin: Any
    """The first segment of the part."""
    end: Any
    """The one after the last."""
    channel: Any
    """The channels of the block."""
    exists: Any
    """Which of them there are."""


@triton.jit
def part_of_block(block, index, sizes, TILE):
    """A part of a block."""
    begin = index * sizes.part
    end = tl.minimum(begin + sizes.part, sizes.segments)
    channel, exists = block_channels(block, sizes.C, sizes.channels, TILE.CHANNELS)
    return Part(block, index, begin, end, channel, exists)


@triton.jit
def block_channels(block, C, channels, CHANNELS):
    """The channels of a block, and which of them exist."""
    index = tl.arange(0, CHANNELS)
    channel = block * channels + index
    return channel, (index < channels) & (channel < C)


@triton.jit
def first_rows(segment, block, sizes, TILE):
    """The rows of the tile that begins with a segment: where each begins, and which piece it is."""
    row = segment + tl.arange(0, TILE.ROWS)
    piece = tl.zeros((TILE.ROWS,), tl.int32)
    at = tl.cast(block * sizes.channels * sizes.row_values, TILE.INDEX)
    if TILE.PIECED:
        # Unsigned: by a number that is not constant, that division is short.
        whole = row.to(tl.uint32) // tl.cast(sizes.pieces, tl.uint32)
        piece = row - whole.to(tl.int32) * sizes.pieces
        row = whole
        at += (piece * TILE.LANES).to(TILE.INDEX)
    row = row.to(TILE.INDEX) * tl.cast(sizes.C, TILE.INDEX) * tl.cast(sizes.row_values, TILE.INDEX)
    return at + row, piece


@triton.jit
def next_rows(at, piece, sizes, TILE, BACK):
    """The rows of the next tile, or of the one before, from those of a tile: without dividing."""
    stride = tl.cast(sizes.C, TILE.INDEX) * tl.cast(sizes.row_values, TILE.INDEX)
    if TILE.PIECED:
        # A tile further is some rows of the activation further, and some pieces. Beyond the last
        # piece of a row, the next one begins `gap` values later.
        pieces = tl.cast(TILE.ROWS, tl.int32) % sizes.pieces
        rows = tl.cast(TILE.ROWS // sizes.pieces, TILE.INDEX)
        step = rows * stride + tl.cast(pieces * TILE.LANES, TILE.INDEX)
        gap = stride - tl.cast(sizes.pieces * TILE.LANES, TILE.INDEX)
        if BACK:
            piece -= pieces
            is_beyond = piece < 0
            piece = tl.where(is_beyond, piece + sizes.pieces, piece)
            at = tl.where(is_beyond, at - gap, at) - step
        else:
            piece += pieces
            is_beyond = piece >= sizes.pieces
            piece = tl.where(is_beyond, piece - sizes.pieces, piece)
            at = tl.where(is_beyond, at + gap, at) + step
    elif BACK:
        at -= TILE.ROWS * stride
    else:
        at += TILE.ROWS * stride
    return at, piece


@triton.jit
def locate(at, piece, left, block, sizes, TILE, IS_WHOLE):
    """Offsets of a tile, and which of them are values: all rows, where it is known to be whole.

    `left` segments are left to the program. Where rows are not exact, some lanes are beyond them.
    """
    # Rows begin at multiples of the unit. This proves it to the compiler, which makes loads as wide
    # as it knows them to be aligned. (A hint, tl.multiple_of, is lost where arithmetic is
    # simplified.)
    lane = tl.arange(0, TILE.LANES)
    offsets = (at // TILE.UNIT * TILE.UNIT)[:, None] + lane[None, :].to(TILE.INDEX)
    mask = tl.full((TILE.ROWS, TILE.LANES), True, tl.int1)
    if not IS_WHOLE:
        mask &= (tl.arange(0, TILE.ROWS) < left)[:, None]
    if not TILE.EXACT:
        channels = tl.minimum(sizes.channels, sizes.C - block * sizes.channels)
        width = (channels * sizes.row_values).to(tl.int32) // TILE.UNIT * TILE.UNIT
        mask &= piece[:, None] * TILE.LANES + lane[None, :] < width
    if TILE.FOLDED:
        # The last row may be shorter than the others.
        mask &= offsets < tl.cast(sizes.total, TILE.INDEX) // TILE.UNIT * TILE.UNIT
    return offsets, mask


@triton.jit
def values_before(segment, sizes, TILE):
    """How many values each channel has in the block's segments before this one: float64."""
    rows = (segment // sizes.pieces).to(tl.int64) * sizes.row_values
    return tl.minimum(rows + segment % sizes.pieces * TILE.LANES, sizes.m).to(tl.float64)


@triton.jit
def anew(values):
    """The same values, of which the compiler knows nothing any more.

    For those that a program holds until it needs them a second time: else the compiler would hold
    what it made of them the first time, in twice as many registers.
    """
    bits: tl.constexpr = values.dtype.primitive_bitwidth
    if bits == 16:
        values = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [values], values.dtype, is_pure=False, pack=2
        )
    elif bits == 32:
        values = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [values], values.dtype, is_pure=False, pack=1
        )
    else:
        values = tl.inline_asm_elementwise(
            "mov.b64 $0, $1;", "=l,l", [values], values.dtype, is_pure=False, pack=1
        )
    return values


@triton.jit
def first_values(x, channel, run, exists):
    """The channels' first values, in float64; NaN and infinity become 0."""
    return finite_or_zero(tl.load(x + channel * run, mask=exists, other=0.0).to(tl.float64))


@triton.jit
def is_lane_of(sizes, TILE):
    """Whether a lane, axis 1, belongs to a channel of the block, axis 0."""
    channel = tl.arange(0, TILE.LANES) // sizes.run % sizes.C
    return tl.arange(0, TILE.CHANNELS)[:, None] == channel[None, :]


@triton.jit
def in_threads(values, TILE):
    """Add up, in the tile's type, what one thread holds of each channel.

    A thread holds `UNIT` neighbouring values of every one of `LOADS` equal pieces of the tile. What
    is added here needs no other thread: a reshape that leaves each value where it is, and sums over
    axes that lie within a thread. If a compiler lays out the tile in another way, the result is the
    same, and slower.
    """
    if TILE.CHANNELS == 1:
        THREADS: tl.constexpr = TILE.ROWS * TILE.LANES // (TILE.LOADS * TILE.UNIT)
        values = tl.reshape(values, (TILE.LOADS, THREADS, TILE.UNIT))
        values = tl.sum(tl.sum(values, 2), 0)
    elif TILE.LOADS > 1:
        values = tl.reshape(values, (TILE.LOADS, TILE.ROWS // TILE.LOADS, TILE.LANES))
        values = tl.sum(values, 0)
    return values


@triton.jit
def no_sums(TILE, COMPUTE):
    """What a thread adds up the results of :func:`in_threads` in; zeros.

    For one channel, one float64. For several, as many numbers, which are float32 then: registers
    are few, and conversions slow.
    """
    dtype: tl.constexpr = tl.float64 if TILE.CHANNELS == 1 else COMPUTE
    return in_threads(tl.zeros((TILE.ROWS, TILE.LANES), dtype), TILE)


@triton.jit
def add_tile(sums, values, TILE):
    """What a thread holds of a tile, added to its :func:`no_sums`."""
    return sums + in_threads(values, TILE).to(sums.dtype)


@triton.jit
def spread(values):
    """The same values, over the threads.

    To the compiler, a sum. Between it and the tiles, layouts do not pass: else every thread would
    compute what belongs to all channels of its lanes, or all tiles change their layout for one row.
    """
    return tl.sum(anew(values)[:, None], 1)


@triton.jit
def by_channel(values, sizes, TILE):
    """Add up the threads' sums, in each channel of the block: (channels,), float64."""
    if TILE.CHANNELS == 1:
        sums = tl.sum(values.to(tl.float64), 0, keep_dims=True)
    else:
        sums = spread(tl.sum(values.to(tl.float64), 0))
        if TILE.CHANNELS != TILE.LANES:
            sums = tl.sum(tl.where(is_lane_of(sizes, TILE), sums[None, :], 0.0), 1)
    return sums


@triton.jit
def by_lane(value, sizes, TILE):
    """Give every lane its channel's value: (channels,) → (1, lanes), or (1, 1) if all agree."""
    if TILE.CHANNELS == 1:
        lanes = value[None, :]
    elif TILE.CHANNELS == TILE.LANES:
        lanes = spread(value)[None, :]
    else:
        lanes = tl.sum(tl.where(is_lane_of(sizes, TILE), value[:, None], 0.0), 0)[None, :]
    return lanes


# --- Arithmetic ----------------------------------------------------------------------------------


@triton.jit
def double(bits):
    """A float64 argument. Triton would make it float32, so it comes as the integer of its bits."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def is_finite(value):
    # Not value - value == 0: where the value is a product, a compiler may fuse the two, and what
    # is left is the rounding error.
    return tl.abs(value) < float("inf")


@triton.jit
def finite_or_zero(value):
    return tl.where(is_finite(value), value, 0.0)


@triton.jit
def trusted(count, sums, squares, exists):
    """Whether float32 sums Σ(x - shift) and Σ(x - shift)² will do, in all channels that exist.

    They do if the squares neither overflowed nor vanished, and if the shift is within 4 standard
    deviations of the mean, or nearly. That is nearly always so.
    """
    in_range = (squares > 1e-30 * count) & is_finite(squares)
    is_near = squares * count <= 16.0 * (squares * count - sums * sums)
    is_constant = (squares == 0.0) & (sums == 0.0)
    return tl.min(((in_range & is_near) | is_constant | (exists == 0)).to(tl.int32), 0) == 1


@triton.jit
def about(shift, inv_m, sums, squares):
    """Mean and variance from Σ(x - shift) and Σ(x - shift)², over the whole batch."""
    offset = sums * inv_m
    var = tl.fma(-offset, offset, squares * inv_m)
    # Not tl.maximum, which would turn NaN into 0.
    return shift + offset, tl.where(var < 0.0, 0.0, var)


@triton.jit
def split(value, COMPUTE):
    """A float64 value as the sum of one that the type of computation holds and a float64 rest."""
    high = value.to(COMPUTE)
    return high, value - high.to(tl.float64)


@triton.jit
def parameter(values, part):
    """Weights, biases or statistics of the block's channels in float64; None if there are none."""
    value = None
    if values is not None:
        value = tl.load(values + part.channel, mask=part.exists, other=0.0).to(tl.float64)
    return value


@triton.jit
def rounded(value, dtype):
    """A float64 value in another type; half precision by way of float32, as PyTorch rounds."""
    if dtype != tl.float64:
        value = value.to(tl.float32)
    return value.to(dtype)


class Line(NamedTuple):
    """(x - high)·slope + constant, for :func:`on_line`: numbers for every lane."""

    high: Any
    slope: Any
    constant: Any


@triton.jit
def line_by_lane(mean, slope, shift, sizes, TILE):
    """The line (x - mean)·slope + shift.

    The mean is subtracted in two parts, as the eager kernels do: first what the type holds, then
    the rest, within the constant. That way a large offset costs no precision.
    """
    high, low = split(mean, TILE.COMPUTE)
    constant = -low * slope
    if shift is not None:
        constant = tl.fma(-low, slope, shift)
    return Line(
        by_lane(high, sizes, TILE),
        by_lane(slope.to(TILE.COMPUTE), sizes, TILE),
        by_lane(constant.to(TILE.COMPUTE), sizes, TILE),
    )


@triton.jit
def on_line(x, line):
    # An explicit fma: forward and backward pass must round alike for the sign of the ReLU.
    return tl.fma(x.to(line.slope.dtype) - line.high, line.slope, line.constant)


# --- What several programs know together ---------------------------------------------------------


@triton.jit
def store_share(shares, part, C, first, second):
    """Two numbers per channel of one part."""
    at = shares.sums + part.index * C + part.channel
    tl.store(at, first, mask=part.exists)
    tl.store(at + shares.parts * C, second, mask=part.exists)


@triton.jit
def added_shares(shares, channel, exists, C, CHANNELS, STEP):
    """Add up both numbers over all parts, in their order."""
    first = tl.zeros((STEP, CHANNELS), tl.float64)
    second = tl.zeros((STEP, CHANNELS), tl.float64)
    for start in range(0, shares.parts, STEP):
        index = start + tl.arange(0, STEP)
        mask = (index < shares.parts)[:, None] & exists[None, :]
        at = shares.sums + index[:, None] * C + channel[None, :]
        # Past the L1 cache, which does not know what other multiprocessors write.
        first += tl.load(at, mask=mask, other=0.0, cache_modifier=".cg")
        second += tl.load(at + shares.parts * C, mask=mask, other=0.0, cache_modifier=".cg")
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def meet(arrived, parts):
    """Wait for the programs of the other parts: what they stored before can be read after.

    `arrived` points to an int32 that was 0. Programs start in the order of their numbers, and a
    plan has far fewer parts than programs run at a time: those that are waited for are running, or
    start as soon as others, which wait for nobody, end. CUDA does not promise that order. All GPUs
    keep it so far, and the scans of NVIDIA's CUB wait for each other in the same trust:
    https://github.com/NVIDIA/cub/issues/245.
    """
    # One thread counts for all: first all of them must have stored.
    tl.debug_barrier()
    here = tl.atomic_add(arrived, 1, sem="release") + 1
    # Past the L1 cache. That is not emptied: nobody has read from it what others write.
    while here < parts:
        here = tl.load(arrived, volatile=True)
    tl.debug_barrier()
