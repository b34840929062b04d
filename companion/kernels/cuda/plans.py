"""How the CUDA kernels cut an activation into programs: decided from its shape, before any launch.

A kernel sees a dense activation as a matrix. Its rows are the N samples of C planes of S values
(contiguous), or the N·S positions of C values (channels last, and ``(N, C)``, where S is 1).

    block      columns that one program works on: one plane, or some neighbouring channels
    segment    what one row of a tile holds: a block's row, or a piece of it if that is long
    tile       `rows` segments of `lanes` values, loaded at once; both are powers of two
    part       consecutive segments of a block: the share of one program

Where a block has few enough parts, one launch does it all: each program holds its part, some tiles,
in registers, and the programs of a block *meet* between its sums and its output. Other blocks are
*split*: summed in one launch, normalized in the next.

Nothing here needs a GPU, nor Triton.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

_WARPS = 8
# Of a multiprocessor.
_REGISTERS = 65536
# Bytes of the widest load there is.
_WIDE = 16
_TILE_BYTES = 32 * _WARPS * _WIDE


class _Held(NamedTuple):
    """How programs are sized that hold a block between its sweeps."""

    warps: int
    """At most."""
    bytes: tuple[int, int]
    """Of the activations that are read, by how many there are: one forward, two backward. Held by
    each thread."""
    registers: int
    """Of a thread."""

    def programs(self, multiprocessors: int) -> int:
        """How many run at a time."""
        return multiprocessors * (_REGISTERS // (32 * self.warps * self.registers))


# All sizes here were measured on an H200. For a block of one channel: where one program can hold
# it, or smaller ones would be too many; else; and where loads have less than 8 bytes, for each of
# them takes a register.
_ALONE = _Held(warps=8, bytes=(256, 256), registers=128)
_SHARING = _Held(warps=4, bytes=(256, 224), registers=96)
_NARROW = _Held(warps=4, bytes=(128, 128), registers=64)
# Of several: a thread has eight sums of each kind, and as many of everything else.
_TOGETHER = _Held(warps=8, bytes=(224, 128), registers=128)
_MOST_LOADS = 32
# Parts of a block that meet, of the programs that run at a time. All of them hold a place until the
# last one has come; a kernel of higher priority may hold as many.
_MEETING_SHARE = 2
# Beyond these, two launches are faster. With one channel by far: programs of four warps that add up
# the shares of 66 to 128 parts at once took up to 80 times as long, for a reason not found. With
# several, everybody adds up all shares of all of them, backward soon in several waves.
_MOST_PARTS, _MOST_PARTS_TOGETHER, _MOST_WAVES_TOGETHER = 64, 32, (8, 2)


class _Split(NamedTuple):
    """How programs are sized where each sweep is a launch; forward and backward."""

    programs: tuple[int, int]
    """That run on a multiprocessor at a time: the kernels are compiled for no more registers than
    that allows. A wave is one program for each."""
    loads: tuple[int, int]
    """That a thread makes at a time, of each activation; if they are narrow, as much as one."""


# For blocks of one channel and of several.
_SPLIT_ALONE = _Split(programs=(4, 4), loads=(4, 2))
_SPLIT_TOGETHER = _Split(programs=(2, 2), loads=(4, 2))
# A plane with fewer values than this shares its tile with the neighbouring channels.
_SHORT_PLANE = 32
_NEIGHBOURS = 8
# Bytes of a piece below which it is better to leave lanes idle.
_SHORT_PIECE = 8
# Rows shorter than this are folded: several of them are treated as one.
_SHORT_ROW = 32
_FOLDED_LANES = 512
# An access to device memory moves 32 bytes. Where programs that meet were given as short rows, the
# backward pass took half as long again as in two launches.
_MEETING_ROW_BYTES = 64
# Merging is left to the kernels that apply the result for up to so many channels at a time: it
# needs registers for each, which would leave too few for the loads.
_MERGED_CHANNELS = 16


class Sizes(NamedTuple):
    """What every kernel is told. Whole numbers, known before the launch and without the data."""

    C: int
    """Channels of the activation."""
    channels: int
    """Channels of a block."""
    run: int
    """Consecutive values of one channel: S, or 1 with channels last."""
    row_values: int
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


class Plan(NamedTuple):
    """The shape of the work."""

    sizes: Sizes
    lanes: int
    """Values in a row of a tile."""
    rows: int
    """Rows of a tile."""
    exact: bool
    """No lane is beyond its row, in any block."""
    channel_lanes: int
    """The channels of a block, rounded up to a power of two."""
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
    tiles: int
    """That a program holds of each activation where programs meet; else 0."""
    registers: int
    """Of a thread."""


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
    """The activation as a matrix cut into blocks; names as in :class:`Sizes` and :class:`Plan`."""

    channels: int
    run: int
    row_values: int
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
    if S == 1:
        return _neighbours(samples, C, S, _power_of_two(min(C, _MEETING_ROW_BYTES // itemsize)))
    if S < _SHORT_PLANE:
        return _neighbours(samples, C, S, _power_of_two(min(C, _NEIGHBOURS) * S))
    # Not more than one warp loads at once. As many as divide a plane: none is beyond it then.
    most = 32 * _WIDE // itemsize
    lanes = gcd(S, most)
    if lanes * itemsize >= _SHORT_PIECE:
        return _planes(samples, C, S, lanes)
    planes = [_planes(samples, C, S, lanes) for lanes in _powers(16, min(S * 2, most))]
    return min(planes, key=lambda matrix: (matrix.pieces * matrix.lanes, -matrix.lanes))


class _Meeting(NamedTuple):
    """How programs meet over a block."""

    warps: int
    rows: int
    tiles: int
    parts: int
    registers: int


def _meeting(
    matrix: _Matrix, itemsize: int, tensors: int, unit: int, multiprocessors: int
) -> _Meeting | None:
    """How programs hold a block; None if they would be too many."""
    load = min(_WIDE, unit * itemsize)
    if matrix.channels > 1:
        ways, most = [_TOGETHER], _MOST_PARTS_TOGETHER
    else:
        ways, most = [_NARROW] if load < _WIDE // 2 else [_SHARING, _ALONE], _MOST_PARTS
    met = [_fewest_warps(way, matrix, itemsize, tensors, load) for way in ways]
    if met[-1].parts == 1:
        return met[-1]
    if matrix.channels * matrix.row_values * itemsize < _MEETING_ROW_BYTES:
        return None
    for way, meeting in zip(ways, met, strict=True):
        programs = way.programs(multiprocessors)
        may = meeting.parts <= min(most, programs // _MEETING_SHARE)
        if matrix.channels > 1:
            may &= meeting.parts * matrix.blocks <= _MOST_WAVES_TOGETHER[tensors - 1] * programs
        if may:
            return meeting
    return None


def _fewest_warps(way: _Held, matrix: _Matrix, itemsize: int, tensors: int, load: int) -> _Meeting:
    """Not more parts than needed, nor more threads: each of them is to hold many values."""
    most = max(1, min(way.bytes[tensors - 1], _MOST_LOADS * load) // _WIDE // tensors)
    warps, row_bytes = way.warps, matrix.lanes * itemsize
    while warps > 1 and row_bytes <= warps // 2 * 32 * _WIDE:
        # Half as many threads hold twice as many tiles.
        if 2 * _ceil_div(matrix.segments, _tile_rows(matrix, itemsize, warps)) > most:
            break
        warps //= 2
    rows = _tile_rows(matrix, itemsize, warps)
    tiles = _ceil_div(matrix.segments, rows)
    parts = _ceil_div(tiles, most)
    return _Meeting(warps, rows, _ceil_div(tiles, parts), parts, way.registers)


def _tile_rows(matrix: _Matrix, itemsize: int, warps: int) -> int:
    most = max(1, 32 * warps * _WIDE // itemsize // matrix.lanes)
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
    return min(parts, _ceil_div(segments, rows))


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
    samples, C, S
        the activation is contiguous ``(samples, C, S)``; with channels last, and for ``(N, C)``, it
        is ``(N·S, C, 1)``. None is 0
    itemsize
        bytes per value
    multiprocessors
        of the device
    tensors
        how many activations are read: 1 forward, 2 backward
    fuse
        whether programs can meet; if not, all blocks are split
    """
    if C == 1:
        samples, S = 1, samples * S
    m = samples * S
    matrix = _meeting_matrix(samples, C, S, itemsize)
    unit = _unit(matrix, C, m)
    met = _meeting(matrix, itemsize, tensors, unit, multiprocessors) if fuse else None
    if met is None:
        matrix = _split_matrix(samples, C, S, _TILE_BYTES // itemsize)
        unit = _unit(matrix, C, m)
    channels, run, row_values, pieces, segments, lanes, blocks = matrix
    costly = False
    if met is not None:
        warps, rows, tiles, parts, registers = met
        part = _ceil_div(segments, parts)
    else:
        way = _SPLIT_ALONE if channels == 1 else _SPLIT_TOGETHER
        programs = multiprocessors * way.programs[tensors - 1]
        registers = min(248, _REGISTERS // (32 * _WARPS * way.programs[tensors - 1]) // 8 * 8)
        is_narrow = unit * itemsize < _WIDE // 2
        tiles, loads = 0, 1 if is_narrow else way.loads[tensors - 1]
        rows = _tile_rows(matrix, itemsize, loads * _WARPS)
        warps = max(1, min(_WARPS, rows * lanes * itemsize // (32 * _WIDE)))
        parts = _count_parts(blocks, segments, rows, programs)
        # Whole tiles; the last part takes what is left.
        part = _ceil_div(_ceil_div(segments, parts), rows) * rows
        # 16 bytes per part and channel are to be merged: more than a quarter of what a program
        # reads?
        costly = 4 * 16 * parts > part * row_values // pieces * itemsize
    parts = _ceil_div(segments, part)
    wide = _power_of_two(channels) > _MERGED_CHANNELS
    return Plan(
        sizes=Sizes(C, channels, run, row_values, pieces, segments, part, m, total=m * C),
        lanes=lanes,
        rows=rows,
        exact=pieces * lanes == channels * row_values and C % channels == 0,
        channel_lanes=_power_of_two(channels),
        unit=min(unit, _WIDE // itemsize),
        blocks=blocks,
        parts=parts,
        meeting=met is not None,
        merge_apart=met is None and (wide or (costly and parts > 1)),
        warps=warps,
        tiles=tiles,
        registers=registers,
    )


def _unit(matrix: _Matrix, C: int, m: int) -> int:
    """Every row of every block begins at a multiple of this, up to 16."""
    return gcd(16, matrix.channels * matrix.row_values, C * matrix.row_values, m * C)
