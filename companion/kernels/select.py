"""Which kernels compute a batch normalization, and what to install for those that are missing.

============  ===========================  =======================================================
backend       needs                        serves
============  ===========================  =======================================================
``"eager"``   PyTorch                      every device, transform, and higher derivative
``"cpu"``     Numba                        CPU tensors
``"cuda"``    Triton 3.4, NVIDIA GPU       CUDA tensors
``"torch"``   PyTorch                      what PyTorch's own layer does, with its accuracy
============  ===========================  =======================================================

``"auto"`` takes the compiled kernels of the tensor's device wherever they can serve. It never takes
PyTorch's own layer for speed. That layer is a little faster in a few backward passes and
evaluations of tensors that fit a cache: ``book/results/bench-cpu.json``, from ``python -m companion
bench``, has the times of 61 cases. But its statistics, where channels are last and for (N, C), are
float32 sums, and wrong in known cases, and it does not centre before it scales. So only devices
without float64, where nothing of ours runs, are left to it.

Under torch.compile, ``"auto"`` gives the compiler PyTorch's operations on the CPU, which it fuses
with what stands before and after: a ReLU and a sum, forward and backward, cost as much there as the
normalization. ``"cpu"`` stays an operator that it does not open, and so do the CUDA kernels.

Most of a small batch's time is the call. :func:`direct` is the CPU kernels' way without
Python: in training, forward, a batch of 60 × 100 takes half of PyTorch's time by it, and twice
PyTorch's time by Python's way.

The sizes at which the CPU kernels change their ways are in ``cpu.plans``, those of the CUDA kernels
in ``cuda.plans``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .. import _torch
from .interface import Kernels, Running

BACKENDS = ("auto", "eager", "cpu", "cuda", "torch")


class Way(Enum):
    """Who computes, other than the direct way."""

    COMPILED = auto()
    """The kernels, called from Python."""
    OPERATOR = auto()
    """The same, as an operator that torch.compile puts into its graph unopened."""
    EAGER = auto()
    """PyTorch's operations, which serve every transform, and which torch.compile fuses."""
    TORCH = auto()
    """PyTorch's own function."""


class _Need(NamedTuple):
    """What a backend needs."""

    package: str
    extra: str
    """Of this package, which brings it."""
    at_least: tuple[int, int] = (0, 0)

    def is_met(self) -> bool:
        """Whether the package is there, and is not known to be too old; it is not imported."""
        if find_spec(self.package) is None:
            return False
        try:
            major, minor = version(self.package).split(".")[:2]
        except PackageNotFoundError:
            # Nightly builds of PyTorch bring theirs under other names.
            return True
        return (int(major), int(minor)) >= self.at_least

    def __str__(self) -> str:
        major, minor = self.at_least
        return f"{self.package}>={major}.{minor}" if major else self.package


# Triton 3.2 has no tuples of tensors, and 3.3 crashes on some of the kernels.
_NEEDS = {"cpu": _Need("numba", "cpu"), "cuda": _Need("triton", "cuda", at_least=(3, 4))}


# Looked up once, and in a plain dictionary, which torch.compile takes for constant.
_INSTALLED = {backend: need.is_met() for backend, need in _NEEDS.items()}


def installed(backend: str) -> bool:
    """Whether the package that a backend needs is there; it is not imported."""
    return _INSTALLED.get(backend, True)


@cache
def load(backend: str) -> Kernels:
    """The kernel module of a backend."""
    return cast(Kernels, importlib.import_module(f".{backend}", __package__))


def direct(
    input: object, backend: str, differentiate_again: Callable[..., Any]
) -> Callable[..., Tensor | None] | None:
    """How the CPU kernels compute without Python's help, or None where others serve the call.

    Parameters
    ----------
    input, backend
        As given by the caller, unchecked.
    differentiate_again : callable
        :func:`companion.differentiation.differentiate_again`, for the backward pass.

    Returns
    -------
    callable or None
        See :mod:`.cpu.calls`. It takes the arguments of ``calls.cpp``'s ``batch_norm``, unchecked,
        and returns the output; or None where it has done nothing, since the call needs a closer
        look.
    """
    if (
        type(input) is Tensor
        and (backend == "auto" or backend == "cpu")
        and not torch.compiler.is_compiling()
        and input.is_cpu
        and _INSTALLED["cpu"]
    ):
        return _built(differentiate_again)
    return None


@cache
def _built(differentiate_again: Callable[..., Any]) -> Callable[..., Tensor | None] | None:
    from .cpu import calls

    return calls.load(differentiate_again)


def way(x: Tensor, running: Running, backend: str) -> tuple[Way, str]:
    """Who serves a call whose arguments have been checked, and has not gone the direct way.

    Parameters
    ----------
    x : Tensor
        The input.
    running : Running
        The running statistics.
    backend : str
        One of `BACKENDS`.

    Returns
    -------
    Way
        Who it is.
    str
        The backend, never ``"auto"``.

    Raises
    ------
    ValueError, RuntimeError
        As :func:`choose`.
    """
    left_open, backend = backend == "auto", choose(x, backend)
    if backend == "torch":
        return Way.TORCH, backend
    if backend == "eager" or x.numel() == 0:
        return Way.EAGER, backend
    if torch.compiler.is_compiling():
        # An exported program should run where this package is not.
        exporting = _torch.is_exporting()
        opened = exporting or _torch.transforms_are_active() or (left_open and x.is_cpu)
        return Way.EAGER if opened else Way.OPERATOR, backend
    readable = _torch.is_plain(x) and _can_be_moved(running)
    return Way.COMPILED if readable else Way.EAGER, backend


def _can_be_moved(running: Running) -> bool:
    """Whether compiled kernels can move the running statistics where they lie."""
    mean, var, count = running.mean, running.var, running.num_batches_tracked
    if mean is not None and var is not None and not (mean.is_contiguous() and var.is_contiguous()):
        return False
    return count is None or (count.dtype is torch.int64 and count.ndim == 0)


def choose(x: Tensor, backend: str) -> str:
    """The backend that will compute, never ``"auto"``.

    Parameters
    ----------
    x
        the input
    backend
        one of `BACKENDS`

    Raises
    ------
    ValueError
        `backend` is none of them
    RuntimeError
        it cannot serve the input's device, or its package is not installed
    """
    if backend == "auto":
        # Quicker than to ask for the type of the device.
        device = "cpu" if x.is_cpu else x.device.type
        if device in _NEEDS and installed(device):
            return device
        return "torch" if device == "mps" else "eager"
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend in _NEEDS:
        _check_available(x, backend)
    return backend


def _check_available(x: Tensor, backend: str) -> None:
    need = _NEEDS[backend]
    if x.device.type != backend:
        raise RuntimeError(f"backend: {backend!r} expected a {backend} tensor, got {x.device}")
    if not installed(backend):
        raise RuntimeError(
            f"backend: {backend!r} needs {need}, which is not installed: "
            f"pip install 'batchnorm-companion[{need.extra}]'"
        )
