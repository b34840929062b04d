"""What the Triton kernels of the forward and the backward pass have in common.

The names of sizes are those of :class:`companion.kernels.cuda.plans.Plan`; read that first.

*Precision.* Activations are computed in float32 (in float64 if they are float64), and what there
is one of per channel in float64. In between are sums over a whole batch. A split kernel adds the
few values that a thread loads together in float32, and these sums in float64. On an H100 adding
every value in float64 would take twice the time per addition, which the memory would hide, but
converting every value would come on top, and on most other GPUs float64 is 32 or 64 times slower.

Source: Ioffe & Szegedy (2015), arXiv:1502.03167; chapters `mini-batch-algorithm` and `backprop`.
"""

import triton
import triton.language as tl

# --- Where the values of a program are -----------------------------------------------------------


@triton.jit
def tile(segment, end, block, C, channels, values, pieces, total, LANES, UNIT):
    """Offsets of the tile whose rows are the segments `segment`, and which of them are values."""
    row, piece = segment // pieces, segment % pieces
    # 64 bits: an activation may have more than 2^31 values.
    start = (row.to(tl.int64) * C + block * channels) * values
    width = tl.minimum(channels, C - block * channels) * values
    # The last of the folded rows may be shorter than the others.
    width = tl.minimum(width, total - start)
    # Both are multiples of the unit. This proves it to the compiler, which makes loads as wide as
    # it knows them to be aligned. (A hint, tl.multiple_of, is lost where arithmetic is simplified.)
    start, width = start // UNIT * UNIT, width // UNIT * UNIT
    lane = piece[:, None] * LANES + tl.arange(0, LANES)[None, :]
    return start[:, None] + lane, (segment < end)[:, None] & (lane < width[:, None])


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


@triton.jit
def first_values(x, segment, block, C, channels, run, values, pieces, LANES, CHANNELS):
    """Each channel's value at the beginning of a segment, in float64; NaN and infinity become 0."""
    _, exists = block_channels(block, C, channels, CHANNELS)
    start = ((segment // pieces).to(tl.int64) * C + block * channels) * values
    at = start + segment % pieces * LANES + tl.arange(0, CHANNELS) * run
    return finite_or_zero(tl.load(x + at, mask=exists, other=0.0).to(tl.float64))


@triton.jit
def lane_is_of(run, C, LANES, CHANNELS):
    """Whether a lane, axis 1, belongs to a channel of the block, axis 0."""
    return tl.arange(0, CHANNELS)[:, None] == (tl.arange(0, LANES) // run % C)[None, :]


@triton.jit
def by_channel(values, run, C, LANES, CHANNELS):
    """Add up a tile in each channel of the block: (rows, lanes) → (channels,), float64.

    A column of the tile is added up in the tile's type.
    """
    sums = tl.sum(values, 0).to(tl.float64)
    if CHANNELS != LANES:
        sums = tl.sum(tl.where(lane_is_of(run, C, LANES, CHANNELS), sums[None, :], 0.0), 1)
    return sums


@triton.jit
def by_lane(value, run, C, LANES, CHANNELS):
    """Give every lane its channel's value: (channels,) → (1, lanes), or (1, 1) if all agree."""
    if CHANNELS == 1 or CHANNELS == LANES:
        lanes = value[None, :]
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
def whole(number):
    """A whole number as float64, of shape (1,)."""
    return tl.full((1,), number, tl.float64)


@triton.jit
def is_finite(value):
    return value - value == 0.0


@triton.jit
def finite_or_zero(value):
    return tl.where(is_finite(value), value, 0.0)


@triton.jit
def about(shift, count, sums, squares):
    """Mean and Σ(x - mean)² from Σ(x - shift) and Σ(x - shift)²."""
    offset = sums / count
    spread = squares - sums * offset
    # Not tl.maximum, which would turn NaN into 0.
    return shift + offset, tl.where(spread < 0.0, 0.0, spread)


@triton.jit
def split(value, COMPUTE):
    """A float64 value as the sum of one that the type of computation holds and a float64 rest."""
    high = value.to(COMPUTE)
    return high, value - high.to(tl.float64)


@triton.jit
def scales(var, weight, eps_bits, channel, exists):
    """1/√(var + ε), and the same times the weight."""
    inv_std = 1.0 / tl.sqrt(var + double(eps_bits))
    slope = inv_std
    if weight is not None:
        slope *= tl.load(weight + channel, mask=exists, other=0.0).to(tl.float64)
    return inv_std, slope


@triton.jit
def line(mean, slope, bias, channel, exists, run, C, LANES, CHANNELS, COMPUTE):
    """The line (x - mean)·slope + bias as (x - high)·slope + constant, for :func:`on_line`.

    The mean is subtracted in two parts, as the eager kernels do: first what the type holds, then
    the rest, within the constant. That way a large offset costs no precision.
    """
    high, low = split(mean, COMPUTE)
    constant = -low * slope
    if bias is not None:
        shift = tl.load(bias + channel, mask=exists, other=0.0).to(tl.float64)
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
