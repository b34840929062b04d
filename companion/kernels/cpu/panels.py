"""The panel view: rows of C·S columns; a few channels, the same columns of all rows.

It serves channels-last and (N, C), where S is 1, and maps too small to fill a vector. Where C·S is
small, several rows are joined to one, in which the channels repeat: memory does not change by that.

Sums are kept for each column, and the columns of a channel are added up at the end. What a
channel's values are combined with is spread over its columns first.
"""

from __future__ import annotations

import numpy as np

from . import coefficients as of
from .jobs import KEPT, SUMS, WRITES
from .planes import copy_gradient, tile_mask_by
from .plans import COLUMNS
from .runtime import address_of, array_at, inlined, njit
from .tiles import load, median_value, place, store

# Where each kind of value begins among those kept for the columns. All kinds lie in one array, at
# fixed distances, so that the compiler sees at once that they do not overlap.
TOTAL, PRODUCT = 0, KEPT
CENTRE, SLOPE, CONSTANT = of.CENTRE * COLUMNS, of.SLOPE * COLUMNS, of.CONSTANT * COLUMNS
G_MEAN, G_SLOPE = of.G_MEAN * COLUMNS, of.G_SLOPE * COLUMNS
X_SLOPE, X_CONSTANT = of.X_SLOPE * COLUMNS, of.X_CONSTANT * COLUMNS


@inlined(fastmath=SUMS)
def row_moments(x, of, kept):
    """Add the moments of a row about the centre, column by column."""
    for j in range(len(x)):
        shifted = np.float64(x[j]) - np.float64(of[CENTRE + j])
        kept[TOTAL + j] += shifted
        kept[PRODUCT + j] += shifted * shifted


@inlined(fastmath=SUMS)
def row_products(g, x, of, kept):
    """Add g and g·(x - centre) of a row, column by column."""
    for j in range(len(x)):
        value = np.float64(g[j])
        kept[TOTAL + j] += value
        kept[PRODUCT + j] += value * (np.float64(x[j]) - np.float64(of[CENTRE + j]))


@inlined(fastmath=WRITES)
def row_normalize(x, of, floor, y):
    for j in range(len(y)):
        value = (x[j] - of[CENTRE + j]) * of[SLOPE + j] + of[CONSTANT + j]
        y[j] = floor if value < floor else value


@njit(fastmath=WRITES)
def row_normalize_add(x, residual, of, floor, y):
    for j in range(len(y)):
        value = (x[j] - of[CENTRE + j]) * of[SLOPE + j] + of[CONSTANT + j] + residual[j]
        y[j] = floor if value < floor else value


@inlined(fastmath=WRITES)
def row_mask(g, x, of, masked):
    zero = x.dtype.type(0)
    for j in range(len(g)):
        value = (x[j] - of[CENTRE + j]) * of[SLOPE + j] + of[CONSTANT + j]
        masked[j] = zero if value <= zero else g[j]


@inlined(fastmath=WRITES)
def row_differentiate(g, x, of, out):
    for j in range(len(out)):
        through = (x[j] - of[CENTRE + j]) * of[X_SLOPE + j] + of[X_CONSTANT + j]
        out[j] = (g[j] - of[G_MEAN + j] + through) * of[G_SLOPE + j]


@inlined(fastmath=WRITES)
def row_scale(g, of, out):
    for j in range(len(out)):
        out[j] = g[j] * of[G_SLOPE + j]


@inlined
def row_at(job, block, row):
    """Where a row of the block begins in memory, and its length: the last joined row is short."""
    start = row * job.width + block.channel * job.inner
    return start, min(block.width, job.size - start)


@njit
def spread(job, block, values, columns, at):
    """Repeat each channel's value for each of its columns; these begin at `at`."""
    j = 0
    if job.inner == 1:
        while j < block.width:
            for c in range(block.channels):
                columns[at + j + c] = values[c]
            j += block.channels
    else:
        while j < block.width:
            for c in range(block.channels):
                columns[at + j : at + j + job.inner] = values[c]
                j += job.inner


@njit
def spread_coefficients(job, block, room, first, last):
    for name in range(first, last):
        spread(job, block, room.at.channel[name], room.at.column, name * COLUMNS)


@inlined
def cleared_sums(room):
    """Where the two sums of each column are kept, 0 to begin with."""
    for j in range(len(room.at.kept)):
        room.at.kept[j] = 0.0
    # By its address, or the compiler would fear that it overlaps with other room.
    return room.at.kept_at


@njit
def gather_sums(job, block, columns, sums):
    """Add up each channel's columns: :func:`spread`, turned around."""
    sums[:, : block.channels] = 0.0
    j = 0
    while j < block.width:
        for c in range(block.channels):
            for _ in range(job.inner):
                sums[0, c] += columns[TOTAL + j]
                sums[1, c] += columns[PRODUCT + j]
                j += 1


@njit
def moments(job, block, room):
    """Fill ``room.sums`` with Σ(x - shift) and Σ(x - shift)² per channel of a block."""
    # The first, the middle and the last row have a candidate each.
    step = (job.m // job.inner - 1) // 2 * job.channels * job.inner
    for c in range(block.channels):
        first = (block.channel + c) * job.inner
        of.set_shift(job, block.channel + c, median_value(job.x, first, step, room.at.packed))
    of.set_centre(job, block, room.at.channel)
    spread_coefficients(job, block, room, of.CENTRE, of.SLOPE)
    kept = array_at(cleared_sums(room), 2 * KEPT, room.at.sums)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
        row_moments(array_at(at, count, room.at.tiles), room.at.column, kept)
    gather_sums(job, block, kept, room.at.sums)


@njit
def normalize(job, block, room):
    """Write a block of y."""
    spread_coefficients(job, block, room, of.CENTRE, of.FLOOR)
    floor = room.at.channel[of.FLOOR, 0]
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
        x = array_at(at, count, room.at.tiles)
        at = place(job.y, start, room.at.packed, room.at.tiles[1], job.stream)
        y = array_at(at, count, room.at.tiles)
        if job.residual:
            at = load(job.residual, start, count, room.at.packed, room.at.tiles[2])
            residual = array_at(at, count, room.at.tiles)
            row_normalize_add(x, residual, room.at.column, floor, y)
        else:
            row_normalize(x, room.at.column, floor, y)
        store(job.y, start, y, room.at.packed, job.stream)


@njit
def gradient_row(job, room, start, x):
    """Where the gradient behind the ReLU lies, of the row of the input that begins at `start`."""
    count = len(x)
    at = load(job.grad_y, start, count, room.at.packed, room.at.tiles[1])
    g = array_at(at, count, room.at.tiles)
    if not job.relu:
        return at
    masked = room.at.tiles[2]
    if job.y:
        at = load(job.y, start, count, room.at.packed, room.at.tiles[3])
        tile_mask_by(g, array_at(at, count, room.at.tiles), masked)
    else:
        row_mask(g, x, room.at.column, masked)
    return address_of(masked)


@njit
def products(job, block, room):
    """Fill ``room.sums`` with Σg and Σg·(x - centre) per channel of a block."""
    spread_coefficients(job, block, room, of.CENTRE, of.FLOOR)
    kept = array_at(cleared_sums(room), 2 * KEPT, room.at.sums)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
        x = array_at(at, count, room.at.tiles)
        g = array_at(gradient_row(job, room, start, x), count, room.at.tiles)
        row_products(g, x, room.at.column, kept)
    gather_sums(job, block, kept, room.at.sums)


@njit
def differentiate(job, block, room):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    spread_coefficients(job, block, room, of.CENTRE, of.COUNT)
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
        x = array_at(at, count, room.at.tiles)
        g = array_at(gradient_row(job, room, start, x), count, room.at.tiles)
        at = place(job.grad_x, start, room.at.packed, room.at.tiles[4], job.stream)
        grad_x = array_at(at, count, room.at.tiles)
        if job.training:
            row_differentiate(g, x, room.at.column, grad_x)
        else:
            row_scale(g, room.at.column, grad_x)
        store(job.grad_x, start, grad_x, room.at.packed, job.stream)
        if job.grad_residual:
            copy_gradient(job, room, start, g)
