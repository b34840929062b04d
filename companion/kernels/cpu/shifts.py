"""What sums are taken about: something near the mean, or the variance would cancel.

Not the first value, which may be far from all others, but the middle one of three averages: of
values from the beginning of a channel, from its middle, and from its end. A value itself may be two
standard deviations from the mean, and float32 would lose more of the sums.

A shift is kept in float64 where the channel's mean will be.
"""

from __future__ import annotations

import numpy as np

from . import coefficients as of
from .runtime import inlined, njit
from .vectors import (
    LANES,
    load,
    not_above,
    not_below,
    only_first,
    splat,
    total,
    wide,
    write,
)

# Rows of single columns that are averaged.
_ROWS = 4


@njit
def along(job, block, channel, step, like):
    """For channels with several values side by side: averages of those, `step` values apart."""
    count = min(job.inner, LANES)
    for c in range(block.channels):
        at = job.x + (block.channel + c) * job.inner * like.itemsize
        first = _sum_along(at, like, count)
        middle = _sum_along(at + step * like.itemsize, like, count)
        last = _sum_along(at + 2 * step * like.itemsize, like, count)
        least, most = min(first, middle), max(first, middle)
        shift = max(least, min(most, last)) / count
        scale = (max(most, last) - min(least, last)) / count
        _keep(job, block, channel, c, 1, splat(shift), splat(scale))


@inlined
def _sum_along(at, like, count):
    return total(only_first(wide(load(at, like, count)), count))


@njit
def across(job, block, channel, like):
    """For channels whose values are in different rows: averages of a few rows each."""
    stride = job.channels * like.itemsize
    rows = min(_ROWS, job.m)
    number = splat(np.float64(rows))
    step = (job.m - rows) // 2 * stride
    for c in range(0, block.channels, LANES):
        count = of.lanes_from(block, c)
        at = job.x + (block.channel + c) * like.itemsize
        first = _sum_across(at, like, count, rows, stride)
        middle = _sum_across(at + step, like, count, rows, stride)
        last = _sum_across(at + 2 * step, like, count, rows, stride)
        least, most = not_above(first, middle), not_below(first, middle)
        shift = not_below(least, not_above(most, last)) / number
        scale = (not_below(most, last) - not_above(least, last)) / number
        _keep(job, block, channel, c, count, shift, scale)


@inlined
def _sum_across(at, like, count, rows, stride):
    result = splat(0.0)
    for row in range(rows):
        result = result + wide(load(at + row * stride, like, count))
    return result


@inlined
def _keep(job, block, channel, c, count, shift, scale):
    """Keep shifts of values whose size is known by averages that lie `scale` apart."""
    of.put_shift(channel, c, count, shift, scale)
    write(job.statistics, 2, block.channel + c, count, of.get(channel[of.SHIFT], c, count))
