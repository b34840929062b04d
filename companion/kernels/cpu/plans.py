"""How a tensor is cut into blocks, chunks and rows, see :mod:`.jobs`; no compiled code here."""

from __future__ import annotations

import math
from typing import NamedTuple

from ... import caches

COLUMNS = 2048
"""Columns of a panel, and channels of a block, at most: what is kept for each of them stays in the
first cache."""
TILE = 2**16
"""Values of a plane handled at a time: enough for the memory to be fast."""
LINE = 64
"""Bytes of a cache line."""

# Measured on two cores of an AMD EPYC 9004 (1 MiB of second, 32 MiB of third cache), float32, by
# trying values and running the benchmark, 2026-11:
# below so many values a second thread costs more than it brings (an Intel Xeon, 2026-11), fewer
# where threads need not wait for each other's sums;
_VALUES_PER_THREAD = 3 * 2**14
_VALUES_PER_THREAD_ONCE = 2**15
# and chunks so small that what is done once for each channel of each of them counts;
_VALUES_PER_CHUNK = 2**19
# shorter planes leave vector registers half empty, and are better seen as a panel,
_SHORTEST_PLANE = 128
# but for those that are not that short where nothing is summed up, or where a panel would have so
# few rows that its columns' coefficients are most of the work;
_SHORT_PLANE = 32
_FEW_ROWS = 16
# joined rows up to so many columns fill vectors; more columns cost more to prepare;
_JOINED_COLUMNS = 256
# unless these end within a line: then it is better to have fewer ends, or whole lines;
_MOST_JOINED_COLUMNS = 1024
# values side by side after which jumping to the next plane no longer slows down memory;
_LONG_RUN = 2**14
# rows of a panel added up at once, by the number of tensors, and half as many of large ones: from
# more rows at a time memory is slower, of fewer the columns' sums are loaded and stored more often;
_TOGETHER = (8, 8, 4)
# how many values of large panels, of all tensors together, to ask for ahead;
_AHEAD = 2**12
# of what is :func:`_large` stores past the cache are faster, unless a block's planes begin and end
# within a cache line and are not longer than this.
_RAGGED_BYTES = 2**12
# So few values are normalized in float64: next to the call it hardly counts. Else PyTorch's largest
# error may, by luck, be the smaller one; of more values it seldom is.
_FEW_VALUES = 2**12


def _block_bytes() -> int:
    """Bytes of a block.

    Half of a second cache of 2 MiB is best on an Intel Xeon of 2023, whose third cache is far: 20 %
    better backward than 4 MiB. On the EPYC, blocks for the second cache, of 1 MiB, have runs so
    short that they take up to twice as long as blocks for the third, which is near.
    """
    second = caches.sizes().get(2, 0)
    return second // 2 if second >= 2**21 else 2**22


_BLOCK_BYTES = _block_bytes()


def _large() -> tuple[int, int, int]:
    """More bytes than these in a tensor are not kept in the cache, by `tensors` of :func:`plan`.

    On an EPYC 9005 (1 MiB of second, 32 MiB of third cache, 2026-11) all that a pass reads and
    writes fits the third cache, or three quarters of it where the pass comes back to what it read.
    On the Xeon, whose third cache is far, it is less.
    """
    known = caches.sizes()
    if known.get(2, 0) >= 2**21:
        return 2**23, 2**22, 2**23 // 3
    third = min(known.get(3, 2**25), 2**25)
    return third // 2, 3 * third // 8, third // 4


_LARGE = _large()


class Plan(NamedTuple):
    """How a tensor is cut. A job has these numbers besides its own, see :class:`.jobs.Job`."""

    channels: int
    inner: int
    """How many values of a channel lie side by side."""
    m: int
    """Values per channel."""
    size: int
    """All values."""
    rows: int
    width: int
    """Values of a row of a panel. 0 is for the planes view, where a row is a tile of each plane."""
    tile: int
    tiles: int
    """Tiles of a plane."""
    block: int
    """Channels of a block."""
    blocks: int
    chunk: int
    """Rows of a chunk."""
    chunks: int
    together: int
    """Rows of a panel that are added up at once, in registers: 8, 4 or 2."""
    ahead: int
    """How many values ahead to ask for those of a panel that will be summed up; 0: not at all."""
    stream: bool
    """Whether to store past the cache."""
    precise: bool
    """Whether to normalize in float64."""
    threads: int


def plan(shape: tuple[int, ...], last: bool, item: int, tensors: int, threads: int) -> Plan:
    """Cut a tensor.

    Parameters
    ----------
    shape
        of the activation
    last
        whether channels are last in memory
    item
        bytes per value
    tensors
        how many tensors are swept twice: 1 forward, 2 backward, 0 if nothing is summed up
    threads
        how many there are
    """
    channels, size = shape[1], math.prod(shape)
    m = size // channels
    inner = 1 if last else m // shape[0]
    each = _VALUES_PER_THREAD if tensors else _VALUES_PER_THREAD_ONCE
    threads = max(1, min(threads, size // each))
    width = tile = tiles = 0
    short_will_do = tensors == 0 or shape[0] < _FEW_ROWS
    if inner >= (_SHORT_PLANE if short_will_do else _SHORTEST_PLANE):
        tile = min(inner, TILE)
        tiles = -(-inner // tile)
        rows = shape[0] * tiles
        block = _channels_of_planes(channels, m, inner, item * tensors, threads)
        # Ragged ends of what lies in one piece would be written twice, in parts.
        piece = item * (inner if tiles > 1 else inner * block)
        whole_lines = piece % LINE == 0 or piece > _RAGGED_BYTES
    else:
        block = _channels_of_panel(channels, inner, item)
        width = channels * inner
        if block == channels:
            width *= _joined_rows(width, item, size)
        rows = -(-size // width)
        whole_lines = block == channels or channels * inner * item % LINE == 0
    blocks = -(-channels // block)
    # A few chunks for every thread where blocks do not give each of them one; or may not give each
    # the same share, and are too large for a cache, so that nothing is lost.
    most = max(threads, min(4 * threads, size // _VALUES_PER_CHUNK))
    too_large = block * m * item * tensors > 4 * _BLOCK_BYTES
    wanted = 1 if blocks >= threads and not too_large else -(-most // blocks)
    large = size * item > _LARGE[tensors]
    chunk = _rows_of_chunk(rows, wanted, blocks, threads)
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
        together=_TOGETHER[tensors] // (2 if large else 1),
        ahead=_AHEAD // tensors if large and tensors else 0,
        stream=large and whole_lines,
        precise=size <= _FEW_VALUES,
        threads=threads,
    )


def _rows_of_chunk(rows: int, wanted: int, blocks: int, threads: int) -> int:
    """Rows of a chunk, of which a block has `wanted` or fewer.

    Threads do whole chunks. The number of chunks is that with which the busiest thread has least to
    do; of several it is the largest, since threads may not be equally fast.
    """

    def rows_of_the_busiest(count: int) -> int:
        chunk = -(-rows // count)
        return -(-blocks * -(-rows // chunk) // threads) * chunk

    return -(-rows // min(range(wanted, 0, -1), key=rows_of_the_busiest))


def _channels_of_planes(channels: int, m: int, inner: int, bytes_each: int, threads: int) -> int:
    """Channels of a block whose planes are swept twice, `bytes_each` per value; 0 for once."""
    if bytes_each == 0:
        # From the first value to the last.
        return min(channels, COLUMNS)
    in_cache = _BLOCK_BYTES // (bytes_each * m)
    # Several blocks for each of several threads. One thread does best with few: what a channel
    # needs once is computed for sixteen channels at a time.
    share = channels if threads == 1 else channels // (4 * threads)
    most = max(1, min(_LONG_RUN // inner, in_cache, share))

    def channels_of_the_busiest(block: int) -> int:
        blocks = -(-channels // block)
        return -(-blocks // threads) * block

    # A little fewer, if the busiest thread then has less to do.
    fewest = -(-3 * most // 4)
    return min(range(most, fewest - 1, -1), key=channels_of_the_busiest)


def _joined_rows(width: int, item: int, size: int) -> int:
    """How many rows of a few columns make one: of whole lines, unless that takes too many rows."""
    most = max(1, _JOINED_COLUMNS // width)
    unit = LINE // math.gcd(LINE, width * item)
    if unit <= most:
        return most // unit * unit
    more = max(1, min(unit, _MOST_JOINED_COLUMNS // width))
    return more if more * width * _FEW_ROWS <= size else most


def _channels_of_panel(channels: int, inner: int, item: int) -> int:
    """Channels of a block whose columns make a panel: about as many in each, and whole lines."""
    most = max(1, COLUMNS // inner)
    if most >= channels:
        return channels
    unit = LINE // math.gcd(LINE, inner * item)
    each = -(-channels // -(-channels // most))
    return min(-(-each // unit) * unit, max(most // unit * unit, 1), channels)
