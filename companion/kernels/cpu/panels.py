"""The panel view: rows of C·S columns; a few channels, the same columns of all rows.

It serves channels-last and (N, C), where S is 1, and maps too small to fill a vector. Where C·S is
small, several rows are joined to one, in which the channels repeat: memory does not change by that.

Sums are kept for each column, and the columns of a channel are added up at the end. To load and
store them takes longer than to add to them, so the rows of a chain are added at once. What a
channel's values are combined with is spread over its columns first.
"""

from __future__ import annotations

from . import coefficients as of
from . import shifts, steps
from .jobs import KEPT
from .plans import COLUMNS
from .runtime import address_of, inlined, njit
from .steps import CHAIN, Backward, Forward
from .vectors import LANES, load, prefetch, splat, store, wide

# Where each kind of value begins among those kept for the columns. All kinds lie in one array, at
# fixed distances, so that the compiler sees at once that they do not overlap.
TOTAL, PRODUCT = 0, KEPT


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
                count, offset = of.lanes_from(block, c), c * columns.itemsize
                several = load(address_of(values) + offset, columns, count)
                store(place + offset, columns, several, count, False)
            j += block.channels
        else:
            for c in range(block.channels):
                columns[at + j : at + j + job.inner] = values[c]
                j += job.inner


@njit
def spread_coefficients(job, block, room, first, last):
    for name in range(first, last):
        spread(job, block, room.at.channel[name], room.at.column, name * COLUMNS)


@njit
def clear_sums(block, room):
    for j in range(-(-block.width // LANES) * LANES):
        room.at.kept[TOTAL + j] = 0.0
        room.at.kept[PRODUCT + j] = 0.0


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
def coefficient(room, name, j):
    """What sixteen columns from `j` on are combined with."""
    column = room.at.column
    return load(address_of(column) + (name * COLUMNS + j) * column.itemsize, column, LANES)


@inlined
def forward_of(room, j):
    return Forward(
        coefficient(room, of.SHIFT, j),
        coefficient(room, of.CENTRE, j),
        coefficient(room, of.SLOPE, j),
        coefficient(room, of.SLOPE_REST, j),
        coefficient(room, of.CONSTANT, j),
        coefficient(room, of.CONSTANT_REST, j),
        splat(room.at.channel[of.FLOOR, 0]),
    )


@inlined
def backward_of(room, j):
    return Backward(
        coefficient(room, of.G_MEAN, j),
        coefficient(room, of.X_SLOPE, j),
        coefficient(room, of.X_CONSTANT, j),
    )


@inlined
def add_chain(job, room, start, rows, j, count, add, zero, plain):
    """Add `rows` rows of at most sixteen columns, from column `j` on."""
    like, kept, forward = room.at.like, room.at.kept, forward_of(room, j)
    at, stride = (start + j) * like.itemsize, job.width * like.itemsize
    # The next rows, in the order of memory.
    ahead = (start + rows * (job.width + j)) * like.itemsize
    a, b, c, d = zero, zero, zero, zero
    for _ in range(rows):
        e, f = add(job, like, at, count, forward, a, b, plain)
        a, b, c, d = c, d, e, f
        if job.prefetch:
            prefetch(job.x + ahead)
            if job.grad_y:
                prefetch(job.grad_y + ahead)
        at += stride
        ahead += LANES * like.itemsize
    first = address_of(kept) + 8 * (TOTAL + j)
    second = address_of(kept) + 8 * (PRODUCT + j)
    store(first, kept, load(first, kept, LANES) + wide(a + c), LANES, False)
    store(second, kept, load(second, kept, LANES) + wide(b + d), LANES, False)


@inlined
def next_rows(job, block, row):
    """How many rows of one length begin at `row`, at most a chain."""
    rows = min(CHAIN, block.high - row)
    if (row + rows) * job.width > job.size:
        rows -= 1
    return max(rows, 1)


@njit
def choose_shifts(job, block, room):
    """Choose values that the sums of a block's channels are taken about."""
    if job.inner == 1:
        shifts.across(job, block, room)
    else:
        step = (job.m // job.inner - 1) // 2 * job.channels * job.inner
        shifts.along(job, block, room, step)


@njit
def sum_up(job, block, room, add, zero):
    """Fill ``room.sums`` with what `add` adds up, per channel, in chains that begin with `zero`."""
    spread_coefficients(job, block, room, of.SHIFT, of.FLOOR if job.relu else of.CENTRE)
    clear_sums(block, room)
    row = block.low
    while row < block.high:
        rows = next_rows(job, block, row)
        start, count = row_at(job, block, row)
        whole = count // LANES * LANES
        if steps.is_plain(job):
            for j in range(0, whole, LANES):
                add_chain(job, room, start, rows, j, LANES, add, zero, True)
        else:
            for j in range(0, whole, LANES):
                add_chain(job, room, start, rows, j, LANES, add, zero, False)
        if whole < count:
            add_chain(job, room, start, rows, whole, count - whole, add, zero, False)
        row += rows
    gather_sums(job, block, room.at.kept, room.at.sums)


@njit
def normalize(job, block, room):
    """Write a block of y."""
    like = room.at.like
    spread_coefficients(job, block, room, of.CENTRE, of.FLOOR)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at, whole = start * like.itemsize, count // LANES * LANES
        past_cache = job.stream and (job.y + at) % 64 == 0
        if steps.is_plain(job) and not job.precise:
            for j in range(0, whole, LANES):
                steps.normalize(job, like, at, LANES, past_cache, forward_of(room, j), True)
                at += LANES * like.itemsize
        else:
            for j in range(0, whole, LANES):
                steps.normalize(job, like, at, LANES, past_cache, forward_of(room, j), False)
                at += LANES * like.itemsize
        if whole < count:
            steps.normalize(job, like, at, count - whole, False, forward_of(room, whole), False)


@njit
def differentiate(job, block, room):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    like = room.at.like
    spread_coefficients(job, block, room, of.CENTRE, of.COUNT)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at, whole = start * like.itemsize, count // LANES * LANES
        past_cache = job.stream and (job.grad_x + at) % 64 == 0
        if steps.is_plain(job):
            for j in range(0, whole, LANES):
                forward, back = forward_of(room, j), backward_of(room, j)
                steps.differentiate(job, like, at, LANES, past_cache, forward, back, True)
                at += LANES * like.itemsize
        else:
            for j in range(0, whole, LANES):
                forward, back = forward_of(room, j), backward_of(room, j)
                steps.differentiate(job, like, at, LANES, past_cache, forward, back, False)
                at += LANES * like.itemsize
        if whole < count:
            forward, back = forward_of(room, whole), backward_of(room, whole)
            steps.differentiate(job, like, at, count - whole, False, forward, back, False)
