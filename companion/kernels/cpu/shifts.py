"""What sums are taken about: something near the mean, or the variance would cancel.

Not the first value, which may be far from all others, but the middle one of three averages: of
values from the beginning of a channel, from its middle, and from its end. A value itself may be two
standard deviations from the mean, and float32 would lose more of the sums.

A shift is kept in float64 where the channel's mean will be.
"""

from __future__ import annotations

import numpy as np

from ._numba import inlined, njit
from .coefficients import SHIFT, get, lanes_from, put_shift
from .formats import FLOAT64
from .vectors import (
    LANES,
    load,
    not_above,
    not_below,
    splat,
    total,
    wide,
    write,
)

# Rows of single columns that are averaged.
_ROWS = 4


@njit
def along(job, block, scratch, step):
    """For channels with several values side by side: averages of those, `step` values apart."""
    like, sums, last = scratch.record.like, scratch.record.sums, scratch.record.column_sums
    values = min(job.inner, LANES)
    for c in range(block.channels):
        at = job.x + (block.channel + c) * job.inner * like.itemsize
        sums[0, c] = total(load(at, like, values))
        sums[1, c] = total(load(at + step * like.itemsize, like, values))
        last[c] = total(load(at + 2 * step * like.itemsize, like, values))
    for c in range(0, block.channels, LANES):
        count = lanes_from(block, c)
        three = get(sums[0], c, count), get(sums[1], c, count), get(last, c, count)
        _keep(job, block, scratch, c, count, three, values)


@njit
def across(job, block, scratch):
    """For channels whose values are in different rows: averages of a few rows each."""
    like = scratch.record.like
    stride = job.channels * like.itemsize
    rows = min(_ROWS, job.m)
    step = (job.m - rows) // 2 * stride
    for c in range(0, block.channels, LANES):
        count = lanes_from(block, c)
        at = job.x + (block.channel + c) * like.itemsize
        first = _sum_across(at, like, count, rows, stride)
        middle = _sum_across(at + step, like, count, rows, stride)
        last = _sum_across(at + 2 * step, like, count, rows, stride)
        _keep(job, block, scratch, c, count, (first, middle, last), rows)


@inlined
def _sum_across(at, like, count, rows, stride):
    result = splat(0.0)
    for row in range(rows):
        result = result + wide(load(at + row * stride, like, count))
    return result


@inlined
def _keep(job, block, scratch, c, count, sums, values):
    """Keep shifts: the middle ones of three sums of so many values, as averages."""
    first, middle, last = sums
    number = splat(np.float64(values))
    least, most = not_above(first, middle), not_below(first, middle)
    shift = not_below(least, not_above(most, last)) / number
    scale = (not_below(most, last) - not_above(least, last)) / number
    put_shift(scratch.record.channel, c, count, shift, scale)
    rounded = get(scratch.record.channel[SHIFT], c, count)
    write(job.statistics, FLOAT64, block.channel + c, count, rounded)
