"""Batch normalization on the CPU at the speed of memory, compiled by Numba.

This is an engine; to learn how it works, read :mod:`companion.experiments.memory_steps`, which
builds the same up in four steps.

The functions of :class:`companion.kernels.interface.Kernels`. This module puts tensors into a
layout that the kernels know, and has :mod:`.workers` compute on as many threads as
``torch.get_num_threads()`` says. The formulas are in :mod:`.steps` and :mod:`.coefficients`, the
loops around them in :mod:`.planes` and :mod:`.panels`, and :mod:`.jobs` has what they pass around.

Numba compiles for each type of activation once, and :mod:`.machine_code` keeps the result.
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..interface import Gradients, Running
from ..layouts import empty_with_layout_of, is_channels_last, with_layout_of
from . import workers
from .formats import FLOAT64, FORMATS
from .jobs import OUTPUT, SUMS, TAKEN_BYTES, Job, PlanNumbers, scratch_type
from .plans import Plan, plan
from .runtime import Threads

__all__ = ["differentiate", "gradient_sums", "moments", "normalize", "project"]

NAMES = {getattr(torch, name): name for name in FORMATS}
KINDS = {getattr(torch, name): numbers.kind for name, numbers in FORMATS.items()}

pool = Threads()


class _Memory(threading.local):
    """A thread's own memory for its jobs, kept from call to call."""

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """Of `size` bytes that the next call overwrites."""
        if self.bytes.shape[0] < size:
            self.bytes = torch.empty(size, dtype=torch.uint8)
        return self.bytes.data_ptr()


_memory = _Memory()


class Pass(NamedTuple):
    """What the passes over tensors of one shape, layout and type have in common."""

    stride: tuple[int, ...]
    """Of the result: PyTorch's choice, where sizes of 1 leave one."""
    plan: Plan
    numbers: PlanNumbers
    """The plan, as the job has it."""
    scratch: int
    """Bytes that the threads work in."""
    memory: int
    """Those, the sums that the threads share, and how many chunks they have taken."""

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
        numbers = FORMATS[NAMES[dtype]]
        scratch = cut.threads * scratch_type(numbers.stored, numbers.compute).itemsize
        memory = scratch + 16 * cut.channels * (cut.chunks + 1) + 2 * TAKEN_BYTES * cut.threads
        return Pass(empty_with_layout_of(like).stride(), cut, PlanNumbers(*cut), scratch, memory)


def _over(x: Tensor, tensors: int) -> tuple[Tensor, Pass]:
    """`x` in a layout that the kernels know, and what to do with it."""
    threads = torch.get_num_threads()
    this = Pass.over(x.shape, x.stride(), x.dtype, tensors, threads)
    if this is None:
        x = with_layout_of(x, x)
        this = Pass.over(x.shape, x.stride(), x.dtype, tensors, threads)
        assert this is not None
    return x, this


def _like(x: Tensor, given: Tensor) -> Tensor:
    """`given` in the layout of `x`."""
    if given.stride() == x.stride():
        return given
    return torch.empty_like(x).copy_(given)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _parameter(tensor: Tensor | None) -> tuple[int, int]:
    """Address and kind of a tensor with one value per channel."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), KINDS[tensor.dtype])


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _job_of(this: Pass, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Job:
    """The part of a job that all passes have. Its memory is the next one's, too."""
    taken, size = _memory.address(this.memory), 2 * TAKEN_BYTES * this.plan.threads
    ctypes.memset(taken, 0, size)
    partial_sums = taken + size + this.scratch
    weight_at, weight_kind = _parameter(weight)
    bias_at, bias_kind = _parameter(bias)
    return Job(
        eps=eps,
        x=x.data_ptr(),
        weight=weight_at,
        weight_kind=weight_kind,
        bias=bias_at,
        bias_kind=bias_kind,
        sums=partial_sums + 16 * this.plan.channels * this.plan.chunks,
        partial_sums=partial_sums,
        scratch=taken + size,
        chunks_taken=taken,
        thread_number=pool.thread_number,
        training=1,
        sweeps=SUMS + OUTPUT,
        plan=this.numbers,
    )


def _set_statistics(job: Job, statistics: Tensor) -> None:
    """Normalize with what is, or will be, in `statistics`."""
    job.statistics = job.mean = at = statistics.data_ptr()
    job.var = at + 8 * statistics.shape[1]
    job.mean_kind = job.var_kind = FLOAT64


def _run(this: Pass, job: Job, dtype: torch.dtype, backward: bool) -> None:
    function = workers.compiled(backward, NAMES[dtype])
    pool.run(function, ctypes.addressof(job), this.plan.threads)


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
    y = torch.empty_strided(x.shape, this.stride, dtype=x.dtype)
    statistics = torch.empty((2, this.plan.channels), dtype=torch.float64)
    job = _job_of(this, x, weight, bias, eps)
    _set_statistics(job, statistics)
    job.y, job.residual, job.relu = y.data_ptr(), _address(residual), relu
    if fixed is not None:
        mean, var = fixed[0].contiguous(), fixed[1].contiguous()
        job.mean, job.mean_kind = _parameter(mean)
        job.var, job.var_kind = _parameter(var)
        job.training = 0
    if running is not None:
        job.momentum = float("nan") if running.momentum is None else running.momentum
        job.running_mean, job.running_mean_kind = _parameter(running.mean)
        job.running_var, job.running_var_kind = _parameter(running.var)
        job.batches = _address(running.num_batches_tracked)
        job.moves, job.skip_nonfinite = 1, running.skip_nonfinite
    _run(this, job, x.dtype, False)
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
    gradients = Gradients(
        x=torch.empty_strided(x.shape, this.stride, dtype=x.dtype),
        weight=None if weight is None else torch.empty_like(weight),
        bias=None if bias is None else torch.empty_like(bias),
        residual=torch.empty_strided(x.shape, this.stride, dtype=x.dtype) if residual else None,
    )
    job = _job_of(this, x, weight, bias, eps)
    _set_statistics(job, statistics)
    job.y, job.grad_y, job.grad_x = _address(y), grad_y.data_ptr(), gradients.x.data_ptr()
    job.grad_residual = _address(gradients.residual)
    job.grad_weight, job.grad_weight_kind = _parameter(gradients.weight)
    job.grad_bias, job.grad_bias_kind = _parameter(gradients.bias)
    job.relu, job.training = relu, training
    _run(this, job, x.dtype, True)
    return gradients


def moments(x: Tensor) -> Tensor:
    """See :class:`companion.kernels.interface.Halves`."""
    x, this = _over(x, 1)
    statistics = torch.empty((2, this.plan.channels), dtype=torch.float64)
    job = _job_of(this, x, None, None, 0.0)
    _set_statistics(job, statistics)
    job.sweeps = SUMS
    _run(this, job, x.dtype, False)
    return statistics


def gradient_sums(grad_y: Tensor, x: Tensor, statistics: Tensor, eps: float) -> Tensor:
    """See :class:`companion.kernels.interface.Halves`."""
    x, this = _over(x, 2)
    grad_y, sums = _like(x, grad_y), torch.empty_like(statistics)
    job = _job_of(this, x, None, None, eps)
    _set_statistics(job, statistics)
    job.grad_y, job.sums, job.sweeps = grad_y.data_ptr(), sums.data_ptr(), SUMS
    _run(this, job, x.dtype, True)
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
    grad_y, weight, sums = _like(x, grad_y), _contiguous(weight), sums.contiguous()
    grad_x = torch.empty_strided(x.shape, this.stride, dtype=x.dtype)
    job = _job_of(this, x, weight, None, eps)
    _set_statistics(job, statistics)
    job.grad_y, job.grad_x = grad_y.data_ptr(), grad_x.data_ptr()
    job.sums, job.sweeps = sums.data_ptr(), OUTPUT
    _run(this, job, x.dtype, True)
    return grad_x


def _increment_versions(running: Running) -> None:
    """Tell autograd that the running statistics have changed."""
    state = (running.mean, running.var, running.num_batches_tracked)
    torch.autograd.graph.increment_version(
        [tensor for tensor in state if tensor is not None and not tensor.is_inference()]
    )
