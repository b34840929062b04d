"""What a pass does to one vector of a channel's values, or of neighbouring channels' values.

These are the formulas of batch normalization. The loops around them are in :mod:`.planes`, where a
vector's coefficients are the same number sixteen times, and in :mod:`.panels`, where they are those
of sixteen columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .runtime import inlined
from .vectors import (
    LANES,
    load,
    load_wide,
    multiply_add,
    not_below,
    only_first,
    store,
    where_positive,
    wide,
)


class Forward(NamedTuple):
    """y = max((x - centre)·slope + constant + residual, floor); vectors, as below."""

    centre: Any
    slope: Any
    constant: Any
    floor: Any


class Backward(NamedTuple):
    """((g - g_mean) + (x - centre)·x_slope + x_constant)·g_slope."""

    centre: Any
    g_mean: Any
    g_slope: Any
    x_slope: Any
    x_constant: Any


@inlined
def add_moments(job, like, at, count, shift, total, squares):
    """Add x - shift, and its square, in float64."""
    shifted = load_wide(job.x + at, like, count) - shift
    if count < LANES:
        # The zeros behind the last value are far from the shift.
        shifted = only_first(shifted, count)
    return total + shifted, multiply_add(shifted, shifted, squares)


@inlined
def add_products(job, like, at, count, forward, centre, total, product):
    """Add g, and g·(x - centre), in float64."""
    if job.relu:
        x = load(job.x + at, like, count)
        g, shifted = wide(gradient(job, like, at, count, x, forward)), wide(x) - centre
    else:
        g = load_wide(job.grad_y + at, like, count)
        shifted = load_wide(job.x + at, like, count) - centre
    return total + g, multiply_add(g, shifted, product)


@inlined
def normalize(job, like, at, count, past_cache, of):
    """Compute and write y."""
    x = load(job.x + at, like, count)
    y = multiply_add(x - of.centre, of.slope, of.constant)
    if job.residual:
        y = y + load(job.residual + at, like, count)
    store(job.y + at, like, not_below(of.floor, y), count, past_cache)


@inlined
def gradient(job, like, at, count, x, of):
    """The gradient that the ReLU, if there is one, lets through."""
    g = load(job.grad_y + at, like, count)
    if job.relu:
        if job.y:
            g = where_positive(load(job.y + at, like, count), g)
        else:
            g = where_positive(multiply_add(x - of.centre, of.slope, of.constant), g)
    return g


@inlined
def differentiate(job, like, at, count, past_cache, forward, of):
    """Compute and write the gradient of x and, where asked for, of the residual."""
    x = load(job.x + at, like, count)
    g = gradient(job, like, at, count, x, forward)
    if job.training:
        through = multiply_add(x - of.centre, of.x_slope, of.x_constant)
        grad_x = (g - of.g_mean + through) * of.g_slope
    else:
        grad_x = g * of.g_slope
    store(job.grad_x + at, like, grad_x, count, past_cache)
    if job.grad_residual:
        store(job.grad_residual + at, like, g, count, past_cache)
