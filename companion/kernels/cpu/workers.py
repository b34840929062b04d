"""The compiled functions: what every thread runs until a job's blocks are done.

A block is summed up and then written while it is in the cache. Where it is split into chunks, all
chunks are summed first; when the last sum is there, the second sweep begins. It runs backwards,
since what was read last is what the cache still has.

Every thread begins with its own share of the chunks, which lie side by side: their values may be in
its cache already, from the sweep before or from PyTorch's last operation, which shares tensors out
in the same way. Then it helps the others with theirs, so a slow one delays nobody.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray

from . import coefficients, panels, planes, steps
from ._numba import address_of, array_at, inlined, njit
from .formats import FORMATS
from .jobs import (
    ARRIVED,
    FINISHED,
    MERGED,
    OUTPUT,
    SUMS,
    SUMS_DONE,
    TAKEN_BYTES,
    Scratch,
    block_number,
    read_job,
    scratch_type,
)
from .machine_code import CompiledFunction, compile_function, dependencies_of, is_kept
from .runtime import current_number, finish_streaming, number_from, take_number

# Errors of sums in float32 are random, and of fewer values they do not cancel well enough.
_MANY_VALUES = 128


@inlined
def _values_of(job, block):
    """How many values of a channel a block has."""
    if job.width:
        return panels.values_before(job, block.high) - panels.values_before(job, block.low)
    return planes.values_before(job, block.high) - planes.values_before(job, block.low)


@inlined
def _sum_in(job, block, scratch, add, like_sums):
    """Sum up in chains of the type of `like_sums`."""
    if job.width:
        panels.sum_up(job, block, scratch, add, like_sums)
    else:
        planes.sum_up(job, block, scratch, add, like_sums)


@njit
def _sum_by(job, block, scratch, add, backward):
    """Fill ``scratch.record.sums`` with what `add` adds up, by way of float32 if that does."""
    if job.m > _MANY_VALUES:
        _sum_in(job, block, scratch, add, scratch.record.channel[0])
        if coefficients.sums_hold(
            job, block, scratch.record.sums, _values_of(job, block), backward
        ):
            return
    _sum_in(job, block, scratch, add, scratch.record.column_sums)


@njit
def _sum_up(job, block, scratch, backward):
    """Fill ``scratch.record.sums`` with the two sums of each channel that a pass needs."""
    if backward:
        coefficients.set_shift(job, block, scratch.record.channel)
        if job.relu:
            # Its gradient depends on what the forward pass computed.
            coefficients.set_forward(job, block, scratch.record.channel)
        _sum_by(job, block, scratch, steps.add_products, backward)
    else:
        if job.width:
            panels.choose_shifts(job, block, scratch)
        else:
            planes.choose_shifts(job, block, scratch)
        _sum_by(job, block, scratch, steps.add_moments, backward)


@njit
def _finish_sums(job, block, scratch, backward):
    """Write what the sums of all values of a block are for, about shifts that are set."""
    if backward:
        coefficients.write_gradients(job, block, scratch.record.sums, scratch.record.channel)
    else:
        coefficients.write_statistics(job, block, scratch.record.sums)


@njit
def _write(job, block, scratch, backward):
    """Write a block of the output, or of the gradient of the input."""
    coefficients.set_forward(job, block, scratch.record.channel)
    if backward:
        coefficients.set_backward(job, block, scratch.record.channel)
        if job.width:
            panels.differentiate(job, block, scratch)
        else:
            planes.differentiate(job, block, scratch)
    elif job.width:
        panels.normalize(job, block, scratch)
    else:
        planes.normalize(job, block, scratch)


@njit
def _save_sums(job, block, sums):
    saved = array_at(job.partial_sums, 2 * job.chunks * job.channels, sums)
    at = 2 * block.chunk * job.channels + block.channel
    for c in range(block.channels):
        saved[at + c], saved[at + job.channels + c] = sums[0, c], sums[1, c]


@njit
def _add_saved_sums(job, block, sums):
    """The same order whichever thread computed what: results do not change from run to run."""
    saved = array_at(job.partial_sums, 2 * job.chunks * job.channels, sums)
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
    return take_number(job.chunks_taken + TAKEN_BYTES * (sweep * job.threads + owner))


@inlined
def _start_of_share(job, owner):
    """The first number of a thread's share, which ends where the next one's begins."""
    return job.blocks * job.chunks * owner // job.threads


@njit
def _sum_chunks(address, job, scratch, thread, backward):
    """Sum up all chunks. Who finishes the last of them merges them; the others wait."""
    for step in range(job.threads):
        owner = (thread + step) % job.threads
        start, end = _start_of_share(job, owner), _start_of_share(job, owner + 1)
        number = start + _next_of_share(job, 0, owner)
        while number < end:
            block = block_number(job, number)
            _sum_up(job, block, scratch, backward)
            _save_sums(job, block, scratch.record.sums)
            if take_number(address + SUMS_DONE) == job.blocks * job.chunks - 1:
                _merge_chunks(job, scratch, backward)
                take_number(address + MERGED)
            number = start + _next_of_share(job, 0, owner)
    while current_number(address + MERGED) == 0:
        pass


@njit
def _merge_chunks(job, scratch, backward):
    for number in range(job.blocks):
        block = block_number(job, number)
        _add_saved_sums(job, block, scratch.record.sums)
        if backward:
            coefficients.set_shift(job, block, scratch.record.channel)
        _finish_sums(job, block, scratch, backward)


@njit
def _finish_block(job, block, scratch, backward, sums_needed):
    """Write a block that is summed up now, if it has not been before."""
    if sums_needed and job.chunks == 1:
        _sum_up(job, block, scratch, backward)
        _finish_sums(job, block, scratch, backward)
    elif not (backward or job.training) and block.low == 0:
        coefficients.keep_statistics(job, block)
    if job.sweeps & OUTPUT:
        _write(job, block, scratch, backward)


@njit
def _run(address, job, scratch, thread, backward):
    sums_needed = (backward or job.training) and job.sweeps & SUMS
    if sums_needed and job.chunks > 1:
        _sum_chunks(address, job, scratch, thread, backward)
    for step in range(job.threads):
        owner = (thread + step) % job.threads
        start, end = _start_of_share(job, owner), _start_of_share(job, owner + 1)
        number = end - 1 - _next_of_share(job, 1, owner)
        while number >= start:
            _finish_block(job, block_number(job, number), scratch, backward, sums_needed)
            number = end - 1 - _next_of_share(job, 1, owner)
    if job.stream:
        finish_streaming()
    if job.moves and take_number(address + FINISHED) == job.threads - 1:
        coefficients.move_running(job)


_UNCOMPILED = ("__init__.py", "ahead.py", "calls.py")
SOURCES = [path for path in Path(__file__).parent.glob("*.py") if path.name not in _UNCOMPILED]
"""What the machine code is compiled from."""
_DEPENDENCIES = dependencies_of(SOURCES)


@cache
def compiled(backward: bool, dtype: str) -> CompiledFunction:
    """The function that runs a job, from the disk, or compiled now.

    Parameters
    ----------
    backward
        Which of the two passes.
    dtype
        The type of the activations, one of :data:`.formats.FORMATS`.

    Returns
    -------
    CompiledFunction
        Its argument is the address of a job in memory.
    """
    numbers = FORMATS[dtype]
    record = scratch_type(numbers.stored, numbers.compute)
    record_bytes = record.itemsize

    def run(place: Any) -> None:
        address = address_of(carray(place, 1, np.int64))
        job = read_job(address)
        thread = _thread_number(address, job)
        own = array_at(job.scratch + thread * record_bytes, 1, record)
        _run(address, job, Scratch(own[0]), thread, backward)

    run.__qualname__ = _name(backward, dtype)
    return compile_function(title(backward, dtype), run, _DEPENDENCIES)


def is_compiled(backward: bool, dtype: str) -> bool:
    """Whether :func:`compiled` finds machine code on the disk."""
    return is_kept(_name(backward, dtype), _DEPENDENCIES)


def title(backward: bool, dtype: str) -> str:
    """What messages call one of the compiled functions."""
    return f"the {'backward' if backward else 'forward'} pass ({dtype})"


def _name(backward: bool, dtype: str) -> str:
    return f"{'backward' if backward else 'forward'}_{dtype}"
