"""Batch normalization on the CPU at the speed of memory, compiled by Numba.

The functions of :class:`companion.kernels.interface.Kernels`. This module puts tensors into a
layout that the kernels know, and has :mod:`.workers` compute on as many threads as
``torch.get_num_threads()`` says. To read how, begin with :mod:`.jobs`, then :mod:`.planes`.

Numba compiles for each type of activation once, and keeps the result on disk: next to the source
or, where that is read-only, in the user's cache; ``NUMBA_CACHE_DIR`` names another folder.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..eager import empty_with_layout_of, is_channels_last, with_layout_of
from ..interface import Gradients, Running
from . import coefficients, workers
from .formats import KINDS
from .jobs import COUNTERS, JOB_BYTES, OUTPUT, SUMS, TURN_BYTES, Job, room_type
from .plans import Plan, plan
from .runtime import Threads

__all__ = ["differentiate", "gradient_sums", "moments", "normalize", "project"]

# What activations are stored in (half precision by its bits) and computed in.
TYPES: dict[torch.dtype, tuple[type, type]] = {
    torch.float32: (np.float32, np.float32),
    torch.float64: (np.float64, np.float64),
    torch.float16: (np.int16, np.float32),
    torch.bfloat16: (np.uint16, np.float32),
}
KINDS_OF = {getattr(torch, name): kind for name, kind in KINDS.items()}
_FLOAT64 = KINDS["float64"]

pool = Threads()


class _Buffers(threading.local):
    """A thread's own memory for what it hands to compiled code, kept from call to call."""

    def __init__(self) -> None:
        self.job = bytearray(JOB_BYTES)
        self.job_address = ctypes.addressof(ctypes.c_char.from_buffer(self.job))
        self.scratch = torch.empty(0, dtype=torch.uint8)

    def scratch_address(self, size: int) -> int:
        """Room of `size` bytes that the next call overwrites."""
        if self.scratch.shape[0] < size:
            self.scratch = torch.empty(size, dtype=torch.uint8)
        return self.scratch.data_ptr()


_buffers = _Buffers()
# A job in memory: counters, what differs from call to call, and what the plan says.
_PLANNED = len(Plan._fields)
_VARYING = len(Job._fields) - 2 - _PLANNED
_pack_job = struct.Struct(f"={COUNTERS}q2d{_VARYING}q").pack_into
_pack_plan = struct.Struct(f"={_PLANNED}q").pack
_UNCOUNTED = (0,) * COUNTERS
_NONE, _NOT_MOVED = (0, 0, 0, 0), (0,) * 7


class Pass(NamedTuple):
    """What the passes over tensors of one shape, layout and type have in common."""

    stride: tuple[int, ...]
    """Of the result: PyTorch's choice, where sizes of 1 leave one."""
    plan: Plan
    packed: bytes
    """The plan, as the job has it."""
    rooms: int
    """Bytes that the threads work in."""
    scratch: int
    """Those, the sums that they share, and whose turn it is."""

    @staticmethod
    @lru_cache(maxsize=1024)
    def over(
        shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype, tensors: int, threads: int
    ) -> Pass | None:
        """For a tensor in a layout that the kernels know; `tensors` as in :func:`.plans.plan`."""
        like = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        last = not like.is_contiguous()
        if last and not (is_channels_last(like) and like.movedim(1, -1).is_contiguous()):
            return None
        cut = plan(tuple(shape), last, dtype.itemsize, tensors, threads)
        rooms = cut.threads * room_type(*TYPES[dtype], coefficients.COUNT).itemsize
        scratch = rooms + 16 * cut.channels * (cut.chunks + 1) + 2 * TURN_BYTES * cut.threads
        return Pass(empty_with_layout_of(like).stride(), cut, _pack_plan(*cut), rooms, scratch)


def _over(x: Tensor, tensors: int) -> tuple[Tensor, Pass]:
    """`x` in a layout that the kernels know, and what to do with it."""
    threads = torch.get_num_threads()
    found = Pass.over(x.shape, x.stride(), x.dtype, tensors, threads)
    if found is None:
        x = with_layout_of(x, x)
        found = Pass.over(x.shape, x.stride(), x.dtype, tensors, threads)
        assert found is not None
    return x, found


def _like(x: Tensor, given: Tensor) -> Tensor:
    """`given` in the layout of `x`."""
    if given.stride() == x.stride():
        return given
    return torch.empty_like(x).copy_(given)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _parameter(tensor: Tensor | None) -> tuple[int, int]:
    """Address and kind of a tensor with one value per channel."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), KINDS_OF[tensor.dtype])


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _work_memory(this: Pass) -> tuple[int, int, int, int, int]:
    """What the threads share, for the job's fields from `sums` on; the next call overwrites it."""
    turns, size = _buffers.scratch_address(this.scratch), 2 * TURN_BYTES * this.plan.threads
    ctypes.memset(turns, 0, size)
    rooms = turns + size
    partial = rooms + this.rooms
    return (
        partial + 16 * this.plan.channels * this.plan.chunks,
        *(partial, rooms, turns, pool.thread_number),
    )


def _run(
    this: Pass, x: Tensor, options: tuple[float, ...], tensors: tuple[int, ...], backward: bool
) -> None:
    """Run the job whose numbers begin with `options`, floats, and `tensors`."""
    job = _buffers.job
    _pack_job(job, 0, *_UNCOUNTED, *options, *tensors)
    job[-len(this.packed) :] = this.packed
    function = workers.compiled(backward, *TYPES[x.dtype])
    pool.run(function, _buffers.job_address, this.plan.threads)


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    fixed: tuple[Tensor, Tensor] | None,
    running: Running | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """See :class:`companion.kernels.interface.Kernels`."""
    x, this = _over(x, 1 if fixed is None else 0)
    residual = None if residual is None else _like(x, residual)
    weight, bias = _contiguous(weight), _contiguous(bias)
    y, C = torch.empty_strided(x.shape, this.stride, dtype=x.dtype), this.plan.channels
    statistics = torch.empty((2, C), dtype=torch.float64)
    if fixed is None:
        kept = statistics.data_ptr()
        given = (kept, _FLOAT64, kept + 8 * C, _FLOAT64)
    else:
        mean, var = fixed[0].contiguous(), fixed[1].contiguous()
        given = (*_parameter(mean), *_parameter(var))
    momentum, moved = 0.0, _NOT_MOVED
    if running is not None:
        momentum = float("nan") if running.momentum is None else running.momentum
        mean_at, var_at = _parameter(running.mean), _parameter(running.var)
        moved = (
            *mean_at,
            *var_at,
            _address(running.num_batches_tracked),
            1,
            running.skip_nonfinite,
        )
    tensors = (
        *(x.data_ptr(), y.data_ptr(), _address(residual), 0, 0, 0),
        *(*_parameter(weight), *_parameter(bias), *given, statistics.data_ptr(), *_NONE),
        *(*_work_memory(this), *moved, fixed is None, relu, SUMS + OUTPUT),
    )
    _run(this, x, (eps, momentum), tensors, False)
    if running is not None:
        _increment_versions(running)
    return y, statistics


def differentiate(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
    training: bool,
) -> Gradients:
    """See :class:`companion.kernels.interface.Kernels`."""
    x, this = _over(x, 2)
    grad_y, y = _like(x, grad_y), None if y is None else _like(x, y)
    weight, bias = _contiguous(weight), _contiguous(bias)
    found = Gradients(
        x=torch.empty_strided(x.shape, this.stride, dtype=x.dtype),
        weight=None if weight is None else torch.empty_like(weight),
        bias=None if bias is None else torch.empty_like(bias),
        residual=torch.empty_strided(x.shape, this.stride, dtype=x.dtype) if residual else None,
    )
    _backward(this, grad_y, x, y, statistics, (weight, bias), found, None, (eps, relu, training))
    return found


def moments(x: Tensor) -> Tensor:
    """See :class:`companion.kernels.interface.Halves`."""
    x, this = _over(x, 1)
    C = this.plan.channels
    statistics = torch.empty((2, C), dtype=torch.float64)
    kept = statistics.data_ptr()
    tensors = (
        *(x.data_ptr(), 0, 0, 0, 0, 0, *_NONE, kept, _FLOAT64, kept + 8 * C, _FLOAT64, kept),
        *(*_NONE, *_work_memory(this), *_NOT_MOVED, True, False, SUMS),
    )
    _run(this, x, (0.0, 0.0), tensors, False)
    return statistics


def gradient_sums(grad_y: Tensor, x: Tensor, statistics: Tensor, eps: float) -> Tensor:
    """See :class:`companion.kernels.interface.Halves`."""
    x, this = _over(x, 2)
    sums = torch.empty_like(statistics)
    _backward(
        this,
        _like(x, grad_y),
        x,
        None,
        statistics,
        (None, None),
        Gradients(x, None, None, None),
        sums,
        (eps, False, True),
        SUMS,
    )
    return sums


def project(
    grad_y: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    eps: float,
) -> Tensor:
    """See :class:`companion.kernels.interface.Halves`."""
    x, this = _over(x, 2)
    grad_x = torch.empty_strided(x.shape, this.stride, dtype=x.dtype)
    _backward(
        this,
        _like(x, grad_y),
        x,
        None,
        statistics,
        (_contiguous(weight), None),
        Gradients(grad_x, None, None, None),
        sums.contiguous(),
        (eps, False, True),
        OUTPUT,
    )
    return grad_x


def _backward(
    this: Pass,
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    parameters: tuple[Tensor | None, Tensor | None],
    found: Gradients,
    sums: Tensor | None,
    options: tuple[float, bool, bool],
    sweeps: int = SUMS + OUTPUT,
) -> None:
    """Run the backward pass, or a half of it, into `found`, by way of `sums` if they are given."""
    eps, relu, training = options
    weight, bias = parameters
    kept, C = statistics.data_ptr(), this.plan.channels
    own_sums, *shared = _work_memory(this)
    tensors = (
        *(x.data_ptr(), _address(y), 0, grad_y.data_ptr()),
        *(found.x.data_ptr(), _address(found.residual), *_parameter(weight), *_parameter(bias)),
        *(kept, _FLOAT64, kept + 8 * C, _FLOAT64, kept),
        *(*_parameter(found.weight), *_parameter(found.bias)),
        *(own_sums if sums is None else sums.data_ptr(), *shared),
        *(*_NOT_MOVED, training, relu, sweeps),
    )
    _run(this, x, (eps, 0.0), tensors, True)


def _increment_versions(running: Running) -> None:
    """Tell autograd that the running statistics have changed."""
    state = (running.mean, running.var, running.num_batches_tracked)
    torch.autograd.graph.increment_version(
        [tensor for tensor in state if tensor is not None and not tensor.is_inference()]
    )
