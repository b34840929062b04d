"""The planes view: ``(N, C, S)`` with S values side by side, enough to fill vectors.

A block is a few channels; a row is one tile of each of their planes, the whole plane if it is
small. Channels are neighbours in memory, so a row is one piece of it.
"""

from __future__ import annotations

from . import coefficients, shifts, steps
from ._numba import inlined, njit
from .steps import CHAIN, Backward, Forward
from .vectors import LANES, blend, convert, splat, total, until_aligned, wide


@inlined
def row_at(job, block, row):
    """Where a row of the block begins, counted in values, and how long its tiles are."""
    plane = row // job.tiles
    offset = (row - plane * job.tiles) * job.tile
    start = (plane * job.channels + block.channel) * job.inner + offset
    return start, min(job.tile, job.inner - offset)


@inlined
def values_before(job, row):
    """How many values of a channel are in the rows before one."""
    plane = row // job.tiles
    return plane * job.inner + min((row - plane * job.tiles) * job.tile, job.inner)


@inlined
def forward_of(channel, c):
    return Forward(
        splat(channel[coefficients.SHIFT, c]),
        splat(channel[coefficients.CENTRE, c]),
        splat(channel[coefficients.SLOPE, c]),
        splat(channel[coefficients.SLOPE_REST, c]),
        splat(channel[coefficients.CONSTANT, c]),
        splat(channel[coefficients.CONSTANT_REST, c]),
        splat(channel[coefficients.FLOOR, c]),
    )


@inlined
def backward_of(channel, c):
    return Backward(
        forward_of(channel, c),
        splat(channel[coefficients.G_MEAN, c]),
        splat(channel[coefficients.X_SLOPE, c]),
        splat(channel[coefficients.X_CONSTANT, c]),
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
        forward_between(channel, c, count),
        blend(count, a.g_mean, b.g_mean),
        blend(count, a.x_slope, b.x_slope),
        blend(count, a.x_constant, b.x_constant),
    )


@njit
def choose_shifts(job, block, scratch):
    """Choose values that the sums of a block's channels are taken about."""
    step = (job.inner - min(job.inner, LANES)) // 2
    shifts.along(job, block, scratch, step)


@inlined
def add_chain(job, like, at, length, line, add, half, zero, plain):
    """Add whole vectors; one half of the chain has begun."""
    (a, b), c, d = half, zero, zero
    for _ in range(length):
        e, f = add(job, like, at, LANES, line, a, b, plain)
        a, b, c, d = c, d, e, f
        at += LANES * like.itemsize
    return a + c, b + d


@njit
def sum_up(job, block, scratch, add, like_sums):
    """Fill ``scratch.record.sums`` with what `add` adds up, in chains of `like_sums`' type."""
    zero = convert(splat(0.0), like_sums)
    like, sums, channel = scratch.record.like, scratch.record.sums, scratch.record.channel
    sums[:, : block.channels] = 0.0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        vectors = count // LANES
        for c in range(block.channels):
            at, line = start * like.itemsize, forward_of(channel, c)
            first, second = splat(0.0), splat(0.0)
            half = (zero, zero)
            # The last vector, if it is not a whole one, joins the first chain.
            if count % LANES:
                last = at + vectors * LANES * like.itemsize
                half = add(job, like, last, count % LANES, line, zero, zero, False)
            for chain in range(0, max(vectors, 1), CHAIN):
                length = min(CHAIN, vectors - chain)
                chained = (job, like, at, length, line, add, half, zero)
                a, b = steps.either(steps.is_plain(job), add_chain, chained)
                first, second = first + wide(a), second + wide(b)
                at += length * LANES * like.itemsize
                half = (zero, zero)
            sums[0, c] += total(first)
            sums[1, c] += total(second)
            start += job.inner


@inlined
def write_vectors(job, like, at, vectors, past_cache, step, values, plain):
    """Write whole vectors of one channel; return where the next one would begin."""
    for _ in range(vectors):
        step(job, like, at, LANES, past_cache, values, plain)
        at += LANES * like.itemsize
    return at


@inlined
def write(job, block, scratch, output, is_plain, step, values_of, values_between):
    """Write a block of what begins at `output`, by a step and the coefficients that it takes.

    Whole planes are written as one run, so that all vectors but the first and the last are whole
    cache lines: some of them belong to two channels.
    """
    like, channel, stream = scratch.record.like, scratch.record.channel, job.stream != 0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        done = 0
        for c in range(block.channels):
            at, values = start * like.itemsize, values_of(channel, c)
            if done == 0:
                done = until_aligned(output + at, like, count)
                if done:
                    step(job, like, at, done, False, values, False)
            at += done * like.itemsize
            vectors = (count - done) // LANES
            run = (job, like, at, vectors, stream, step, values)
            at = steps.either(is_plain(job), write_vectors, run)
            ragged = (count - done) % LANES
            done = 0
            if ragged and job.tiles == 1 and c + 1 < block.channels:
                both = values_between(channel, c, ragged)
                step(job, like, at, LANES, stream, both, False)
                done = LANES - ragged
            elif ragged:
                step(job, like, at, ragged, False, values, False)
            start += job.inner


@njit
def normalize(job, block, scratch):
    """Write a block of y."""
    step, output, is_plain = steps.normalize, job.y, steps.is_plain_forward
    write(job, block, scratch, output, is_plain, step, forward_of, forward_between)


@njit
def differentiate(job, block, scratch):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    step, output, is_plain = steps.differentiate, job.grad_x, steps.is_plain
    write(job, block, scratch, output, is_plain, step, backward_of, backward_between)
