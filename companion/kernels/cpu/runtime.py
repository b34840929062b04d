"""What the CPU kernels need of the machine: atomic counters, and PyTorch's threads.

Numba compiles the kernels, see :mod:`.workers`, into functions of one argument, the address of a
*job*, and they run on the thread pool that PyTorch uses itself. A pool of their own would compete
with PyTorch's, whose threads keep spinning for milliseconds after every operation.
"""

from __future__ import annotations

import ctypes
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .machine_code import CompiledFunction

# Each of these functions emits a few instructions that Numba has no word for. Addresses are int64.

_INT64 = ir.IntType(64)


@intrinsic
def take_number(_typing: Any, address: Any) -> Any:
    """Add 1 to the integer at `address` and return what it was; no two threads get the same."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], _INT64.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_INT64, 1), "seq_cst")

    return types.int64(address), emit


@intrinsic
def current_number(_typing: Any, address: Any) -> Any:
    """Read the integer at `address`, which other threads may be changing."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], _INT64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8, typ=_INT64)

    return types.int64(address), emit


@intrinsic
def number_from(_typing: Any, function: Any) -> Any:
    """Call the function at an address, which takes nothing and returns a C int."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.sext(builder.call(builder.inttoptr(args[0], kind.as_pointer()), []), _INT64)

    return types.int64(function), emit


@intrinsic
def finish_streaming(_typing: Any) -> Any:
    """Make what stores past the cache wrote visible to other threads."""

    def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse.sfence", (), kind), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


class Threads:
    """Run a compiled function on several threads at once.

    GNU's and LLVM's OpenMP export ``GOMP_parallel(function, argument, threads, flags)``; the one
    that is loaded is the one PyTorch uses. Where there is none, Python's threads do: they start
    more slowly, and compute as fast.
    """

    def __init__(self) -> None:
        self.entry, thread_number = _openmp()
        self.thread_number = ctypes.cast(thread_number, ctypes.c_void_p).value or 0
        """Address of a function that returns the number of the calling thread; 0 without OpenMP."""
        self._executor: ThreadPoolExecutor | None = None

    def run(self, function: CompiledFunction, job: int, threads: int) -> None:
        """Call ``function(job)`` on `threads` threads, the calling one among them, and wait."""
        if threads == 1:
            function.call(job)
        elif self.entry is not None:
            self.entry(function.address, job, threads, 0)
        else:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=os.cpu_count())
            others = [self._executor.submit(function.call, job) for _ in range(threads - 1)]
            function.call(job)
            for other in others:
                other.result()


def _openmp() -> tuple[Any, Any]:
    """``GOMP_parallel`` and ``omp_get_thread_num``, or None twice.

    Of the OpenMP library in PyTorch's folder or among the loaded ones.
    """
    folder = os.path.join(os.path.dirname(torch.__file__), "lib")
    bundled = [name for name in os.listdir(folder) if name.startswith(("libgomp", "libomp"))]
    for name in (*(os.path.join(folder, name) for name in sorted(bundled)), None):
        try:
            library = ctypes.CDLL(name)
            entry, thread_number = library.GOMP_parallel, library.omp_get_thread_num
        except (OSError, AttributeError, TypeError):
            continue
        entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        entry.restype = None
        return entry, thread_number
    return None, None
