"""The planes view: ``(N, C, S)`` with S values side by side, enough to fill vectors.

A block is a few channels; a row is one tile of each of their planes, the whole plane if it is
small. Channels are neighbours in memory, so a row is one piece of it.
"""

from __future__ import annotations

import numpy as np

from . import coefficients as of
from . import steps
from .formats import median_value
from .runtime import inlined, njit
from .steps import Backward, Forward
from .vectors import LANES, splat, total, wide


@inlined
def row_at(job, block, row):
    """Where a row of the block begins, counted in values, and how long its tiles are."""
    plane = row // job.tiles
    offset = (row - plane * job.tiles) * job.tile
    start = (plane * job.channels + block.channel) * job.inner + offset
    return start, min(job.tile, job.inner - offset)


@inlined
def until_aligned(address, like, count, past_cache):
    """How many values to write before those at which :func:`.vectors.store` may pass the cache."""
    if not past_cache:
        return 0
    return min(-address % min(64, LANES * like.itemsize) // like.itemsize, count)


@inlined
def forward_of(channel, c):
    return Forward(
        splat(channel[of.CENTRE, c]),
        splat(channel[of.SLOPE, c]),
        splat(channel[of.CONSTANT, c]),
        splat(channel[of.FLOOR, c]),
    )


@inlined
def backward_of(channel, c):
    return Backward(
        splat(channel[of.CENTRE, c]),
        splat(channel[of.G_MEAN, c]),
        splat(channel[of.G_SLOPE, c]),
        splat(channel[of.X_SLOPE, c]),
        splat(channel[of.X_CONSTANT, c]),
    )


@njit
def moments(job, block, room):
    """Fill ``room.sums`` with Σ(x - shift) and Σ(x - shift)² per channel of a block."""
    like, sums, channel = room.at.like, room.at.sums, room.at.channel
    for c in range(block.channels):
        first, step = (block.channel + c) * job.inner, (job.inner - 1) // 2
        of.set_shift(job, block.channel + c, median_value(job.x, first, step, like))
    of.set_centre(job, block, channel)
    sums[:, : block.channels] = 0.0
    none = splat(0.0)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            at, shift = start * like.itemsize, splat(np.float64(channel[of.CENTRE, c]))
            plain, squares = none, none
            whole = count // LANES * LANES
            for _ in range(0, whole, LANES):
                plain, squares = steps.add_moments(job, like, at, LANES, shift, plain, squares)
                at += LANES * like.itemsize
            if whole < count:
                rest = count - whole
                plain, squares = steps.add_moments(job, like, at, rest, shift, plain, squares)
            sums[0, c] += total(plain)
            sums[1, c] += total(squares)
            start += job.inner


@njit
def products(job, block, room):
    """Fill ``room.sums`` with Σg and Σg·(x - centre) per channel of a block."""
    like, sums, channel = room.at.like, room.at.sums, room.at.channel
    sums[:, : block.channels] = 0.0
    none = splat(0.0)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            forward = forward_of(channel, c)
            centre = wide(forward.centre)
            plain, product = none, none
            at, whole = start * like.itemsize, count // LANES * LANES
            for _ in range(0, whole, LANES):
                plain, product = steps.add_products(
                    job, like, at, LANES, forward, centre, plain, product
                )
                at += LANES * like.itemsize
            if whole < count:
                plain, product = steps.add_products(
                    job, like, at, count - whole, forward, centre, plain, product
                )
            sums[0, c] += total(plain)
            sums[1, c] += total(product)
            start += job.inner


@njit
def normalize(job, block, room):
    """Write a block of y."""
    like = room.at.like
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            forward = forward_of(room.at.channel, c)
            at = start * like.itemsize
            first = until_aligned(job.y + at, like, count, job.stream)
            if first:
                steps.normalize(job, like, at, first, False, forward)
                at += first * like.itemsize
            whole = (count - first) // LANES * LANES
            for _ in range(0, whole, LANES):
                steps.normalize(job, like, at, LANES, job.stream != 0, forward)
                at += LANES * like.itemsize
            if first + whole < count:
                steps.normalize(job, like, at, count - first - whole, False, forward)
            start += job.inner


@njit
def differentiate(job, block, room):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    like = room.at.like
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            forward, back = forward_of(room.at.channel, c), backward_of(room.at.channel, c)
            at = start * like.itemsize
            first = until_aligned(job.grad_x + at, like, count, job.stream)
            if first:
                steps.differentiate(job, like, at, first, False, forward, back)
                at += first * like.itemsize
            whole = (count - first) // LANES * LANES
            for _ in range(0, whole, LANES):
                steps.differentiate(job, like, at, LANES, job.stream != 0, forward, back)
                at += LANES * like.itemsize
            if first + whole < count:
                rest = count - first - whole
                steps.differentiate(job, like, at, rest, False, forward, back)
            start += job.inner
