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
The innermost loops come twice, so that those of a plain pass have nothing to ask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .runtime import inlined
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
    """max((x - centre)·(slope + slope_rest) + constant + constant_rest + residual, floor)."""

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

    g_mean: Any
    x_slope: Any
    x_constant: Any


@inlined
def is_plain(job):
    return job.training and not (job.relu or job.residual or job.grad_residual)


@inlined
def add_moments(job, like, at, count, of, total, squares, _plain):
    """Add x - shift, and its square, to two vectors, in their type."""
    shifted = convert(load(job.x + at, like, count), total) - convert(of.shift, total)
    if count < LANES:
        # The zeros behind the last value are far from the shift.
        shifted = only_first(shifted, count)
    return total + shifted, multiply_add(shifted, shifted, squares)


@inlined
def add_products(job, like, at, count, of, total, product, plain):
    """Add g, and g·(x - shift), to two vectors, in their type."""
    x = load(job.x + at, like, count)
    g = convert(gradient(job, like, at, count, x, of, plain), total)
    shifted = convert(x, total) - convert(of.shift, total)
    return total + g, multiply_add(g, shifted, product)


@inlined
def normalized(job, x, of, plain):
    """What is written for x but for the residual and the ReLU, to within one rounding.

    Of given statistics `slope_rest` is left out: times an infinite x it may be the other infinity.
    A precise pass computes it in float64, and rounds once.
    """
    if job.precise and not plain:
        slope = wide(of.slope) + wide(of.slope_rest)
        constant = wide(of.constant) + wide(of.constant_rest)
        return convert(multiply_add(wide(x) - wide(of.centre), slope, constant), x)
    shifted, constant = x - of.centre, of.constant
    if plain or job.training:
        constant = multiply_add(shifted, of.slope_rest, constant)
    return multiply_add(shifted, of.slope, constant)


@inlined
def normalize(job, like, at, count, past_cache, of, plain):
    """Compute and write y."""
    y = normalized(job, load(job.x + at, like, count), of, plain)
    if not plain:
        if job.residual:
            y = y + load(job.residual + at, like, count)
        y = not_below(of.floor, y)
    store(job.y + at, like, y, count, past_cache)


@inlined
def gradient(job, like, at, count, x, of, plain):
    """The gradient that the ReLU, if there is one, lets through."""
    g = load(job.grad_y + at, like, count)
    if job.relu and not plain:
        if job.y:
            g = where_positive(load(job.y + at, like, count), g)
        else:
            g = where_positive(normalized(job, x, of, plain), g)
    return g


@inlined
def differentiate(job, like, at, count, past_cache, of, back, plain):
    """Compute and write the gradient of x and, where asked for, of the residual."""
    x = load(job.x + at, like, count)
    g = gradient(job, like, at, count, x, of, plain)
    if plain or job.training:
        through = multiply_add(x - of.centre, back.x_slope, back.x_constant)
        centred = g - back.g_mean
        rest = multiply_add(centred, of.slope_rest, through * of.slope)
        grad_x = multiply_add(centred, of.slope, rest)
    else:
        grad_x = g * of.slope
    store(job.grad_x + at, like, grad_x, count, past_cache)
    if job.grad_residual and not plain:
        store(job.grad_residual + at, like, g, count, past_cache)
