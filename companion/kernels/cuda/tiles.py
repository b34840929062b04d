"""What the Triton kernels of the forward and the backward pass have in common.

The names of sizes are those of :class:`companion.kernels.cuda.plans.Plan`; read that first.
Besides, a tile takes every thread `WRAPS` loads of `UNIT` values. `PIECED`: a block's row has
several segments. `WHOLE`: every part consists of whole tiles. Where programs hold their part,
`FULL` of its `TILES` are whole in every part, and `FEW` at a time are added up in float32.

*Precision.* Activations are computed in float32 (in float64 if they are float64), and what there
is one of per channel in float64. In between are sums over a whole batch. A thread adds up what it
loads together, up to 32 values, in float32, and of one channel these sums in float64. Of several
channels it adds them in float32 too, some dozen of them: a float64 takes two registers, and to
convert a number eight times as long as to add it. What the threads have added is float64.

Source: Ioffe & Szegedy (2015), arXiv:1502.03167; chapters `mini-batch-algorithm` and `backprop`.
"""

import triton
import triton.language as tl

# --- Where the values of a program are -----------------------------------------------------------


@triton.jit
def first_rows(segment, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX):
    """The rows of the tile that begins with a segment: where each begins, and which piece it is."""
    row = segment + tl.arange(0, ROWS)
    piece = tl.zeros((ROWS,), tl.int32)
    at = tl.cast(block * channels * values, INDEX)
    if PIECED:
        # Unsigned: by a number that is not constant, that division is short.
        whole = row.to(tl.uint32) // tl.cast(pieces, tl.uint32)
        piece = row - whole.to(tl.int32) * pieces
        row = whole
        at += (piece * LANES).to(INDEX)
    return at + row.to(INDEX) * tl.cast(C, INDEX) * tl.cast(values, INDEX), piece


@triton.jit
def next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, BACK):
    """The rows of the next tile, or of the one before, from those of a tile: without dividing."""
    stride = tl.cast(C, INDEX) * tl.cast(values, INDEX)
    if PIECED:
        rest = tl.cast(ROWS, tl.int32) % pieces
        step = tl.cast(ROWS // pieces, INDEX) * stride + tl.cast(rest * LANES, INDEX)
        turn = stride - tl.cast(pieces * LANES, INDEX)
        if BACK:
            piece -= rest
            wraps = piece < 0
            piece = tl.where(wraps, piece + pieces, piece)
            at = tl.where(wraps, at - turn, at) - step
        else:
            piece += rest
            wraps = piece >= pieces
            piece = tl.where(wraps, piece - pieces, piece)
            at = tl.where(wraps, at + turn, at) + step
    elif BACK:
        at -= ROWS * stride
    else:
        at += ROWS * stride
    return at, piece


@triton.jit
def tile(
    at, piece, left, block, C, channels, values, total,
    LANES, ROWS, UNIT, FULL, EXACT, FOLDED, INDEX,
):  # fmt: skip
    """Offsets of a tile, and which of them are values: all, where it is known to be full.

    `left` segments are left to the program. Where rows are not exact, some lanes are beyond them.
    """
    # Rows begin at multiples of the unit. This proves it to the compiler, which makes loads as wide
    # as it knows them to be aligned. (A hint, tl.multiple_of, is lost where arithmetic is
    # simplified.)
    offsets = (at // UNIT * UNIT)[:, None] + tl.arange(0, LANES)[None, :].to(INDEX)
    mask = tl.full((ROWS, LANES), True, tl.int1)
    if not FULL:
        mask &= (tl.arange(0, ROWS) < left)[:, None]
    if not EXACT:
        width = (tl.minimum(channels, C - block * channels) * values).to(tl.int32) // UNIT * UNIT
        mask &= piece[:, None] * LANES + tl.arange(0, LANES)[None, :] < width
    if FOLDED:
        # The last row may be shorter than the others.
        mask &= offsets < tl.cast(total, INDEX) // UNIT * UNIT
    return offsets, mask


@triton.jit
def values_before(segment, values, pieces, m, LANES):
    """How many values each channel has in the block's segments before this one: float64."""
    before = (segment // pieces).to(tl.int64) * values + segment % pieces * LANES
    return tl.minimum(before, m).to(tl.float64)


@triton.jit
def block_channels(block, C, channels, CHANNELS):
    """The channels of a block, and which of them exist."""
    index = tl.arange(0, CHANNELS)
    channel = block * channels + index
    return channel, (index < channels) & (channel < C)


@triton.jit
def only_of(condition, mask):
    """The mask if a scalar condition holds. Some interpreters lose the type of ``&`` with it."""
    return tl.where(condition, mask.to(tl.int32), 0) == 1


_COMPILES = tl.constexpr(isinstance(only_of, triton.JITFunction))


@triton.jit
def anew(values):
    """The same values, of which the compiler knows nothing any more.

    For those that a program holds until it needs them a second time: else the compiler would hold
    what it made of them the first time, in twice as many registers.
    """
    if _COMPILES:
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
def lane_is_of(run, C, LANES, CHANNELS):
    """Whether a lane, axis 1, belongs to a channel of the block, axis 0."""
    return tl.arange(0, CHANNELS)[:, None] == (tl.arange(0, LANES) // run % C)[None, :]


@triton.jit
def in_threads(values, LANES, ROWS, CHANNELS, UNIT, WRAPS):
    """Add up, in the tile's type, what one thread holds of each channel.

    A thread holds `UNIT` neighbouring values of every one of `WRAPS` equal pieces of the tile. What
    is added here needs no other thread: a reshape that leaves each value where it is, and sums over
    axes that lie within a thread. If a compiler lays out the tile in another way, the result is the
    same, and slower.
    """
    if CHANNELS == 1:
        values = tl.reshape(values, (WRAPS, ROWS * LANES // (WRAPS * UNIT), UNIT))
        values = tl.sum(tl.sum(values, 2), 0)
    elif WRAPS > 1:
        values = tl.sum(tl.reshape(values, (WRAPS, ROWS // WRAPS, LANES)), 0)
    return values


@triton.jit
def no_sums(LANES, ROWS, CHANNELS, UNIT, WRAPS, COMPUTE):
    """What a thread adds up the results of :func:`in_threads` in; zeros.

    For one channel, one float64. For several, as many numbers, which are float32 then: registers
    are few, and conversions slow.
    """
    dtype: tl.constexpr = tl.float64 if CHANNELS == 1 else COMPUTE
    return in_threads(tl.zeros((ROWS, LANES), dtype), LANES, ROWS, CHANNELS, UNIT, WRAPS)


@triton.jit
def add_tile(sums, values, LANES, ROWS, CHANNELS, UNIT, WRAPS):
    """What a thread holds of a tile, added to its :func:`no_sums`."""
    return sums + in_threads(values, LANES, ROWS, CHANNELS, UNIT, WRAPS).to(sums.dtype)


@triton.jit
def spread(values):
    """The same values, over the threads.

    To the compiler, a sum. Between it and the tiles, layouts do not pass: else every thread would
    compute what belongs to all channels of its lanes, or all tiles change their layout for one row.
    """
    return tl.sum(anew(values)[:, None], 1)


@triton.jit
def by_channel(values, run, C, LANES, CHANNELS):
    """Add up the threads' sums, in each channel of the block: (channels,), float64."""
    if CHANNELS == 1:
        sums = tl.sum(values.to(tl.float64), 0, keep_dims=True)
    else:
        sums = spread(tl.sum(values.to(tl.float64), 0))
        if CHANNELS != LANES:
            sums = tl.sum(tl.where(lane_is_of(run, C, LANES, CHANNELS), sums[None, :], 0.0), 1)
    return sums


@triton.jit
def by_lane(value, run, C, LANES, CHANNELS):
    """Give every lane its channel's value: (channels,) → (1, lanes), or (1, 1) if all agree."""
    if CHANNELS == 1:
        lanes = value[None, :]
    elif CHANNELS == LANES:
        lanes = spread(value)[None, :]
    else:
        is_of = lane_is_of(run, C, LANES, CHANNELS)
        lanes = tl.sum(tl.where(is_of, value[:, None], 0.0), 0)[None, :]
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
def parameter(values, channel, exists):
    """Weights or biases in float64; None if there are none."""
    found = None
    if values is not None:
        found = tl.load(values + channel, mask=exists, other=0.0).to(tl.float64)
    return found


@triton.jit
def rounded(value, dtype):
    """A float64 value in another type; half precision by way of float32, as PyTorch rounds."""
    if dtype != tl.float64:
        value = value.to(tl.float32)
    return value.to(dtype)


@triton.jit
def line(mean, slope, shift, run, C, LANES, CHANNELS, COMPUTE):
    """The line (x - mean)·slope + shift as (x - high)·slope + constant, for :func:`on_line`.

    The mean is subtracted in two parts, as the eager kernels do: first what the type holds, then
    the rest, within the constant. That way a large offset costs no precision.
    """
    high, low = split(mean, COMPUTE)
    constant = -low * slope
    if shift is not None:
        constant = tl.fma(-low, slope, shift)
    return (
        by_lane(high, run, C, LANES, CHANNELS),
        by_lane(slope.to(COMPUTE), run, C, LANES, CHANNELS),
        by_lane(constant.to(COMPUTE), run, C, LANES, CHANNELS),
    )


@triton.jit
def on_line(x, high, slope, constant):
    # An explicit fma: forward and backward pass must round alike for the sign of the ReLU.
    return tl.fma(x.to(slope.dtype) - high, slope, constant)


# --- What several programs know together ---------------------------------------------------------


@triton.jit
def store_share(shares, index, parts, channel, exists, C, first, second):
    """Two numbers per channel of one part: `shares` is float64 ``(2, parts, C)``."""
    at = shares + index * C + channel
    tl.store(at, first, mask=exists)
    tl.store(at + parts * C, second, mask=exists)


@triton.jit
def added_shares(shares, parts, channel, exists, C, CHANNELS, STEP):
    """Add up both numbers over all parts, in their order."""
    first = tl.zeros((STEP, CHANNELS), tl.float64)
    second = tl.zeros((STEP, CHANNELS), tl.float64)
    for start in range(0, parts, STEP):
        index = start + tl.arange(0, STEP)
        mask = (index < parts)[:, None] & exists[None, :]
        at = shares + index[:, None] * C + channel[None, :]
        # Past the L1 cache, which does not know what other multiprocessors write.
        first += tl.load(at, mask=mask, other=0.0, cache_modifier=".cg")
        second += tl.load(at + parts * C, mask=mask, other=0.0, cache_modifier=".cg")
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
