"""What a pass does to one vector of a channel's values, or of neighbouring channels' values.

These are the formulas of batch normalization. The loops around them are in :mod:`.planes`, where a
vector's coefficients are the same number sixteen times, and in :mod:`.panels`, where they are those
of sixteen columns.

Sums are taken in two steps. The few vectors of a *chain* are added up in the type of computation,
and chains in float64: to convert every value takes twice as long. What float32 can lose on so few
additions is less than the last rounding does to the result, unless a sum leaves its range or the
shift is far from the mean; then the sums are taken again, in float64 throughout. See
:func:`.coefficients.sums_hold`.

A pass is *plain* if it is what it mostly is: in training, without a ReLU and without a residual.
The innermost loops come twice, see :func:`either`, so that those of a plain pass have nothing to
ask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._numba import inlined
from .vectors import (
    LANES,
    convert,
    load,
    multiply_add,
    not_below,
    only_first,
    store,
    where_positive,
    wide,
)

CHAIN = 16
"""Vectors of a chain. Every other one is added to a sum of its own, and these at the end: of two
chains half as long the errors are smaller, and the second need not wait for the first."""


class Forward(NamedTuple):
    """max((x - centre)·(slope + slope_rest) + constant + constant_rest + residual, floor).

    In the steps it is called `line`, as the straight line that it is but for the floor.
    """

    shift: Any
    """What sums are taken about."""
    centre: Any
    slope: Any
    slope_rest: Any
    constant: Any
    constant_rest: Any
    floor: Any


class Backward(NamedTuple):
    """(g - g_mean)·(slope + slope_rest) + ((x - centre)·x_slope + x_constant)·slope."""

    line: Any
    """The forward pass, which has the centre and the slope."""
    g_mean: Any
    x_slope: Any
    x_constant: Any


@inlined
def is_plain(job):
    return job.training and not (job.relu or job.residual or job.grad_residual)


@inlined
def is_plain_forward(job):
    """Whether the output is written plainly; a precise one takes more than its loop has."""
    return is_plain(job) and not job.precise


@inlined
def either(plain, loop, arguments):
    """Run a loop that takes `plain` last, with a constant for it: it is compiled for each.

    Whether a pass is plain is asked right here: from outside the loops around, LLVM would make two
    of each of them, too.
    """
    if plain:
        return loop(*arguments, True)
    return loop(*arguments, False)


@inlined
def add_moments(job, like, at, count, line, total, squares, _plain):
    """Add x - shift, and its square, to two vectors, in their type."""
    shifted = convert(load(job.x + at, like, count), total) - convert(line.shift, total)
    if count < LANES:
        # The zeros behind the last value are far from the shift.
        shifted = only_first(shifted, count)
    return total + shifted, multiply_add(shifted, shifted, squares)


@inlined
def add_products(job, like, at, count, line, total, product, plain):
    """Add g, and g·(x - shift), to two vectors, in their type."""
    x = load(job.x + at, like, count)
    g = convert(gradient(job, like, at, count, x, line, plain), total)
    shifted = convert(x, total) - convert(line.shift, total)
    return total + g, multiply_add(g, shifted, product)


@inlined
def normalized(job, x, line, plain):
    """What is written for x but for the residual and the ReLU, to within one rounding.

    Of given statistics `slope_rest` is left out: times an infinite x it may be the other infinity.
    A precise pass computes it in float64, and rounds once.
    """
    if job.precise and not plain:
        slope = wide(line.slope) + wide(line.slope_rest)
        constant = wide(line.constant) + wide(line.constant_rest)
        return convert(multiply_add(wide(x) - wide(line.centre), slope, constant), x)
    shifted, constant = x - line.centre, line.constant
    if plain or job.training:
        constant = multiply_add(shifted, line.slope_rest, constant)
    return multiply_add(shifted, line.slope, constant)


@inlined
def normalize(job, like, at, count, past_cache, line, plain):
    """Compute and write y."""
    y = normalized(job, load(job.x + at, like, count), line, plain)
    if not plain:
        if job.residual:
            y = y + load(job.residual + at, like, count)
        y = not_below(line.floor, y)
    store(job.y + at, like, y, count, past_cache)


@inlined
def gradient(job, like, at, count, x, line, plain):
    """The gradient that the ReLU, if there is one, lets through."""
    g = load(job.grad_y + at, like, count)
    if job.relu and not plain:
        if job.y:
            g = where_positive(load(job.y + at, like, count), g)
        else:
            g = where_positive(normalized(job, x, line, plain), g)
    return g


@inlined
def differentiate(job, like, at, count, past_cache, backward, plain):
    """Compute and write the gradient of x and, where asked for, of the residual."""
    line = backward.line
    x = load(job.x + at, like, count)
    g = gradient(job, like, at, count, x, line, plain)
    if plain or job.training:
        through = multiply_add(x - line.centre, backward.x_slope, backward.x_constant)
        centred = g - backward.g_mean
        smaller = multiply_add(centred, line.slope_rest, through * line.slope)
        grad_x = multiply_add(centred, line.slope, smaller)
    else:
        grad_x = g * line.slope
    store(job.grad_x + at, like, grad_x, count, past_cache)
    if job.grad_residual and not plain:
        store(job.grad_residual + at, like, g, count, past_cache)
