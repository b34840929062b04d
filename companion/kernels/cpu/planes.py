"""The planes view: ``(N, C, S)`` with S values side by side, long enough for vector instructions.

A block is a few channels; a row is one tile of each of their planes, the whole plane if it is
small. Channels are neighbours in memory, so a row is one piece of it.
"""

from __future__ import annotations

import numpy as np

from . import coefficients as of
from .jobs import SUMS, WRITES
from .runtime import address_of, array_at, inlined, njit
from .tiles import load, median_value, place, store


@inlined(fastmath=SUMS)
def tile_moments(x, shift):
    """Σ(x - shift) and Σ(x - shift)²."""
    total, squares = 0.0, 0.0
    for i in range(len(x)):
        shifted = np.float64(x[i]) - shift
        total += shifted
        squares += shifted * shifted
    return total, squares


@inlined(fastmath=SUMS)
def tile_products(g, x, mean):
    """Σg and Σg·(x - mean)."""
    total, product = 0.0, 0.0
    for i in range(len(x)):
        value = np.float64(g[i])
        total += value
        product += value * (np.float64(x[i]) - mean)
    return total, product


@inlined(fastmath=WRITES)
def tile_normalize(x, centre, slope, constant, floor, y):
    """y = (x - centre)·slope + constant, not below `floor`: 0 for a ReLU, else -∞."""
    for i in range(len(y)):
        value = (x[i] - centre) * slope + constant
        y[i] = floor if value < floor else value


@njit(fastmath=WRITES)
def tile_normalize_add(x, residual, centre, slope, constant, floor, y):
    """As :func:`tile_normalize`, with the residual added before the ReLU."""
    for i in range(len(y)):
        value = (x[i] - centre) * slope + constant + residual[i]
        y[i] = floor if value < floor else value


@inlined(fastmath=WRITES)
def tile_mask(g, x, centre, slope, constant, masked):
    """The gradient that a ReLU lets through: none where :func:`tile_normalize` gave 0."""
    zero = x.dtype.type(0)
    for i in range(len(g)):
        value = (x[i] - centre) * slope + constant
        masked[i] = zero if value <= zero else g[i]


@inlined(fastmath=WRITES)
def tile_mask_by(g, y, masked):
    """As :func:`tile_mask`, from the output."""
    zero = y.dtype.type(0)
    for i in range(len(g)):
        masked[i] = zero if y[i] <= zero else g[i]


@inlined(fastmath=WRITES)
def tile_differentiate(g, x, g_mean, g_slope, centre, x_slope, constant, out):
    """((g - g_mean) + (x - centre)·x_slope + constant)·g_slope."""
    for i in range(len(out)):
        through = (x[i] - centre) * x_slope + constant
        out[i] = (g[i] - g_mean + through) * g_slope


@inlined(fastmath=WRITES)
def tile_scale(g, slope, out):
    for i in range(len(out)):
        out[i] = g[i] * slope


@inlined
def row_at(job, block, row):
    """Where a row of the block begins in memory, and how long its tiles are."""
    plane = row // job.tiles
    offset = (row - plane * job.tiles) * job.tile
    start = (plane * job.channels + block.channel) * job.inner + offset
    return start, min(job.tile, job.inner - offset)


@njit
def moments(job, block, room):
    """Fill ``room.sums`` with Σ(x - shift) and Σ(x - shift)² per channel of a block."""
    for c in range(block.channels):
        first, step = (block.channel + c) * job.inner, (job.inner - 1) // 2
        of.set_shift(job, block.channel + c, median_value(job.x, first, step, room.at.packed))
    of.set_centre(job, block, room.at.channel)
    room.at.sums[:, : block.channels] = 0.0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            shift = np.float64(room.at.channel[of.CENTRE, c])
            at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
            x = array_at(at, count, room.at.tiles)
            total, squares = tile_moments(x, shift)
            room.at.sums[0, c] += total
            room.at.sums[1, c] += squares
            start += job.inner


@njit
def normalize(job, block, room):
    """Write a block of y."""
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            centre, slope = room.at.channel[of.CENTRE, c], room.at.channel[of.SLOPE, c]
            constant, floor = room.at.channel[of.CONSTANT, c], room.at.channel[of.FLOOR, c]
            at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
            x = array_at(at, count, room.at.tiles)
            at = place(job.y, start, room.at.packed, room.at.tiles[1], job.stream)
            y = array_at(at, count, room.at.tiles)
            if job.residual:
                at = load(job.residual, start, count, room.at.packed, room.at.tiles[2])
                residual = array_at(at, count, room.at.tiles)
                tile_normalize_add(x, residual, centre, slope, constant, floor, y)
            else:
                tile_normalize(x, centre, slope, constant, floor, y)
            store(job.y, start, y, room.at.packed, job.stream)
            start += job.inner


@njit
def gradient_tile(job, room, start, x, c):
    """Where the gradient behind the ReLU lies, of the tile of the input that begins at `start`."""
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
        centre, slope = room.at.channel[of.CENTRE, c], room.at.channel[of.SLOPE, c]
        tile_mask(g, x, centre, slope, room.at.channel[of.CONSTANT, c], masked)
    return address_of(masked)


@njit
def products(job, block, room):
    """Fill ``room.sums`` with Σg and Σg·(x - centre) per channel of a block."""
    room.at.sums[:, : block.channels] = 0.0
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            centre = np.float64(room.at.channel[of.CENTRE, c])
            at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
            x = array_at(at, count, room.at.tiles)
            g = array_at(gradient_tile(job, room, start, x, c), count, room.at.tiles)
            total, product = tile_products(g, x, centre)
            room.at.sums[0, c] += total
            room.at.sums[1, c] += product
            start += job.inner


@njit
def differentiate(job, block, room):
    """Write a block of ∂L/∂x and, where asked for, of ∂L/∂residual."""
    for row in range(block.low, block.high):
        start, count = row_at(job, block, row)
        for c in range(block.channels):
            at = load(job.x, start, count, room.at.packed, room.at.tiles[0])
            x = array_at(at, count, room.at.tiles)
            g = array_at(gradient_tile(job, room, start, x, c), count, room.at.tiles)
            at = place(job.grad_x, start, room.at.packed, room.at.tiles[4], job.stream)
            grad_x = array_at(at, count, room.at.tiles)
            if job.training:
                tile_differentiate(
                    g,
                    x,
                    room.at.channel[of.G_MEAN, c],
                    room.at.channel[of.G_SLOPE, c],
                    room.at.channel[of.CENTRE, c],
                    room.at.channel[of.X_SLOPE, c],
                    room.at.channel[of.X_CONSTANT, c],
                    grad_x,
                )
            else:
                tile_scale(g, room.at.channel[of.G_SLOPE, c], grad_x)
            store(job.grad_x, start, grad_x, room.at.packed, job.stream)
            if job.grad_residual:
                copy_gradient(job, room, start, g)
            start += job.inner


@njit
def copy_gradient(job, room, start, g):
    """Hand the gradient behind the ReLU on to the residual."""
    at = place(job.grad_residual, start, room.at.packed, room.at.tiles[5], job.stream)
    to = array_at(at, len(g), room.at.tiles)
    for i in range(len(g)):
        to[i] = g[i]
    store(job.grad_residual, start, to, room.at.packed, job.stream)
