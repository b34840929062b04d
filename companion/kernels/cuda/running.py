"""Running statistics, in Triton: moved by the program that knows a batch's, or all in one.

Source: Ioffe & Szegedy (2015), section 3.1; chapter `mini-batch-algorithm`.
"""

import triton
import triton.language as tl

from .tiles import double, is_finite, rounded


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
    tl.store(at, rounded(moved, dtype), mask=mask)


@triton.jit
def publish(mean, var, moments, running, momentum_bits, correction_bits, block, channel, mask):
    """Store a block's statistics and move its running ones; the first block counts the batch."""
    tl.store(moments.mean + channel, mean, mask=mask)
    tl.store(moments.var + channel, var, mask=mask)
    if running.mean is not None:
        factor = double(momentum_bits)
        unbiased = var * double(correction_bits)
        move(running.mean, running.mean_stride, channel, mask, mean, factor)
        move(running.var, running.var_stride, channel, mask, unbiased, factor)
    if running.counter is not None:
        is_first = tl.max(tl.where(block == 0, mask, False).to(tl.int32), 0) == 1
        tl.store(running.counter, tl.load(running.counter) + 1, mask=is_first)


@triton.jit(do_not_specialize=["momentum_bits", "correction_bits"])
def move_running(
    moments, running, momentum_bits, correction_bits, C,
    CUMULATIVE: tl.constexpr, SKIP_NONFINITE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Move all running statistics by one batch, in one program.

    Needed where the channels depend on each other: if one statistic that is not finite stops all
    updates, or if the momentum comes from the count, which changes here. Otherwise the program
    that knows a channel's statistics moves its running ones, see :func:`publish`.
    """
    factor, correction = double(momentum_bits), double(correction_bits)
    if CUMULATIVE:
        factor = 1.0 / (tl.load(running.counter).to(tl.float64) + 1.0)
    nonfinite = 0
    if SKIP_NONFINITE:
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            exists = channel < C
            mean = tl.load(moments.mean + channel, mask=exists, other=0.0)
            var = tl.load(moments.var + channel, mask=exists, other=0.0) * correction
            both = is_finite(mean) & is_finite(var)
            nonfinite += tl.sum(tl.where(both, 0, 1), 0)
    if running.mean is not None:
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            mask = channel < tl.where(nonfinite == 0, C, 0)
            mean = tl.load(moments.mean + channel, mask=mask, other=0.0)
            var = tl.load(moments.var + channel, mask=mask, other=0.0) * correction
            move(running.mean, running.mean_stride, channel, mask, mean, factor)
            move(running.var, running.var_stride, channel, mask, var, factor)
    if running.counter is not None:
        tl.store(running.counter, tl.load(running.counter) + 1, mask=nonfinite == 0)
