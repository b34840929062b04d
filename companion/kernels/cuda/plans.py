"""How the CUDA kernels cut an activation into programs: decided from its shape, before any launch.

A kernel sees a dense activation as a matrix. Its rows are the N samples of C planes of S values
(contiguous), or the N·S positions of C values (channels last, and ``(N, C)``, where S is 1).

    block      columns that one program works on: one plane, or some neighbouring channels
    segment    what one row of a tile holds: a block's row, or a piece of it if that is long
    tile       `rows` segments of `lanes` values, loaded at once; both are powers of two
    part       consecutive segments of a block: the share of one program

Where a block has few enough parts, one launch sweeps it twice: the programs of its parts *meet* in
between. So few blocks are under way at a time that the second sweep finds them in a cache. Other
blocks are *split*: summed in one launch, normalized in the next.

Nothing here needs a GPU, nor Triton.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

_WARPS = 8
# Of a multiprocessor.
_REGISTERS = 65536
# Every thread loads 16 bytes at a time, the widest access there is.
_TILE_BYTES = 32 * _WARPS * 16
# Every program that meets others adds up the shares of all for all its channels, 16 bytes each.
_MOST_SHARES = 1024


class _Way(NamedTuple):
    """How programs are sized, by the activations that they read: one forward, two backward."""

    programs: tuple[int, int]
    """That run on a multiprocessor at a time: the kernels are compiled for no more registers than
    that allows. A wave is one program for each."""
    unroll: tuple[int, int]
    """Tiles of each activation that a program loads before it adds them up."""
    rounds: tuple[int, int]
    """How often a program that meets others does so: enough to hide the meeting."""


# Measured on an H100, for blocks of one channel and of several. A thread holds one sum for the one
# channel, or eight for as many, and as much else.
_PLANES = _Way(programs=(4, 4), unroll=(4, 2), rounds=(4, 4))
_COLUMNS = _Way(programs=(2, 2), unroll=(4, 2), rounds=(4, 4))
# Parts of a block that meet, of the programs that run at a time. All of them hold a place until the
# last one has come; a kernel of higher priority may hold as many.
_MEETING_SHARE = 2
# A plane with fewer values than this shares its tile with the neighbouring channels.
_SHORT_PLANE = 32
_NEIGHBOURS = 8
# Rows shorter than this are folded: several of them are treated as one.
_SHORT_ROW = 32
_FOLDED_LANES = 512
# An access to device memory moves 32 bytes. Where programs that meet were given as short rows, the
# backward pass took half as long again as in two launches.
_MEETING_ROW_BYTES = 64
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
    meeting: bool
    """One launch, in which the programs of a block meet."""
    merge_apart: bool
    """Merge the parts' results in a launch of its own; else every program that needs them does."""
    warps: int
    unroll: int
    registers: int
    """Of a thread."""

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
    if channels > _NEIGHBOURS:
        # So that their rows begin at multiples of 16 bytes.
        channels -= channels % _NEIGHBOURS
    return _Matrix(channels, S, S, 1, samples, lanes, _ceil_div(C, channels))


def _folded(samples: int, C: int, S: int, fold: int) -> _Matrix:
    """One block of all channels; a row is `fold` samples, so that its loads are long."""
    return _Matrix(C, S, fold * S, 1, _ceil_div(samples, fold), _FOLDED_LANES, 1)


def _meeting_matrix(samples: int, C: int, S: int, itemsize: int) -> _Matrix:
    """The matrix for programs that meet."""
    if S >= _SHORT_PLANE:
        planes = [_planes(samples, C, S, lanes) for lanes in _powers(16, min(S * 2, 1024))]
        return min(planes, key=lambda matrix: (matrix.pieces * matrix.lanes, -matrix.lanes))
    if S > 1:
        return _neighbours(samples, C, S, _power_of_two(min(C, _NEIGHBOURS) * S))
    return _neighbours(samples, C, S, _power_of_two(min(C, _MEETING_ROW_BYTES // itemsize)))


def _meeting_parts(
    matrix: _Matrix, itemsize: int, way: _Way, tensors: int, programs: int
) -> int | None:
    """How many programs of a block meet; None if they would be too many."""
    rows = _tile_rows(matrix, itemsize)
    parts = _ceil_div(matrix.segments, way.rounds[tensors - 1] * way.unroll[tensors - 1] * rows)
    shares = parts * _power_of_two(matrix.channels)
    may = parts <= programs // _MEETING_SHARE and shares <= _MOST_SHARES
    may &= matrix.lanes * itemsize >= _MEETING_ROW_BYTES
    return parts if parts == 1 or may else None


def _tile_rows(matrix: _Matrix, itemsize: int) -> int:
    most = max(1, _TILE_BYTES // itemsize // matrix.lanes)
    return min(most, _power_of_two(matrix.segments))


def _split_matrix(samples: int, C: int, S: int, tile: int) -> _Matrix:
    """The matrix whose tiles have the fewest idle lanes, the wider ones first."""
    if S >= _SHORT_PLANE:
        planes = [_planes(samples, C, S, lanes) for lanes in _powers(min(S, 128), min(1024, tile))]
        return min(planes, key=lambda matrix: (matrix.pieces * matrix.lanes, -matrix.lanes))
    # A multiple of 8 rows keeps the beginning of each folded row aligned.
    fold = _FOLDED_LANES // (C * S) // 8 * 8
    if C < _SHORT_ROW and fold > 1:
        return _folded(samples, C, S, fold)
    lanes = _powers(32, 128) if S == 1 else [_power_of_two(min(C, _NEIGHBOURS) * S)]
    blocks = [_neighbours(samples, C, S, min(number, tile)) for number in lanes]
    return min(blocks, key=lambda matrix: (matrix.blocks * matrix.lanes, -matrix.lanes))


def _count_parts(blocks: int, segments: int, rows: int, programs: int) -> int:
    """Programs per block: one full wave of programs, or several, so that the last one is cheap."""
    parts = programs // blocks
    if parts * blocks < 0.85 * programs:
        parts = _ceil_div(4 * programs, blocks)
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
    tensors : how many activations are read: 1 forward, 2 backward
    fuse : whether programs can meet; if not, all blocks are split
    """
    if C == 1:
        samples, S = 1, samples * S
    m = samples * S
    way = _PLANES if S >= _SHORT_PLANE else _COLUMNS
    programs = multiprocessors * way.programs[tensors - 1]
    matrix = _meeting_matrix(samples, C, S, itemsize)
    met = _meeting_parts(matrix, itemsize, way, tensors, programs) if fuse else None
    if met is None:
        matrix = _split_matrix(samples, C, S, _TILE_BYTES // itemsize)
    channels, run, values, pieces, segments, lanes, blocks = matrix
    rows = _tile_rows(matrix, itemsize)
    parts = met or _count_parts(blocks, segments, rows, programs)
    # Whole tiles; the last part takes what is left.
    part = _ceil_div(_ceil_div(segments, parts), rows) * rows
    parts = _ceil_div(segments, part)
    # 16 bytes per part and channel are to be merged: more than a quarter of what a program reads?
    costly = 4 * 16 * parts > part * values // pieces * itemsize
    wide = _power_of_two(channels) > _MERGED_CHANNELS
    unit = gcd(16, channels * values, C * values, m * C)
    # A thread loads 16 bytes of a tile; where a load has less than 8, twice as many, one tile at a
    # time: every load takes a register for its address.
    is_narrow = unit * itemsize < 8
    thread_bytes = 32 if is_narrow else 16
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
        unit=unit,
        blocks=blocks,
        parts=parts,
        meeting=met is not None,
        merge_apart=met is None and (wide or (costly and parts > 1)),
        warps=max(1, min(_WARPS, rows * lanes * itemsize // (32 * thread_bytes))),
        unroll=1 if is_narrow else way.unroll[tensors - 1],
        registers=min(248, _REGISTERS // (32 * _WARPS * way.programs[tensors - 1]) // 8 * 8),
    )
