"""Tiles: a few thousand neighbouring values, brought to the type of computation and back.

Half precision is computed in float32. Where the stored type is the type of computation a tile is
used where it lies, and nothing is copied.
"""

from __future__ import annotations

import numpy as np

from .runtime import address_of, array_at, narrow, njit, overload, stream_line, widen

# Types of parameters and statistics, told apart while running: 0 stands for an absent tensor.
KINDS = {"float32": 1, "float64": 2, "float16": 3, "bfloat16": 4}


@njit
def read(address, kind, index, default):
    """A channel's parameter or statistic, of any type, as float64; `default` if it is absent."""
    if kind == 1:
        return np.float64(array_at(address, index + 1, np.float32(0))[index])
    if kind == 2:
        return array_at(address, index + 1, np.float64(0))[index]
    if kind == 3:
        return np.float64(widen(array_at(address, index + 1, np.int16(0))[index]))
    if kind == 4:
        return np.float64(widen(array_at(address, index + 1, np.uint16(0))[index]))
    return default


@njit
def write(address, kind, index, value):
    """Round a float64 to the type of the tensor at `address` and put it there."""
    if kind == 1:
        array_at(address, index + 1, np.float32(0))[index] = value
    elif kind == 2:
        array_at(address, index + 1, np.float64(0))[index] = value
    elif kind == 3:
        halves = array_at(address, index + 1, np.int16(0))
        halves[index] = narrow(np.float32(value), halves[index])
    elif kind == 4:
        bfloats = array_at(address, index + 1, np.uint16(0))
        bfloats[index] = narrow(np.float32(value), bfloats[index])


# The next three depend on whether the stored type is the type of computation. Numba compiles what
# the @overload below each of them returns. `like` is an array of the stored type, `buffer` one of
# the type of computation.


def load(address, start, count, like, buffer):
    """Where a tile lies in the type of computation: at its place or, converted, in `buffer`."""


@overload(load)
def _load(address, start, count, like, buffer):  # noqa: ARG001
    if like.dtype == buffer.dtype:
        return lambda address, start, count, like, buffer: address + start * like.itemsize  # noqa: ARG005

    def convert(address, start, count, like, buffer):
        values = array_at(address + start * like.itemsize, count, like)
        for i in range(count):
            buffer[i] = widen(values[i])
        return address_of(buffer)

    return convert


def place(address, start, like, buffer, stream):
    """Where to compute a tile: at its place or, if it needs more work, in `buffer`."""


@overload(place)
def _place(address, start, like, buffer, stream):  # noqa: ARG001
    if like.dtype != buffer.dtype:
        return lambda address, start, like, buffer, stream: address_of(buffer)  # noqa: ARG005

    def choose(address, start, like, buffer, stream):
        return address_of(buffer) if stream else address + start * like.itemsize

    return choose


def store(address, start, tile, packed, stream):
    """Put a tile that was computed where :func:`place` said to its place."""


@overload(store)
def _store(address, start, tile, packed, stream):  # noqa: ARG001
    if packed.dtype == tile.dtype:

        def put(address, start, tile, packed, stream):
            if stream:
                stream_out(address + start * packed.itemsize, address_of(tile), len(tile), packed)

        return put

    def convert(address, start, tile, packed, stream):
        to = address + start * packed.itemsize
        values = array_at(address_of(packed) if stream else to, len(tile), packed)
        for i in range(len(tile)):
            values[i] = narrow(tile[i], values[i])
        if stream:
            stream_out(to, address_of(packed), len(tile), packed)

    return convert


@njit
def stream_out(to, source, count, like):
    """Copy whole cache lines past the cache, and the ragged ends as usual."""
    size = like.itemsize
    head = min(-to % 64 // size, count)
    lines = (count - head) * size // 64
    for line in range(lines):
        stream_line(to + head * size + 64 * line, source + head * size + 64 * line)
    old, new = array_at(source, count, like), array_at(to, count, like)
    for i in range(head):
        new[i] = old[i]
    for i in range(head + lines * 64 // size, count):
        new[i] = old[i]


@njit
def median_value(address, first, step, like):
    """A value to take sums about: the middle one of three of the channel's, 0 if not a number.

    Not the first one, which may be far from all others.
    """
    values = array_at(address, first + 2 * step + 1, like)
    a, b, c = widen(values[first]), widen(values[first + step]), widen(values[first + 2 * step])
    value = max(min(a, b), min(max(a, b), c))
    return np.float64(value) if np.isfinite(value) else 0.0
