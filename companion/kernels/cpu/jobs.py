"""What the compiled code passes around: a job, a block of it, and room to work in.

A *job* is one pass over a tensor. A *block* is what is swept twice while it is in the cache: a
few channels, in the planes view or in the panel view, see :mod:`.planes` and
:mod:`.panels`. Where blocks do not fit the cache, or are fewer than the threads, their rows are
split into *chunks* besides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple

from .plans import COLUMNS
from .runtime import array_at, njit

KEPT = COLUMNS + 40
"""Distance of a column's two sums: 4096 bytes would make the processor take one for the other."""


SUMS, OUTPUT = 1, 2


class Job(NamedTuple):
    """One pass over a tensor.

    Tensors are given by their addresses, 0 standing for one that is not there; `_kind` is the type.
    """

    eps: float
    momentum: float
    """NaN stands for the average of all batches."""
    x: int
    y: int
    residual: int
    grad_y: int
    grad_x: int
    grad_residual: int
    weight: int
    weight_kind: int
    bias: int
    bias_kind: int
    mean: int
    """What to normalize with. In training these are found first, and float64."""
    mean_kind: int
    var: int
    var_kind: int
    statistics: int
    """Where both are kept, float64."""
    grad_weight: int
    grad_weight_kind: int
    grad_bias: int
    grad_bias_kind: int
    sums: int
    """In the backward pass, the gradients of bias and weight in float64."""
    partial: int
    """Two sums per chunk and channel, if there are several chunks."""
    rooms: int
    """Room for each thread."""
    turns: int
    """How many chunks of each thread's share are taken, in each of two sweeps; zeros at first."""
    thread_number: int
    """The function that tells a thread its number below `threads`; 0 if there is none."""
    running_mean: int
    running_mean_kind: int
    running_var: int
    running_var_kind: int
    batches: int
    """How many batches have moved the running statistics."""
    moves: int
    """Whether this one does."""
    skip_nonfinite: int
    training: int
    relu: int
    sweeps: int
    """Which of the two are made: `SUMS`, `OUTPUT`, or both, their sum."""
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
    blocks: int
    chunk: int
    chunks: int
    prefetch: int
    """Whether to ask for rows of a panel before they are needed."""
    stream: int
    """Whether to store past the cache."""
    precise: int
    """Whether to normalize in float64."""
    threads: int


# In memory a job comes after counters that the threads share.
COUNTERS = 4
ARRIVED, SUMS_DONE, MERGED, FINISHED = range(0, 8 * COUNTERS, 8)
JOB_BYTES = 8 * (COUNTERS + len(Job._fields))
TURN_BYTES = 64
"""Distance of two numbers of `turns`: a thread does not wait for another one's cache line."""
FLOATS = 2
_INTEGERS = len(Job._fields) - FLOATS


@njit
def read_job(address):
    """The job in memory; as a tuple its numbers stay in registers."""
    floats = array_at(address + 8 * COUNTERS, FLOATS, 0.0)
    integers = array_at(address + 8 * (COUNTERS + FLOATS), _INTEGERS, 0)
    return Job(floats[0], floats[1], *to_fixed_tuple(integers, _INTEGERS))


class Block(NamedTuple):
    """One chunk of one block: some channels, and the rows from `low` to `high`."""

    channel: int
    channels: int
    width: int
    """Columns of the panel; 0 in the planes view."""
    chunk: int
    low: int
    high: int


class Room(NamedTuple):
    """What a thread works in, of a type that :func:`room_type` gives.

    Numba names a compiled function after its arguments' types, but a record after a number that
    differs from process to process: functions for different records, compiled by different
    processes and loaded from the disk by a third, could be taken for each other. A named tuple has
    the whole record in its name.
    """

    at: Any


def room_type(stored: type, compute: type, coefficients: int) -> np.dtype[Any]:
    """What a thread works in.

    ``like`` tells the stored type; ``kept`` is for the two float64 sums of each column of a panel,
    ``sums`` for those of each channel of a block; ``channel`` has what each channel's values are
    combined with, by the names of :mod:`.coefficients`, and ``column`` the same for each column.
    """
    return np.dtype(
        [
            ("kept", np.float64, (2 * KEPT,)),
            ("sums", np.float64, (2, COLUMNS)),
            ("channel", compute, (coefficients, COLUMNS)),
            ("column", compute, (coefficients * COLUMNS,)),
            ("like", stored, (64 // np.dtype(stored).itemsize,)),
        ]
    )


@njit
def block_number(job, number):
    """The block and chunk of a number below blocks·chunks."""
    chunk = number // job.blocks
    channel = (number - chunk * job.blocks) * job.block
    channels = min(job.block, job.channels - channel)
    # All channels of joined rows, or the columns of some channels.
    width = job.width if channels == job.channels else min(job.width, channels * job.inner)
    low = chunk * job.chunk
    return Block(channel, channels, width, chunk, low, min(low + job.chunk, job.rows))
