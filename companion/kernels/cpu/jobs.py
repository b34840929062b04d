"""What the compiled code passes around: a job, a block of it, and room to work in.

A *job* is one pass over a tensor. A *block* is what is swept twice while it is in the cache: a
few channels, in the planes view or in the panel view, see :mod:`.planes` and
:mod:`.panels`. Where blocks do not fit the cache, or are fewer than the threads, their rows are
split into *chunks* besides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .plans import COLUMNS, TILE
from .runtime import njit

# What the compiler may do to sums: reorder them, which vector instructions need. NaN and infinity
# keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}
# And to what is written: multiply and add at once. What is centred first must stay so.
WRITES = {"contract"}

KEPT = COLUMNS + 40
"""Distance of a column's two sums: 4096 bytes would make the processor take one for the other."""

# Tensors are given by their addresses, 0 standing for one that is not there; `_kind` is the type.
JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            # Counters that the threads share; NEXT_ROOM and so on say where they are.
            *("next_room", "next_sum", "sums_done", "merged", "next_block"),
            *("x", "y", "residual", "grad_y", "grad_x", "grad_residual"),
            *("weight", "weight_kind", "bias", "bias_kind"),
            *("mean", "var", "grad_weight", "grad_bias", "partial", "rooms"),
            # C channels of S values side by side, m values per channel, and all values.
            *("channels", "inner", "m", "size"),
            # Rows of a panel have `width` values; in the planes view, where that is 0, a row is a
            # `tile` of each plane, which has `tiles` of them.
            *("rows", "width", "tile", "tiles", "block", "blocks", "chunk", "chunks"),
            *("training", "relu", "stream"),
        )
    ]
    + [("eps", np.float64)]
)
NEXT_ROOM, NEXT_SUM, SUMS_DONE, MERGED, NEXT_BLOCK = 0, 8, 16, 24, 32

UPDATE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("channels", "m", "mean", "var", "count"),
            *("running_mean", "running_mean_kind", "running_var", "running_var_kind"),
            "skip_nonfinite",
        )
    ]
    + [("momentum", np.float64)]
)


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

    ``tiles`` has six tiles in the type of computation and ``packed`` one in the stored type;
    ``kept``, the two float64 sums of each column of a panel, and ``kept_at``, its address;
    ``sums``, the two sums of each channel of a block; ``channel``, what each channel's values are
    combined with, by the names of :mod:`.coefficients`, and ``column``, the same for each column.
    """
    return np.dtype(
        [
            ("tiles", compute, (6, TILE)),
            ("packed", stored, (TILE,)),
            ("kept", np.float64, (2 * KEPT,)),
            ("kept_at", np.int64),
            ("sums", np.float64, (2, COLUMNS)),
            ("channel", compute, (coefficients, COLUMNS)),
            ("column", compute, (coefficients * COLUMNS,)),
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
