"""How a tensor is cut into blocks, chunks and rows, see :mod:`.jobs`; no compiled code here."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

COLUMNS = 1024
"""Columns of a panel, and channels of a block, at most: what is kept for each of them stays in the
first cache."""
TILE = 2048
"""Values handled at a time: the arrays of a tile stay in the first cache."""

# Measured on two cores of an AMD EPYC 9004 (1 MiB of second, 32 MiB of third cache), float32, by
# trying values and running the benchmark, 2026-11:
# below so many values a second thread costs more than it brings;
_VALUES_PER_THREAD = 2**17
# shorter planes leave vector registers half empty;
_SHORTEST_PLANE = 128
# values side by side after which jumping to the next plane no longer slows down memory. Shorter
# runs, which fit the second cache, take up to twice as long as longer ones, which fit the third;
_LONG_RUN = 2**14
_BLOCK_BYTES = 2**22
# with more bytes than this, reading and writing together, stores past the cache are faster.
_STREAM_BYTES = 2**23


class Plan(NamedTuple):
    """How a tensor is cut; the names are those of ``jobs.JOB``."""

    channels: int
    inner: int
    m: int
    size: int
    rows: int
    width: int
    tile: int
    tiles: int
    block: int
    blocks: int
    chunk: int
    chunks: int
    stream: bool
    threads: int


@cache
def plan(shape: tuple[int, ...], last: bool, item: int, tensors: int, threads: int) -> Plan:
    """Cut a tensor.

    Parameters
    ----------
    shape : of the activation
    last : whether channels are last in memory
    item : bytes per value
    tensors : how many tensors are swept twice: 1 forward, 2 backward, 0 if nothing is summed up
    threads : how many there are
    """
    channels, size = shape[1], math.prod(shape)
    m = size // channels
    inner = 1 if last else m // shape[0]
    threads = max(1, min(threads, size // _VALUES_PER_THREAD))
    width = tile = tiles = 0
    if inner >= _SHORTEST_PLANE:
        tile = min(inner, TILE)
        tiles = -(-inner // tile)
        rows = shape[0] * tiles
        if tensors == 0:
            # From the first value to the last.
            block = min(channels, COLUMNS)
        else:
            in_cache = _BLOCK_BYTES // (item * tensors * m)
            block = max(1, min(_LONG_RUN // inner, in_cache, channels // (4 * threads)))
    else:
        columns = COLUMNS // max(1, tensors)
        block = max(1, min(channels, columns // inner))
        width = channels * inner
        if block == channels:
            # Joined rows.
            width *= max(1, columns // width)
        rows = -(-size // width)
    blocks = -(-channels // block)
    # A few chunks for every thread where blocks do not give each of them one.
    wanted = 1 if blocks >= threads else -(-4 * threads // blocks)
    chunk = -(-rows // wanted)
    return Plan(
        channels=channels,
        inner=inner,
        m=m,
        size=size,
        rows=rows,
        width=width,
        tile=tile,
        tiles=tiles,
        block=block,
        blocks=blocks,
        chunk=chunk,
        chunks=-(-rows // chunk),
        stream=size * item * (tensors + 1) > _STREAM_BYTES,
        threads=threads,
    )
