"""What the compiled code passes around: a job, a block of it, and scratch memory.

A *job* is one pass over a tensor. A *block* is what is swept twice while it is in the cache: a
few channels, in the planes view or in the panel view, see :mod:`.planes` and
:mod:`.panels`. Where blocks do not fit the cache, or are fewer than the threads, their rows are
split into *chunks* besides.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import coefficients
from ._numba import njit, reader
from .plans import COLUMNS, Plan

SUM_DISTANCE = COLUMNS + 40
"""Distance of a column's two sums: 4096 bytes would make the processor take one for the other."""
COLUMN_DISTANCE = COLUMNS + 16
"""Distance of two of a column's coefficients; a vector may begin with any column."""

SUMS, OUTPUT = 1, 2

# Counters that the threads share, at the beginning of a job.
COUNTERS = 4
ARRIVED, SUMS_DONE, MERGED, FINISHED = range(0, 8 * COUNTERS, 8)
TAKEN_BYTES = 64
"""Distance of two numbers of `chunks_taken`: a thread does not wait for another's cache line."""


class PlanNumbers(ctypes.Structure):
    """A plan in memory."""

    _fields_: ClassVar = [(name, c_int64) for name in Plan._fields]


class Job(ctypes.Structure):
    """One pass over a tensor: the only list of a job's fields.

    Python sets them by name, compiled code gets them from :func:`read_job`, and ``calls.cpp`` from
    the header that :mod:`.calls` writes. Tensors are given by their addresses, 0 standing for one
    that is not there; `_kind` is the type, see :mod:`.formats`. Fields that are not set are 0.
    """

    _fields_: ClassVar = [
        ("counters", c_int64 * COUNTERS),
        ("eps", c_double),
        # NaN stands for the average of all batches.
        ("momentum", c_double),
        ("x", c_int64),
        ("y", c_int64),
        ("residual", c_int64),
        ("grad_y", c_int64),
        ("grad_x", c_int64),
        ("grad_residual", c_int64),
        ("weight", c_int64),
        ("weight_kind", c_int64),
        ("bias", c_int64),
        ("bias_kind", c_int64),
        # What to normalize with. In training these are computed first, and float64.
        ("mean", c_int64),
        ("mean_kind", c_int64),
        ("var", c_int64),
        ("var_kind", c_int64),
        # Where both are kept, float64.
        ("statistics", c_int64),
        ("grad_weight", c_int64),
        ("grad_weight_kind", c_int64),
        ("grad_bias", c_int64),
        ("grad_bias_kind", c_int64),
        # In the backward pass, the gradients of bias and weight in float64.
        ("sums", c_int64),
        # Two sums per chunk and channel, if there are several chunks.
        ("partial_sums", c_int64),
        # The scratch memory of each thread.
        ("scratch", c_int64),
        # How many chunks of each thread's share are taken, in each of two sweeps; zeros at first.
        ("chunks_taken", c_int64),
        # The function that tells a thread its number below `threads`; 0 if there is none.
        ("thread_number", c_int64),
        ("running_mean", c_int64),
        ("running_mean_kind", c_int64),
        ("running_var", c_int64),
        ("running_var_kind", c_int64),
        # How many batches have moved the running statistics.
        ("batches", c_int64),
        # Whether this one does.
        ("moves", c_int64),
        ("skip_nonfinite", c_int64),
        ("training", c_int64),
        ("relu", c_int64),
        # Which of the two are made: `SUMS`, `OUTPUT`, or both, their sum.
        ("sweeps", c_int64),
        ("plan", PlanNumbers),
    ]


read_job = reader(Job)
"""From the address of a job to its numbers, those of its plan among them; without the counters."""


class Block(NamedTuple):
    """One chunk of one block: some channels, and the rows from `low` to `high`."""

    channel: int
    channels: int
    width: int
    """Columns of the panel; 0 in the planes view."""
    chunk: int
    low: int
    high: int


class Scratch(NamedTuple):
    """What a thread works in, of a type that :func:`scratch_type` gives.

    Numba names a compiled function after its arguments' types, but a record after a number that
    differs from process to process: functions for different records, compiled by different
    processes and loaded from the disk by a third, could be taken for each other. A named tuple has
    the whole record in its name.
    """

    record: Any


def scratch_type(stored: type, compute: type) -> np.dtype[Any]:
    """What a thread works in.

    ``like`` tells the stored type; ``column_sums`` is for the two float64 sums of each column of a
    panel, ``chain_sums`` for those of a chain, in its type, ``sums`` for those of each channel of a
    block; ``channel`` has what each channel's values are combined with, by the names of
    :mod:`.coefficients`, and ``column`` the same for each column.
    """
    return np.dtype(
        [
            ("column_sums", np.float64, (2 * SUM_DISTANCE,)),
            ("chain_sums", np.float64, (2 * SUM_DISTANCE,)),
            ("sums", np.float64, (2, COLUMNS)),
            ("channel", compute, (coefficients.COUNT, COLUMNS)),
            ("column", compute, (coefficients.COUNT * COLUMN_DISTANCE,)),
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
