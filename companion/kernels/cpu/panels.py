"""The panel view: rows of C·S columns; a few channels, the same columns of all rows.

It serves channels-last and (N, C), where S is 1, and maps too small to fill a vector. Where C·S is
small, several rows are joined to one, in which the channels repeat: memory does not change by that.

Sums are kept for each column, and the columns of a channel are added up at the end. To load and
store them takes longer than to add to them, so a few rows of a chain are added at once. What a
channel's values are combined with is spread over its columns first.
"""

from __future__ import annotations

from . import coefficients, shifts, steps
from ._numba import address_of, inlined, njit
from .jobs import COLUMN_DISTANCE, SUM_DISTANCE
from .steps import CHAIN, Backward, Forward
from .vectors import LANES, convert, load, prefetch, splat, store, until_aligned, wide

# Where each kind of value begins among those kept for the columns. All kinds lie in one array, at
# fixed distances, so that the compiler sees at once that they do not overlap.
TOTAL, PRODUCT = 0, SUM_DISTANCE


@inlined
def row_at(job, block, row):
    """Where a row of the block begins, counted in values, and its length: the last may be short."""
    start = row * job.width + block.channel * job.inner
    return start, min(block.width, job.size - start)


@inlined
def values_before(job, row):
    """How many values of a channel are in the rows before one."""
    return min(row * job.width, job.size) // job.channels


@njit
def spread(job, block, values, columns, at):
    """Repeat each channel's value for each of its columns; these begin at `at`."""
    j = 0
    while j < block.width:
        if job.inner == 1:
            place = address_of(columns) + (at + j) * columns.itemsize
            for c in range(0, block.channels, LANES):
                count, offset = coefficients.lanes_from(block, c), c * columns.itemsize
                vector = load(address_of(values) + offset, columns, count)
                store(place + offset, columns, vector, count, False)
            j += block.channels
        else:
            for c in range(block.channels):
                columns[at + j : at + j + job.inner] = values[c]
                j += job.inner


@njit
def spread_coefficients(job, block, scratch, first, last):
    """Spread some kinds of coefficients; behind the last column comes the first one again."""
    columns = scratch.record.column
    for name in range(first, last):
        at = name * COLUMN_DISTANCE
        spread(job, block, scratch.record.channel[name], columns, at)
        place = address_of(columns) + at * columns.itemsize
        again = load(place, columns, LANES)
        store(place + block.width * columns.itemsize, columns, again, LANES, False)


@njit
def clear_sums(block, scratch):
    for j in range(-(-block.width // LANES) * LANES):
        scratch.record.column_sums[TOTAL + j] = 0.0
        scratch.record.column_sums[PRODUCT + j] = 0.0


@njit
def gather_sums(job, block, columns, sums):
    """Add up each channel's columns: :func:`spread`, turned around."""
    sums[:, : block.channels] = 0.0
    j = 0
    if job.inner == 1:
        while j < block.width:
            for c in range(block.channels):
                sums[0, c] += columns[TOTAL + j + c]
            for c in range(block.channels):
                sums[1, c] += columns[PRODUCT + j + c]
            j += block.channels
    while j < block.width:
        for c in range(block.channels):
            for _ in range(job.inner):
                sums[0, c] += columns[TOTAL + j]
                sums[1, c] += columns[PRODUCT + j]
                j += 1


@inlined
def coefficient(scratch, name, j):
    """What sixteen columns from `j` on are combined with."""
    column = scratch.record.column
    return load(address_of(column) + (name * COLUMN_DISTANCE + j) * column.itemsize, column, LANES)


@inlined
def forward_of(scratch, j):
    return Forward(
        coefficient(scratch, coefficients.SHIFT, j),
        coefficient(scratch, coefficients.CENTRE, j),
        coefficient(scratch, coefficients.SLOPE, j),
        coefficient(scratch, coefficients.SLOPE_REST, j),
        coefficient(scratch, coefficients.CONSTANT, j),
        coefficient(scratch, coefficients.CONSTANT_REST, j),
        splat(scratch.record.channel[coefficients.FLOOR, 0]),
    )


@inlined
def backward_of(scratch, j):
    return Backward(
        forward_of(scratch, j),
        coefficient(scratch, coefficients.G_MEAN, j),
        coefficient(scratch, coefficients.X_SLOPE, j),
        coefficient(scratch, coefficients.X_CONSTANT, j),
    )


@inlined
def add_rows(job, scratch, start, rows, j, count, add, like_sums, plain):
    """Add `rows` rows of at most sixteen columns, from column `j` on, to the sums of the chain."""
    like, line = scratch.record.like, forward_of(scratch, j)
    at, stride = (start + j) * like.itemsize, job.width * like.itemsize
    # In the order of memory.
    ahead = (start + rows * j + job.ahead) * like.itemsize
    zero = convert(splat(0.0), like_sums)
    a, b, c, d = zero, zero, zero, zero
    for _ in range(rows):
        e, f = add(job, like, at, count, line, a, b, plain)
        a, b, c, d = c, d, e, f
        if job.ahead:
            prefetch(job.x + ahead)
            if job.grad_y:
                prefetch(job.grad_y + ahead)
        at += stride
        ahead += LANES * like.itemsize
    first = address_of(scratch.record.chain_sums) + like_sums.itemsize * (TOTAL + j)
    second = first + like_sums.itemsize * (PRODUCT - TOTAL)
    store(first, like_sums, load(first, like_sums, LANES) + (a + c), LANES, False)
    store(second, like_sums, load(second, like_sums, LANES) + (b + d), LANES, False)


@inlined
def begin_chain(scratch, count, like_sums):
    zero = convert(splat(0.0), like_sums)
    for kind in (TOTAL, PRODUCT):
        at = address_of(scratch.record.chain_sums) + kind * like_sums.itemsize
        for j in range(0, count, LANES):
            store(at + j * like_sums.itemsize, like_sums, zero, LANES, False)


@inlined
def finish_chain(scratch, count, like_sums):
    """Add the sums of a chain to the columns' sums, and begin the next one with zeros."""
    sums, zero = scratch.record.column_sums, convert(splat(0.0), like_sums)
    for kind in (TOTAL, PRODUCT):
        at = address_of(scratch.record.chain_sums) + kind * like_sums.itemsize
        to = address_of(sums) + kind * sums.itemsize
        for j in range(0, count, LANES):
            here, there = at + j * like_sums.itemsize, to + j * sums.itemsize
            chain = wide(load(here, like_sums, LANES))
            store(there, sums, load(there, sums, LANES) + chain, LANES, False)
            store(here, like_sums, zero, LANES, False)


@inlined
def next_rows(job, block, row):
    """How many rows of one length begin at `row`, at most a chain."""
    rows = min(CHAIN, block.high - row)
    if (row + rows) * job.width > job.size:
        rows -= 1
    return max(rows, 1)


@njit
def choose_shifts(job, block, scratch):
    """Choose values that the sums of a block's channels are taken about."""
    if job.inner == 1:
        shifts.across(job, block, scratch)
    else:
        step = (job.m // job.inner - 1) // 2 * job.channels * job.inner
        shifts.along(job, block, scratch, step)


@inlined
def add_columns(job, scratch, start, rows, whole, add, like_sums, plain):
    """Add `rows` rows of the first `whole` columns."""
    for j in range(0, whole, LANES):
        add_rows(job, scratch, start, rows, j, LANES, add, like_sums, plain)


@inlined
def add_whole(job, scratch, start, rows, whole, add, like_sums, plain):
    """Add rows of the first `whole` columns; of a constant number the compiler makes no loop."""
    if rows == 8:
        add_columns(job, scratch, start, 8, whole, add, like_sums, plain)
    elif rows == 4:
        add_columns(job, scratch, start, 4, whole, add, like_sums, plain)
    elif rows == 2:
        add_columns(job, scratch, start, 2, whole, add, like_sums, plain)
    else:
        add_columns(job, scratch, start, rows, whole, add, like_sums, plain)


@njit
def sum_up(job, block, scratch, add, like_sums):
    """Fill ``scratch.record.sums`` with what `add` adds up, in chains of `like_sums`' type."""
    last = coefficients.FLOOR if job.relu else coefficients.CENTRE
    spread_coefficients(job, block, scratch, coefficients.SHIFT, last)
    clear_sums(block, scratch)
    begin_chain(scratch, block.width, like_sums)
    row = block.low
    while row < block.high:
        end = row + next_rows(job, block, row)
        _, count = row_at(job, block, row)
        whole = count // LANES * LANES
        while row < end:
            start, _ = row_at(job, block, row)
            rows = min(job.together, end - row)
            added = (job, scratch, start, rows, whole, add, like_sums)
            steps.either(steps.is_plain(job), add_whole, added)
            if whole < count:
                add_rows(job, scratch, start, rows, whole, count - whole, add, like_sums, False)
            row += rows
        finish_chain(scratch, count, like_sums)
    gather_sums(job, block, scratch.record.column_sums, scratch.record.sums)


@inlined
def write_vectors(job, scratch, at, first, end, past_cache, step, values_of, plain):
    """Write whole vectors of a row, from column `first`, at a distance of `at` bytes, to `end`."""
    like = scratch.record.like
    for j in range(first, end, LANES):
        step(job, like, at, LANES, past_cache, values_of(scratch, j), plain)
        at += LANES * like.itemsize


@inlined
def write_rows(job, block, scratch, step, values_of, is_plain):
    """Write row by row, each from its first column."""
    like = scratch.record.like
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at, whole = start * like.itemsize, count // LANES * LANES
        run = (job, scratch, at, 0, whole, False, step, values_of)
        steps.either(is_plain(job), write_vectors, run)
        if whole < count:
            at += whole * like.itemsize
            step(job, like, at, count - whole, False, values_of(scratch, whole), False)


@inlined
def write_run(job, scratch, output, start, end, step, values_of, is_plain):
    """Write past the cache from value `start`, the first of a row, to value `end`, as one run.

    So all vectors but the first and the last are whole cache lines; some of them belong to two
    rows. To write a part of a line makes those that follow wait.
    """
    like = scratch.record.like
    at, left = start * like.itemsize, end - start
    j = until_aligned(output + at, like, left)
    if j:
        step(job, like, at, j, False, values_of(scratch, 0), False)
        at += j * like.itemsize
        left -= j
    while left >= LANES:
        vectors = min((job.width - j + LANES - 1) // LANES, left // LANES)
        run = (job, scratch, at, j, j + vectors * LANES, True, step, values_of)
        steps.either(is_plain(job), write_vectors, run)
        at += vectors * LANES * like.itemsize
        left -= vectors * LANES
        j += vectors * LANES
        if j >= job.width:
            j -= job.width
    if left:
        step(job, like, at, left, False, values_of(scratch, j), False)


@inlined
def write(job, block, scratch, output, is_plain, step, values_of):
    """Write a block of what begins at `output`, by a step and the coefficients that it takes."""
    if not job.stream:
        write_rows(job, block, scratch, step, values_of, is_plain)
    elif block.width == job.width:
        start, _ = row_at(job, block, block.low)
        end = min(block.high * job.width, job.size)
        write_run(job, scratch, output, start, end, step, values_of, is_plain)
    else:
        for row in range(block.low, block.high):
            start, count = row_at(job, block, row)
            write_run(job, scratch, output, start, start + count, step, values_of, is_plain)


@njit
def normalize(job, block, scratch):
    """Write a block of y."""
    spread_coefficients(job, block, scratch, coefficients.CENTRE, coefficients.FLOOR)
    write(job, block, scratch, job.y, steps.is_plain_forward, steps.normalize, forward_of)


@njit
def differentiate(job, block, scratch):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    spread_coefficients(job, block, scratch, coefficients.CENTRE, coefficients.COUNT)
    write(job, block, scratch, job.grad_x, steps.is_plain, steps.differentiate, backward_of)
