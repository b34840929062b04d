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

Most of a small batch's time is the call. :func:`direct_call` is the CPU kernels' way without
Python: in training, forward, a batch of 60 × 100 takes half of PyTorch's time by it, and twice
PyTorch's time by Python's way.

The sizes at which the CPU kernels change their ways are in ``cpu.plans``, those of the CUDA kernels
in ``cuda.plans``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .interface import Kernels

BACKENDS = ("auto", "eager", "cpu", "cuda", "torch")


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
            found = version(self.package).split(".")
        except PackageNotFoundError:
            # Nightly builds of PyTorch bring theirs under other names.
            return True
        return (int(found[0]), int(found[1])) >= self.at_least

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


def serves_directly(backend: str, input: object) -> bool:
    """Whether :func:`direct_call` is to be tried: CPU kernels compute, and nothing traces."""
    return (
        type(input) is Tensor
        and (backend == "auto" or backend == "cpu")
        and not torch.compiler.is_compiling()
        and input.is_cpu
        and _INSTALLED["cpu"]
    )


@cache
def direct_call() -> Callable[..., Tensor | None]:
    """How the CPU kernels compute without Python's help, see :mod:`.cpu.calls`.

    The function takes the arguments of ``calls.cpp``'s ``batch_norm``, unchecked, and returns the
    output; or None where it has done nothing, since the call needs a closer look, or the direct
    way has not been built.
    """
    calls = importlib.import_module(".cpu.calls", __package__)
    return calls.load() or _decline


def _decline(*_arguments: object) -> None:
    """Stand in for what has not been built."""


def choose(x: Tensor, backend: str) -> str:
    """The backend that will compute, never ``"auto"``.

    Parameters
    ----------
    x : the input
    backend : one of `BACKENDS`

    Raises
    ------
    ValueError : `backend` is none of them
    RuntimeError : it cannot serve the input's device, or its package is not installed
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


def plain(x: Tensor) -> bool:
    """Whether compiled kernels may read a tensor's memory: no transform or tracer is at work."""
    return not (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or x.is_neg()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or not torch._C._has_storage(x)
    )
