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

import numpy as np
import torch
from torch import Tensor

from ..eager import empty_with_layout_of, is_channels_last, values_per_channel, with_layout_of
from ..interface import Gradients, Running
from . import coefficients, workers
from .jobs import JOB, UPDATE, room_type
from .plans import Plan, plan
from .runtime import Threads
from .tiles import KINDS

__all__ = ["batch_backward", "batch_forward", "fixed_backward", "fixed_forward"]

# What activations are stored in (half precision by its bits) and computed in.
_TYPES: dict[torch.dtype, tuple[type, type]] = {
    torch.float32: (np.float32, np.float32),
    torch.float64: (np.float64, np.float64),
    torch.float16: (np.int16, np.float32),
    torch.bfloat16: (np.uint16, np.float32),
}
_KINDS = {getattr(torch, name): kind for name, kind in KINDS.items()}

_threads = Threads()


class _Buffers(threading.local):
    """A thread's own memory for what it hands to compiled code, kept from call to call."""

    def __init__(self) -> None:
        self.job = ctypes.create_string_buffer(JOB.itemsize)
        self.update = ctypes.create_string_buffer(UPDATE.itemsize)
        self.job_address = ctypes.addressof(self.job)
        self.update_address = ctypes.addressof(self.update)
        self.rooms: dict[tuple[torch.dtype, int], Tensor] = {}


def _packer(record: np.dtype[np.void]) -> struct.Struct:
    """Writes the values of a NumPy record of numbers, one after the other."""
    codes = {"int64": "q", "float64": "d"}
    return struct.Struct("=" + "".join(codes[record[name].name] for name in record.names or ()))


_buffers = _Buffers()
_pack_job, _pack_update = _packer(JOB).pack_into, _packer(UPDATE).pack_into


def _rooms(dtype: torch.dtype, threads: int) -> Tensor:
    """Room for the threads of one call, kept for the next call of this thread."""
    room = _buffers.rooms.get((dtype, threads))
    if room is None:
        bytes_each = room_type(*_TYPES[dtype], coefficients.COUNT).itemsize
        room = torch.empty(threads * bytes_each, dtype=torch.uint8)
        _buffers.rooms[dtype, threads] = room
    return room


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """`x` in a layout that the kernels know, and whether its channels are last."""
    if x.is_contiguous():
        return x, False
    if is_channels_last(x) and x.movedim(1, -1).is_contiguous():
        return x, True
    x = with_layout_of(x, x)
    return x, not x.is_contiguous()


def _like(x: Tensor, given: Tensor) -> Tensor:
    """`given` in the layout of `x`."""
    if given.stride() == x.stride():
        return given
    return torch.empty_like(x).copy_(given)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _parameter(tensor: Tensor | None) -> tuple[int, int]:
    """Address and kind of a tensor with one value per channel."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), _KINDS[tensor.dtype])


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _run(
    x: Tensor,
    cut: Plan,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    training: bool,
    *,
    y: Tensor | None = None,
    residual: Tensor | None = None,
    gradients: tuple[Tensor, Gradients] | None = None,
) -> None:
    """Fill `y` or, given `gradients` (of y, and to fill), run the backward pass."""
    grad_y, to = gradients or (None, None)
    weight, bias = _contiguous(weight), _contiguous(bias)
    rooms = _rooms(x.dtype, cut.threads)
    partial = None
    if cut.chunks > 1 and (training or to is not None):
        partial = torch.empty(cut.chunks * 2 * cut.channels, dtype=torch.float64)
    _pack_job(
        _buffers.job,
        0,
        *(0, 0, 0, 0, 0),
        *(x.data_ptr(), _address(y), _address(residual), _address(grad_y)),
        *((0, 0) if to is None else (to.x.data_ptr(), _address(to.residual))),
        *_parameter(weight),
        *_parameter(bias),
        *(mean.data_ptr(), var.data_ptr()),
        *((0, 0) if to is None else (to.weight.data_ptr(), to.bias.data_ptr())),
        *(_address(partial), rooms.data_ptr()),
        *cut[:-2],
        *(training, relu, cut.stream, eps),
    )
    function = workers.compiled(to is not None, *_TYPES[x.dtype])
    _threads.run(function, _buffers.job_address, cut.threads)


def batch_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    running: Running | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :class:`companion.kernels.interface.Kernels`, as for the other functions here."""
    x, last = _dense(x)
    residual = None if residual is None else _like(x, residual)
    cut = plan(tuple(x.shape), last, x.itemsize, 1, torch.get_num_threads())
    y = empty_with_layout_of(x)
    mean = torch.empty(cut.channels, dtype=torch.float64)
    var = torch.empty(cut.channels, dtype=torch.float64)
    _run(x, cut, mean, var, weight, bias, eps, relu, True, y=y, residual=residual)
    if running is not None:
        _update(running, mean, var, values_per_channel(x))
    return y, mean, var


def fixed_forward(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    relu: bool,
) -> Tensor:
    x, last = _dense(x)
    residual = None if residual is None else _like(x, residual)
    cut = plan(tuple(x.shape), last, x.itemsize, 0, torch.get_num_threads())
    y = empty_with_layout_of(x)
    _run(x, cut, mean, var, weight, bias, eps, relu, False, y=y, residual=residual)
    return y


def batch_backward(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
) -> Gradients:
    return _backward(grad_y, x, y, mean, var, weight, bias, eps, relu, residual, True)


def fixed_backward(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
) -> Gradients:
    return _backward(grad_y, x, y, mean, var, weight, bias, eps, relu, residual, False)


def _backward(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
    training: bool,
) -> Gradients:
    x, last = _dense(x)
    grad_y, y = _like(x, grad_y), None if y is None else _like(x, y)
    cut = plan(tuple(x.shape), last, x.itemsize, 2, torch.get_num_threads())
    result = Gradients(
        x=empty_with_layout_of(x),
        weight=torch.empty(cut.channels, dtype=torch.float64),
        bias=torch.empty(cut.channels, dtype=torch.float64),
        residual=empty_with_layout_of(x) if residual else None,
    )
    gradients = (grad_y, result)
    _run(x, cut, mean, var, weight, bias, eps, relu, training, y=y, gradients=gradients)
    return result


def _update(running: Running, mean: Tensor, var: Tensor, m: int) -> None:
    _pack_update(
        _buffers.update,
        0,
        *(mean.shape[0], m, mean.data_ptr(), var.data_ptr()),
        _address(running.num_batches_tracked),
        *_parameter(running.mean),
        *_parameter(running.var),
        running.skip_nonfinite,
        float("nan") if running.momentum is None else running.momentum,
    )
    workers.compiled_update().call(_buffers.update_address)
    for tensor in (running.mean, running.var, running.num_batches_tracked):
        if tensor is not None and not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
