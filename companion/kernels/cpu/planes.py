"""The planes view: ``(N, C, S)`` with S values side by side, enough to fill vectors.

A block is a few channels; a row is one tile of each of their planes, the whole plane if it is
small. Channels are neighbours in memory, so a row is one piece of it.
"""

from __future__ import annotations

from . import coefficients as of
from . import shifts, steps
from .runtime import inlined, njit
from .steps import CHAIN, Backward, Forward
from .vectors import LANES, blend, splat, total, wide


@inlined
def row_at(job, block, row):
    """Where a row of the block begins, counted in values, and how long its tiles are."""
    plane = row // job.tiles
    offset = (row - plane * job.tiles) * job.tile
    start = (plane * job.channels + block.channel) * job.inner + offset
    return start, min(job.tile, job.inner - offset)


@inlined
def until_aligned(address, like, count):
    """How many values to write before those at which :func:`.vectors.store` may pass the cache."""
    return min(-address % min(64, LANES * like.itemsize) // like.itemsize, count)


@inlined
def values_before(job, row):
    """How many values of a channel are in the rows before one."""
    plane = row // job.tiles
    return plane * job.inner + min((row - plane * job.tiles) * job.tile, job.inner)


@inlined
def forward_of(channel, c):
    return Forward(
        splat(channel[of.SHIFT, c]),
        splat(channel[of.CENTRE, c]),
        splat(channel[of.SLOPE, c]),
        splat(channel[of.SLOPE_REST, c]),
        splat(channel[of.CONSTANT, c]),
        splat(channel[of.CONSTANT_REST, c]),
        splat(channel[of.FLOOR, c]),
    )


@inlined
def backward_of(channel, c):
    return Backward(
        splat(channel[of.G_MEAN, c]),
        splat(channel[of.X_SLOPE, c]),
        splat(channel[of.X_CONSTANT, c]),
    )


@inlined
def forward_between(channel, c, count):
    """Of a vector with the last `count` values of one channel and the first ones of the next."""
    a, b = forward_of(channel, c), forward_of(channel, c + 1)
    return Forward(
        blend(count, a.shift, b.shift),
        blend(count, a.centre, b.centre),
        blend(count, a.slope, b.slope),
        blend(count, a.slope_rest, b.slope_rest),
        blend(count, a.constant, b.constant),
        blend(count, a.constant_rest, b.constant_rest),
        a.floor,
    )


@inlined
def backward_between(channel, c, count):
    a, b = backward_of(channel, c), backward_of(channel, c + 1)
    return Backward(
        blend(count, a.g_mean, b.g_mean),
        blend(count, a.x_slope, b.x_slope),
        blend(count, a.x_constant, b.x_constant),
    )


@njit
def choose_shifts(job, block, room):
    """Choose values that the sums of a block's channels are taken about."""
    step = (job.inner - min(job.inner, LANES)) // 2
    shifts.along(job, block, room, step)


@inlined
def add_chain(job, like, at, length, forward, add, half, zero, plain):
    """Add whole vectors; one half of the chain has begun."""
    (a, b), c, d = half, zero, zero
    for _ in range(length):
        e, f = add(job, like, at, LANES, forward, a, b, plain)
        a, b, c, d = c, d, e, f
        at += LANES * like.itemsize
    return a + c, b + d


@njit
def sum_up(job, block, room, add, zero):
    """Fill ``room.sums`` with what `add` adds up, per channel, in chains that begin with `zero`."""
    like, sums, channel = room.at.like, room.at.sums, room.at.channel
    sums[:, : block.channels] = 0.0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        vectors = count // LANES
        for c in range(block.channels):
            at, forward = start * like.itemsize, forward_of(channel, c)
            first, second = splat(0.0), splat(0.0)
            half = (zero, zero)
            # The last vector, if it is not a whole one, joins the first chain.
            if count % LANES:
                last = at + vectors * LANES * like.itemsize
                half = add(job, like, last, count % LANES, forward, zero, zero, False)
            for chain in range(0, max(vectors, 1), CHAIN):
                length = min(CHAIN, vectors - chain)
                if steps.is_plain(job):
                    a, b = add_chain(job, like, at, length, forward, add, half, zero, True)
                else:
                    a, b = add_chain(job, like, at, length, forward, add, half, zero, False)
                first, second = first + wide(a), second + wide(b)
                at += length * LANES * like.itemsize
                half = (zero, zero)
            sums[0, c] += total(first)
            sums[1, c] += total(second)
            start += job.inner


@njit
def normalize(job, block, room):
    """Write a block of y.

    Whole planes are written as one run, so that all vectors but the first and the last are whole
    cache lines: some of them belong to two channels.
    """
    like, channel, stream = room.at.like, room.at.channel, job.stream != 0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        done = 0
        for c in range(block.channels):
            at, forward = start * like.itemsize, forward_of(channel, c)
            if done == 0:
                done = until_aligned(job.y + at, like, count)
                if done:
                    steps.normalize(job, like, at, done, False, forward, False)
            at += done * like.itemsize
            vectors = (count - done) // LANES
            if steps.is_plain(job) and not job.precise:
                for _ in range(vectors):
                    steps.normalize(job, like, at, LANES, stream, forward, True)
                    at += LANES * like.itemsize
            else:
                for _ in range(vectors):
                    steps.normalize(job, like, at, LANES, stream, forward, False)
                    at += LANES * like.itemsize
            rest = (count - done) % LANES
            done = 0
            if rest and job.tiles == 1 and c + 1 < block.channels:
                forward = forward_between(channel, c, rest)
                steps.normalize(job, like, at, LANES, stream, forward, False)
                done = LANES - rest
            elif rest:
                steps.normalize(job, like, at, rest, False, forward, False)
            start += job.inner


@njit
def differentiate(job, block, room):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual; as :func:`normalize`."""
    like, channel, stream = room.at.like, room.at.channel, job.stream != 0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        done = 0
        for c in range(block.channels):
            at = start * like.itemsize
            forward, back = forward_of(channel, c), backward_of(channel, c)
            if done == 0:
                done = until_aligned(job.grad_x + at, like, count)
                if done:
                    steps.differentiate(job, like, at, done, False, forward, back, False)
            at += done * like.itemsize
            vectors = (count - done) // LANES
            if steps.is_plain(job):
                for _ in range(vectors):
                    steps.differentiate(job, like, at, LANES, stream, forward, back, True)
                    at += LANES * like.itemsize
            else:
                for _ in range(vectors):
                    steps.differentiate(job, like, at, LANES, stream, forward, back, False)
                    at += LANES * like.itemsize
            rest = (count - done) % LANES
            done = 0
            if rest and job.tiles == 1 and c + 1 < block.channels:
                forward = forward_between(channel, c, rest)
                back = backward_between(channel, c, rest)
                steps.differentiate(job, like, at, LANES, stream, forward, back, False)
                done = LANES - rest
            elif rest:
                steps.differentiate(job, like, at, rest, False, forward, back, False)
            start += job.inner
