"""The compiled functions: what every thread runs until a job's blocks are done.

A block is summed up and then written while it is in the cache. Where it is split into chunks, all
chunks are summed first; when the last sum is there, the second sweep begins. It runs backwards,
since what was read last is what the cache still has.

Every thread begins with its own share of the chunks, which lie side by side: their values may be in
its cache already, from the sweep before or from PyTorch's last operation, which shares tensors out
in the same way. Then it helps the others with theirs, so a slow one delays nobody.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, types

from . import coefficients as of
from . import panels, planes, steps
from .jobs import (
    ARRIVED,
    FINISHED,
    MERGED,
    OUTPUT,
    SUMS,
    SUMS_DONE,
    TURN_BYTES,
    Room,
    block_number,
    read_job,
    room_type,
)
from .runtime import (
    CompiledFunction,
    address_of,
    array_at,
    compile_function,
    current_number,
    finish_streaming,
    inlined,
    njit,
    number_from,
    take_number,
)
from .vectors import convert, splat

# Errors of sums in float32 are random, and of fewer values they do not cancel well enough.
_MANY_VALUES = 128


@inlined
def _values_of(job, block):
    """How many values of a channel a block has."""
    if job.width:
        return panels.values_before(job, block.high) - panels.values_before(job, block.low)
    return planes.values_before(job, block.high) - planes.values_before(job, block.low)


@inlined
def _sum_in(job, block, room, add, zero):
    """Sum up in chains that begin with `zero`, in its type."""
    if job.width:
        panels.sum_up(job, block, room, add, zero)
    else:
        planes.sum_up(job, block, room, add, zero)


@njit
def _sum_by(job, block, room, add, backward):
    """Fill ``room.sums`` with what `add` adds up, by way of float32 if that does."""
    if job.m > _MANY_VALUES:
        _sum_in(job, block, room, add, convert(splat(0.0), room.at.channel))
        if of.sums_hold(job, block, room.at.sums, _values_of(job, block), backward):
            return
    _sum_in(job, block, room, add, splat(0.0))


@njit
def _sum_up(job, block, room, backward):
    """Fill ``room.sums`` with the two sums of each channel that a pass needs."""
    if backward:
        of.set_shift(job, block, room.at.channel)
        # The gradient of a ReLU depends on what the forward pass computed.
        of.set_forward(job, block, room.at.channel)
        _sum_by(job, block, room, steps.add_products, backward)
    else:
        if job.width:
            panels.choose_shifts(job, block, room)
        else:
            planes.choose_shifts(job, block, room)
        _sum_by(job, block, room, steps.add_moments, backward)


@njit
def _finish_sums(job, block, room, backward):
    """Write what the sums of all values of a block are for."""
    if backward:
        of.set_shift(job, block, room.at.channel)
        of.write_gradients(job, block, room.at.sums, room.at.channel)
    else:
        of.write_statistics(job, block, room.at.sums)


@njit
def _write(job, block, room, backward):
    """Write a block of the output, or of the gradient of the input."""
    of.set_forward(job, block, room.at.channel)
    if backward:
        of.set_backward(job, block, room.at.channel)
        if job.width:
            panels.differentiate(job, block, room)
        else:
            planes.differentiate(job, block, room)
    elif job.width:
        panels.normalize(job, block, room)
    else:
        planes.normalize(job, block, room)


@njit
def _save_sums(job, block, sums):
    saved = array_at(job.partial, 2 * job.chunks * job.channels, sums)
    at = 2 * block.chunk * job.channels + block.channel
    for c in range(block.channels):
        saved[at + c], saved[at + job.channels + c] = sums[0, c], sums[1, c]


@njit
def _add_saved_sums(job, block, sums):
    """The same order whichever thread computed what: results do not change from run to run."""
    saved = array_at(job.partial, 2 * job.chunks * job.channels, sums)
    sums[:, : block.channels] = 0.0
    for chunk in range(job.chunks):
        at = 2 * chunk * job.channels + block.channel
        for c in range(block.channels):
            sums[0, c] += saved[at + c]
            sums[1, c] += saved[at + job.channels + c]


@inlined
def _thread_number(address, job):
    """The number of this thread, 0 for the one that called."""
    if job.threads == 1:
        return 0
    if job.thread_number:
        return number_from(job.thread_number) % job.threads
    return take_number(address + ARRIVED)


@inlined
def _next_of_share(job, sweep, owner):
    """How many chunks of a thread's share have been taken in a sweep, which is 0 or 1."""
    return take_number(job.turns + TURN_BYTES * (sweep * job.threads + owner))


@inlined
def _start_of_share(job, owner):
    """The first number of a thread's share, which ends where the next one's begins."""
    return job.blocks * job.chunks * owner // job.threads


@njit
def _sum_chunks(address, job, room, thread, backward):
    """Sum up all chunks. Who finishes the last of them merges them; the others wait."""
    for step in range(job.threads):
        owner = (thread + step) % job.threads
        start, end = _start_of_share(job, owner), _start_of_share(job, owner + 1)
        number = start + _next_of_share(job, 0, owner)
        while number < end:
            block = block_number(job, number)
            _sum_up(job, block, room, backward)
            _save_sums(job, block, room.at.sums)
            if take_number(address + SUMS_DONE) == job.blocks * job.chunks - 1:
                _merge_chunks(job, room, backward)
                take_number(address + MERGED)
            number = start + _next_of_share(job, 0, owner)
    while current_number(address + MERGED) == 0:
        pass


@njit
def _merge_chunks(job, room, backward):
    for number in range(job.blocks):
        block = block_number(job, number)
        _add_saved_sums(job, block, room.at.sums)
        _finish_sums(job, block, room, backward)


@njit
def _finish_block(job, block, room, backward, sums_needed):
    """Write a block that is summed up now, if it has not been before."""
    if sums_needed and job.chunks == 1:
        _sum_up(job, block, room, backward)
        _finish_sums(job, block, room, backward)
    elif not (backward or job.training) and block.low == 0:
        of.keep_statistics(job, block)
    if job.sweeps & OUTPUT:
        _write(job, block, room, backward)


@njit
def _run(address, job, room, thread, backward):
    sums_needed = (backward or job.training) and job.sweeps & SUMS
    if sums_needed and job.chunks > 1:
        _sum_chunks(address, job, room, thread, backward)
    for step in range(job.threads):
        owner = (thread + step) % job.threads
        start, end = _start_of_share(job, owner), _start_of_share(job, owner + 1)
        number = end - 1 - _next_of_share(job, 1, owner)
        while number >= start:
            _finish_block(job, block_number(job, number), room, backward, sums_needed)
            number = end - 1 - _next_of_share(job, 1, owner)
    if job.stream:
        finish_streaming()
    if job.moves and take_number(address + FINISHED) == job.threads - 1:
        of.move_running(job)


# What activations are stored in, half precision by its bits, and computed in.
_TYPES = [
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.int16, np.float32),
    (np.uint16, np.float32),
]
_UNCOMPILED = ("__init__.py", "calls.py")
_SOURCES = sorted(
    path for path in Path(__file__).parent.glob("*.py") if path.name not in _UNCOMPILED
)
# Numba looks for changes in this file only; with the digest, which the functions below mention, its
# cache is renewed when any of the files changes.
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()


@cache
def compiled(backward: bool, stored: type, compute: type) -> CompiledFunction:
    """The function that runs a job, compiled for a type of activations, or from the disk's cache.

    Parameters
    ----------
    backward : which of the two passes
    stored : NumPy type of the activations; int16 stands for float16 and uint16 for bfloat16
    compute : NumPy type of computation

    Returns
    -------
    a function of one argument, the address of a job in memory
    """
    digest = _DIGEST
    room = room_type(stored, compute, of.COUNT)
    room_bytes = room.itemsize

    def run(place: Any) -> None:
        source = digest  # noqa: F841
        address = address_of(carray(place, 1, np.int64))
        job = read_job(address)
        thread = _thread_number(address, job)
        own = array_at(job.rooms + thread * room_bytes, 1, room)
        _run(address, job, Room(own[0]), thread, backward)

    direction = "backward" if backward else "forward"
    # A name for each, or processes that compile at the same time would mix up their files.
    run.__qualname__ = f"{direction}_{np.dtype(stored)}"
    compile_ = cfunc(types.void(types.voidptr), cache=True)
    halves: dict[type, str] = {np.int16: "float16", np.uint16: "bfloat16"}
    name = f"the {direction} pass ({halves.get(stored, np.dtype(stored).name)})"
    return compile_function(name, lambda: compile_(run))


def compile_all() -> None:
    """Compile what is not on the disk yet, for every type, so that no later call has to."""
    for stored, compute in _TYPES:
        for backward in (False, True):
            compiled(backward, stored, compute)
