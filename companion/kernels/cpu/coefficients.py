"""What a channel's values are combined with, in the type of computation.

The forward pass writes (x - centre)·slope + constant, the backward pass
((g - g_mean) + (x - centre)·x_slope + x_constant)·slope. Statistics are float64. The slope has what
the type of computation holds of it, `slope_rest` what that leaves, as `constant_rest` of the
constant; the constants have what the centre and g_mean leave of the means.

The centre is the mean, or 0 if the mean of a batch is within one standard deviation of 0. To
subtract a small mean rounds every value; to put it into the constant rounds a number smaller than
the results. With given statistics the mean itself still becomes β exactly.

All of it is computed for sixteen channels at a time: a small batch has few values per channel, and
square roots and divisions would be most of its work.
"""

from __future__ import annotations

import numpy as np

from ._numba import address_of, array_at, inlined, njit
from .formats import FLOAT64, LARGEST
from .vectors import (
    LANES,
    all_finite,
    all_within,
    convert,
    load,
    not_below,
    only_finite,
    only_first,
    read,
    root,
    splat,
    store,
    wide,
    within,
    write,
    zero_where_within,
)

SHIFT, CENTRE, SLOPE, SLOPE_REST, CONSTANT, CONSTANT_REST, FLOOR = range(7)
G_MEAN, X_SLOPE, X_CONSTANT = range(7, 10)
COUNT = 10

# The shift may be so many standard deviations from the mean: the variance then has lost 6 of the 24
# bits of the squares, whose errors are much smaller than one of them, being many and random.
_FARTHEST_SHIFT = 8.0
# Squares of less than this, on average, may have left the range of float32 downwards.
_LEAST_SQUARE = 1e-30


@inlined
def lanes_from(block, c):
    """How many channels there are from the block's channel `c` on, at most sixteen."""
    return min(LANES, block.channels - c)


@inlined
def get(row, c, count):
    """Channels of a row of coefficients or sums, in float64."""
    return wide(load(address_of(row) + c * row.itemsize, row, count))


@inlined
def put(row, c, count, value):
    store(address_of(row) + c * row.itemsize, row, convert(value, row), count, False)


@inlined
def put_with_rest(rows, name, rest_name, c, count, value):
    """Put a value, and what its type does not hold of it, if that is a number."""
    put(rows[name], c, count, value)
    put(rows[rest_name], c, count, only_finite(value - get(rows[name], c, count)))


@inlined
def root_of(job, k, count):
    """√(var + ε)."""
    return root(read(job.var, job.var_kind, k, count, 0.0) + splat(job.eps))


@inlined
def put_shift(rows, c, count, value, scale):
    """Take sums about a multiple of about 1/2048 of the values' scale; about 0 if not a number.

    So x - shift is exact for most x. Else it would be rounded the same way for all x of one size,
    and such errors add up.
    """
    value, coarse = convert(value, rows), convert(scale * splat(4096.0), rows)
    put(rows[SHIFT], c, count, wide(only_finite((value + coarse) - coarse)))


@njit
def set_shift(job, block, rows):
    """Take sums about the means."""
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        mean = read(job.mean, job.mean_kind, k, count, 0.0)
        var = read(job.var, job.var_kind, k, count, 0.0)
        put_shift(rows, c, count, mean, root(var))


@njit
def sums_hold(job, block, sums, values, backward):
    """Whether sums of so many values per channel, taken in float32 by chains, are good enough.

    If a tiny ε asks for tiny squares, products are treated as if they were squares, to be safe.
    """
    far = _FARTHEST_SHIFT**2
    most = splat(values * (1.0 - 1.0 / far))
    for c in range(0, block.channels, LANES):
        count = lanes_from(block, c)
        first, second = get(sums[0], c, count), get(sums[1], c, count)
        if not (all_finite(first) and all_finite(second)):
            return False
        # Σd² <= 64·(Σd² - (Σd)²/n), d being x - shift.
        if not backward and not all_within(first * first, most * second):
            return False
    if job.eps < _LEAST_SQUARE:
        for c in range(block.channels):
            if sums[1, c] < values * _LEAST_SQUARE:
                return False
    return True


@njit
def write_statistics(job, block, sums):
    """Mean and biased variance, from Σ(x - shift) and Σ(x - shift)²."""
    mean_at, var_at = job.statistics, job.statistics + 8 * job.channels
    m = splat(np.float64(job.m))
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        offset = get(sums[0], c, count) / m
        var = get(sums[1], c, count) / m - offset * offset
        write(mean_at, FLOAT64, k, count, read(mean_at, FLOAT64, k, count, 0.0) + offset)
        write(var_at, FLOAT64, k, count, not_below(splat(0.0), var))


@njit
def keep_statistics(job, block):
    """Copy given statistics, which may have changed by the time of the backward pass."""
    mean_at, var_at = job.statistics, job.statistics + 8 * job.channels
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        write(mean_at, FLOAT64, k, count, read(job.mean, job.mean_kind, k, count, 0.0))
        write(var_at, FLOAT64, k, count, read(job.var, job.var_kind, k, count, 0.0))


@njit
def write_gradients(job, block, sums, rows):
    """Gradients of weight and bias, from Σg and Σg·(x - shift)."""
    grad_bias_at, grad_weight_at = job.sums, job.sums + 8 * job.channels
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        mean = read(job.mean, job.mean_kind, k, count, 0.0)
        grad_bias = get(sums[0], c, count)
        product = get(sums[1], c, count) - (mean - get(rows[SHIFT], c, count)) * grad_bias
        grad_weight = product / root_of(job, k, count)
        write(grad_bias_at, FLOAT64, k, count, grad_bias)
        write(grad_weight_at, FLOAT64, k, count, grad_weight)
        write(job.grad_bias, job.grad_bias_kind, k, count, grad_bias)
        write(job.grad_weight, job.grad_weight_kind, k, count, grad_weight)


@njit
def set_forward(job, block, rows):
    """Eq. (3) mini-batch-algorithm/normalize and Eq. (4) mini-batch-algorithm/scale-shift."""
    floor = splat(0.0 if job.relu else -np.inf)
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        mean = read(job.mean, job.mean_kind, k, count, 0.0)
        var = read(job.var, job.var_kind, k, count, 0.0)
        slope = read(job.weight, job.weight_kind, k, count, 1.0) / root_of(job, k, count)
        put(rows[CENTRE], c, count, zero_where_within(root(var), mean) if job.training else mean)
        put_with_rest(rows, SLOPE, SLOPE_REST, c, count, slope)
        uncentred = (mean - get(rows[CENTRE], c, count)) * slope
        constant = read(job.bias, job.bias_kind, k, count, 0.0) - uncentred
        put_with_rest(rows, CONSTANT, CONSTANT_REST, c, count, constant)
        put(rows[FLOOR], c, count, floor)


@njit
def set_backward(job, block, rows):
    """Eq. (9) backprop/closed-form, from the gradients of weight and bias."""
    grad_bias_at, grad_weight_at = job.sums, job.sums + 8 * job.channels
    m = splat(np.float64(job.m))
    for c in range(0, block.channels, LANES):
        k, count = block.channel + c, lanes_from(block, c)
        mean = read(job.mean, job.mean_kind, k, count, 0.0)
        g_mean = read(grad_bias_at, FLOAT64, k, count, 0.0) / m
        x_slope = read(grad_weight_at, FLOAT64, k, count, 0.0) / (m * root_of(job, k, count))
        put(rows[G_MEAN], c, count, g_mean)
        put(rows[X_SLOPE], c, count, splat(0.0) - x_slope)
        uncentred_g = g_mean - get(rows[G_MEAN], c, count)
        uncentred_x = mean - get(rows[CENTRE], c, count)
        put(rows[X_CONSTANT], c, count, uncentred_x * x_slope - uncentred_g)


@njit
def move_running(job):
    """Move the running statistics by one batch; see ``companion.functional``."""
    mean_at, var_at = job.statistics, job.statistics + 8 * job.channels
    count = array_at(job.batches, 1, 0)
    if job.skip_nonfinite:
        for k in range(0, job.channels, LANES):
            lanes = min(LANES, job.channels - k)
            mean, var = read(mean_at, FLOAT64, k, lanes, 0.0), read(var_at, FLOAT64, k, lanes, 0.0)
            if not (all_finite(only_first(mean, lanes)) and all_finite(only_first(var, lanes))):
                return
    momentum = job.momentum
    if np.isnan(momentum):
        momentum = 1.0 / (count[0] + 1.0)
    unbiased = splat(job.m / (job.m - 1.0))
    for k in range(0, job.channels, LANES):
        lanes = min(LANES, job.channels - k)
        mean, var = read(mean_at, FLOAT64, k, lanes, 0.0), read(var_at, FLOAT64, k, lanes, 0.0)
        move(job.running_mean, job.running_mean_kind, k, lanes, mean, momentum)
        move(job.running_var, job.running_var_kind, k, lanes, var * unbiased, momentum)
    if job.batches:
        count[0] += 1


@inlined
def move(address, kind, k, lanes, batch, momentum):
    former = read(address, kind, k, lanes, 0.0)
    moved = splat(1.0 - momentum) * former + splat(momentum) * batch
    # An infinity made by rounding would never decay.
    write(address, kind, k, lanes, within(splat(LARGEST[kind]), moved))
