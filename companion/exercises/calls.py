"""One call of a reader's function: what came back, in which state it left its arguments, in time.

Arguments and results cross between processes as JSON with arrays in NumPy's own format, which
holds numbers and no code. This module imports nothing of the package: the process that runs a
reader's file loads it by itself, from :mod:`companion.exercises.worker`.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

SECONDS = 2.0


@dataclass(frozen=True)
class Unknown:
    """A result of a type that no exercise asks for."""

    type_name: str


@dataclass(frozen=True)
class Outcome:
    """What one call did.

    Parameters
    ----------
    value
        what it returned
    changed
        positions of the arguments that it changed in place
    raised
        the exception and the reader's line, if it raised one
    late
        it was stopped at the time limit
    """

    value: object = None
    changed: tuple[int, ...] = ()
    raised: str | None = None
    late: bool = False


def as_array(value: Any) -> Any:
    """A tensor as an array, bfloat16 as float32; anything else as it is."""
    torch: Any = sys.modules.get("torch")
    if not torch or not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def pack(value: object) -> Any:
    """What JSON can hold of a value: numbers, text, arrays, tensors, and what contains them."""
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in "fiub" else Unknown(type(value).__name__)
    if not isinstance(value, np.ndarray) and isinstance(as_array(value), np.ndarray):
        return {"tensor": _bytes(as_array(value))}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            return {"unknown": f"array of {value.dtype}"}
        return {"array": _bytes(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [*map(pack, value)]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    return {"unknown": value.type_name if isinstance(value, Unknown) else type(value).__name__}


def unpack(packed: Any) -> object:
    """The inverse of :func:`pack`."""
    ((kind, content),) = packed.items()
    if kind == "tensor":
        import torch

        return torch.from_numpy(_array(content))
    if kind == "array":
        return _array(content)
    if kind == "dict":
        return {unpack(key): unpack(item) for key, item in content}
    if kind in ("tuple", "list"):
        items = [*map(unpack, content)]
        return tuple(items) if kind == "tuple" else items
    return content if kind == "plain" else Unknown(str(content))


def _bytes(array: np.ndarray[Any, Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _array(text: str) -> np.ndarray[Any, Any]:
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


class _Late(BaseException):
    """The time limit, which `except Exception` does not catch."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_Late` in the block after `seconds`, where the system can: in a POSIX main thread."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again, should the first be swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def described(error: BaseException) -> str:
    """An exception in a line, with the innermost line of the reader's code that it passed."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename != __file__ and "site-packages" not in frame.filename and frame.line:
            place = f", at line {frame.lineno}: {frame.line}"
    return f"{type(error).__name__}: {error}{place}"


def call(
    function: Callable[..., object], arguments: Sequence[object], seconds: float = SECONDS
) -> Outcome:
    """Call `function` with copies of `arguments`, and say what happened.

    Parameters
    ----------
    function
        the reader's
    arguments
        passed by position
    seconds
        the time limit; without effect outside a process's main thread, and on Windows

    Raises
    ------
    KeyboardInterrupt
        the reader's own
    """
    given = copy.deepcopy(tuple(arguments))
    try:
        with _limited(seconds), np.errstate(all="ignore"):
            value = function(*given)
    except _Late:
        return Outcome(late=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(raised=described(error))
    changed = tuple(
        place
        for place, (before, after) in enumerate(zip(arguments, given, strict=True))
        if json.dumps(pack(before)) != json.dumps(pack(after))
    )
    return Outcome(value, changed)
