"""How the CUDA kernels cut an activation into programs: decided from its shape, before any launch.

A kernel sees a dense activation as a matrix. Its rows are the N samples of C planes of S values
(contiguous), or the N·S positions of C values (channels last, and ``(N, C)``, where S is 1).

    block      columns that one program works on: one plane, or some neighbouring channels
    segment    what one row of a tile holds: a block's row, or a piece of it if that is long
    tile       `rows` segments of `lanes` values, loaded at once; both are powers of two
    part       consecutive segments of a block: the share of one program

If a block fits the registers of one program, it is *resident*: one part, read once. Otherwise it
is *split* into parts, so that few channels still occupy every multiprocessor.

Nothing here needs a GPU, nor Triton.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

_WARPS = 8
# Every thread of a split kernel loads 16 bytes at a time, the widest access there is.
_TILE_BYTES = 32 * _WARPS * 16
# 32 registers for each of 512 threads, a quarter of what a multiprocessor has. With those for the
# arithmetic, two such programs may fit, and one loads while the other computes or stores.
_RESIDENT_BYTES = 2**16
# As many programs of any split kernel run on a multiprocessor at a time; a wave is one for each.
_PROGRAMS_PER_MULTIPROCESSOR = 2
# A plane with fewer values than this shares its tile with the neighbouring channels.
_SHORT_PLANE = 32
# Rows shorter than this are folded: several of them are treated as one.
_SHORT_ROW = 32
_FOLDED_LANES = 512
# An access to device memory moves 32 bytes; two of them are worth a program's while.
_RESIDENT_ROW_BYTES = 64
# Merging is left to the kernels that apply the result for up to so many channels at a time: it
# needs registers for each, which would leave too few for the loads.
_MERGED_CHANNELS = 16


class Plan(NamedTuple):
    """The shape of the work. Whole numbers, known before the launch and without the data."""

    C: int
    """Channels of the activation."""
    channels: int
    """Channels of a block."""
    run: int
    """Consecutive values of one channel: S, or 1 with channels last."""
    values: int
    """Values that a channel has in a row: `run`, or a multiple of it where rows are folded."""
    pieces: int
    """Segments in a block's row."""
    segments: int
    """Segments in a block."""
    part: int
    """Segments of one program."""
    m: int
    """Values per channel."""
    total: int
    """Values of the activation, m·C."""
    lanes: int
    """Values in a row of a tile."""
    rows: int
    """Rows of a tile."""
    channel_lanes: int
    """`channels`, rounded up to a power of two."""
    unit: int
    """Every row of every block starts at a multiple of this, up to 16: how wide loads can be."""
    blocks: int
    parts: int
    """Programs per block."""
    resident: bool
    merge_apart: bool
    """Merge the parts' results in a launch of its own; else every program that needs them does."""
    warps: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """What every kernel is told, in this order."""
        return self[:9]


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _powers(low: int, high: int) -> list[int]:
    """Powers of two from `low`, rounded up, to `high`; at least one."""
    first = _power_of_two(low)
    return [first << shift for shift in range((high // first).bit_length())] or [first]


class _Matrix(NamedTuple):
    """The activation as a matrix cut into blocks; names as in :class:`Plan`."""

    channels: int
    run: int
    values: int
    pieces: int
    segments: int
    lanes: int
    blocks: int


def _planes(samples: int, C: int, S: int, lanes: int) -> _Matrix:
    """One block per channel; a row is a plane."""
    pieces = _ceil_div(S, lanes)
    return _Matrix(1, S, S, pieces, samples * pieces, lanes, C)


def _neighbours(samples: int, C: int, S: int, lanes: int) -> _Matrix:
    """Blocks of as many whole channels as the lanes hold."""
    channels = min(C, lanes // S)
    return _Matrix(channels, S, S, 1, samples, lanes, _ceil_div(C, channels))


def _folded(samples: int, C: int, S: int, fold: int) -> _Matrix:
    """One block of all channels; a row is `fold` samples, so that its loads are long."""
    return _Matrix(C, S, fold * S, 1, _ceil_div(samples, fold), _FOLDED_LANES, 1)


def _resident_matrix(samples: int, C: int, S: int, itemsize: int, limit: int) -> _Matrix | None:
    """The matrix whose blocks fit one tile of `limit` values, if there is one."""
    if S >= _SHORT_PLANE:
        choices = [
            _planes(samples, C, S, lanes) for lanes in _powers(min(S, 128), min(S * 2, 1024))
        ]
    else:
        lanes = max(S, min(C * S, _RESIDENT_ROW_BYTES // itemsize))
        choices = [_neighbours(samples, C, S, _power_of_two(lanes))]
    best = min(choices, key=lambda matrix: _power_of_two(matrix.segments) * matrix.lanes)
    return best if _power_of_two(best.segments) * best.lanes <= limit else None


def _split_matrix(samples: int, C: int, S: int, tile: int) -> _Matrix:
    """The matrix whose tiles have the fewest idle lanes, the wider ones first."""
    if S >= _SHORT_PLANE:
        planes = [_planes(samples, C, S, lanes) for lanes in _powers(min(S, 128), min(1024, tile))]
        return min(planes, key=lambda matrix: (matrix.pieces * matrix.lanes, -matrix.lanes))
    # A multiple of 8 rows keeps the beginning of each folded row aligned.
    fold = _FOLDED_LANES // (C * S) // 8 * 8
    if C < _SHORT_ROW and fold > 1:
        return _folded(samples, C, S, fold)
    blocks = [_neighbours(samples, C, S, lanes) for lanes in _powers(32, min(128, tile))]
    return min(blocks, key=lambda matrix: (matrix.blocks * matrix.lanes, -matrix.lanes))


def _count_parts(blocks: int, segments: int, rows: int, multiprocessors: int) -> int:
    """Programs per block: one full wave of programs, or several, so that the last one is cheap."""
    wave = _PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
    parts = wave // blocks
    if parts * blocks < 0.85 * wave:
        parts = _ceil_div(4 * wave, blocks)
    return min(parts, _ceil_div(segments, 4 * rows))


@lru_cache(maxsize=1024)
def plan(
    samples: int,
    C: int,
    S: int,
    itemsize: int,
    multiprocessors: int,
    tensors: int,
    fuse: bool = True,
) -> Plan:
    """Cut a dense activation into programs.

    Parameters
    ----------
    samples, C, S : the activation is contiguous ``(samples, C, S)``; with channels last, and for
        ``(N, C)``, it is ``(N·S, C, 1)``. None is 0
    itemsize : bytes per value
    multiprocessors : of the device
    tensors : how many activations a program holds at a time: 1 forward, 2 backward
    fuse : whether there is a kernel for resident blocks; if not, all are split
    """
    if C == 1:
        samples, S = 1, samples * S
    m = samples * S
    limit = _RESIDENT_BYTES // max(itemsize, 4) // tensors
    tile = _TILE_BYTES // itemsize
    matrix = _resident_matrix(samples, C, S, itemsize, limit) if fuse else None
    resident = matrix is not None
    if matrix is None:
        matrix = _split_matrix(samples, C, S, tile)
    channels, run, values, pieces, segments, lanes, blocks = matrix
    if resident:
        rows, parts, part = _power_of_two(segments), 1, segments
        warps = max(1, min(16, rows * lanes // 512))
    else:
        rows, warps = max(1, tile // lanes), _WARPS
        parts = _count_parts(blocks, segments, rows, multiprocessors)
        # Whole tiles; the last part takes what is left.
        part = _ceil_div(_ceil_div(segments, parts), rows) * rows
        parts = _ceil_div(segments, part)
    # 24 bytes per part and channel are to be merged: more than a quarter of what a program reads?
    costly = 4 * 24 * parts > part * values // pieces * itemsize
    wide = _power_of_two(channels) > _MERGED_CHANNELS
    return Plan(
        C=C,
        channels=channels,
        run=run,
        values=values,
        pieces=pieces,
        segments=segments,
        part=part,
        m=m,
        total=m * C,
        lanes=lanes,
        rows=rows,
        channel_lanes=_power_of_two(channels),
        unit=gcd(16, channels * values, C * values, m * C),
        blocks=blocks,
        parts=parts,
        resident=resident,
        merge_apart=not resident and (wide or (costly and parts > 1)),
        warps=warps,
    )
