"""The CUDA kernels for a test: on a GPU if there is one, else in Triton's interpreter.

Triton decides on import whether it interprets. So it is imported anew here, with the environment
variable set, and afterwards everything is put back: other tests see another Triton, or none.

What the interpreter cannot do is done here in its place: to choose a device, to count with
constants that are no plain numbers, to run assembly, and to run programs at the same time, so that
they can meet.
"""

import ctypes
import functools
import importlib
import inspect
import os
import sys
import threading
import types
from contextlib import contextmanager, nullcontext

import torch

import companion.kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_OWN = "companion.kernels.cuda"


def _is_concerned(name):
    # Triton's compiled library cannot be loaded twice, and does not know of the interpreter.
    is_triton = name.split(".")[0] == "triton" and not name.startswith("triton._C")
    return is_triton or name.startswith(_OWN)


def _take_modules():
    for name in list(vars(companion.kernels)):
        if name == "cuda":
            delattr(companion.kernels, name)
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _is_concerned(name)}


class _Program(threading.Thread):
    """A run of a kernel that can be suspended where it waits for others, and resumed."""

    def __init__(self, body):
        super().__init__(daemon=True)
        self.body, self.error, self.place, self.is_last = body, None, None, False
        self.may_run, self.has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self):
        self.may_run.acquire()
        try:
            self.body()
        except BaseException as error:
            self.error = error
        self.has_stopped.release()

    def resume(self):
        """Let it run until it waits, or ends; nothing else runs meanwhile."""
        self.place = None
        self.may_run.release()
        self.has_stopped.acquire()
        if self.error is not None:
            raise self.error

    def wait(self, place, is_last):
        self.place, self.is_last = place, is_last
        self.has_stopped.release()
        self.may_run.acquire()


def _let_programs_meet(kernel):
    """The interpreter runs one program after another: suspend those that wait for a later one."""
    body, waiting = kernel.rewrite(), {}

    def program(**arguments):
        this = _Program(lambda: body(**arguments))
        this.resume()
        if this.place is not None:
            waiting.setdefault(this.place, []).append(this)
            for one in waiting.pop(this.place) if this.is_last else ():
                one.resume()
                assert one.place is None, "programs meet once"

    # The interpreter looks at the signature, and for triton.language among a function's globals.
    callable_there = types.FunctionType(
        program.__code__, {**body.__globals__, **globals()}, closure=program.__closure__
    )
    functools.update_wrapper(callable_there, body)
    callable_there.__signature__ = inspect.signature(body)
    kernel.rewrite = lambda: callable_there
    launch = kernel.run

    def run(*args, **kwargs):
        try:
            launch(*args, **kwargs)
            assert not waiting, "a program waits for one that never comes"
        finally:
            waiting.clear()

    kernel.run = run


def _meet(arrived, parts):
    place = arrived.handle.data.item()
    counter = ctypes.c_int32.from_address(place)
    counter.value += 1
    assert counter.value <= int(parts), "more programs than are to meet"
    threading.current_thread().wait(place, counter.value == int(parts))


def _adapt(cuda):
    """Do in place of the interpreter what it cannot do."""
    forward, backward, sweeps, tiles = (
        importlib.import_module(f"{_OWN}.{name}")
        for name in ("forward", "backward", "sweeps", "tiles")
    )
    cuda.launches_on = lambda _device: nullcontext()
    cuda._multiprocessors = lambda _device: 1
    constants = cuda._tile
    cuda._tile = lambda *cut: type(tile := constants(*cut))(*(field.value for field in tile))
    cuda._tile.cache_clear = constants.cache_clear
    for module in (tiles, forward, backward):
        module.anew = lambda values: values
    sweeps.meet = _meet
    for kernel in (forward.meeting_forward, backward.meeting_backward):
        _let_programs_meet(kernel)


@contextmanager
def cuda_kernels():
    """Import ``companion.kernels.cuda`` such that it runs here."""
    if DEVICE == "cuda":
        yield importlib.import_module(_OWN)
        return
    before, variable = _take_modules(), os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        kernels = importlib.import_module(_OWN)
        _adapt(kernels)
        yield kernels
    finally:
        _take_modules()
        sys.modules.update(before)
        if _OWN in before:
            companion.kernels.cuda = before[_OWN]
        if variable is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = variable
