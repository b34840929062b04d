"""Machine code on the disk: every copy of the package finds it, and none finds it stale.

Numba keeps what it compiles in a folder beside a function's file, and looks for changes in that
file only. So a function that is to be kept here is given another file: the list of everything that
its machine code depends on, in a folder of the user's cache with a name made of that list. Whoever
has the same list finds the same machine code; who has another one finds another folder. Processes
that compile the same at the same time do so twice: files are replaced in one step, by their likes.

A new folder takes the place of those that nobody has used for a month.

``NUMBA_CACHE_DIR`` names another place than the user's cache, as it does for all of Numba.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite
import numba
import platformdirs
from llvmlite import binding
from numba import types

from ._numba import when_compiling

_log = logging.getLogger("companion")

_MONTH = 30 * 24 * 3600
_USED = "used"
"""A file in each folder that is touched when it is."""


class CompiledFunction(NamedTuple):
    """A function of one argument, the address of a job."""

    call: Any
    address: int
    owner: Any
    """Whose machine code it is: it goes when the owner goes."""


def keep(function: Callable[..., Any], dependencies: str) -> Path:
    """Have Numba keep the machine code of a function, which is then compiled with ``cache=True``.

    Parameters
    ----------
    function
        Its name distinguishes it from others with the same sources, whatever its module is.
    dependencies
        What :func:`dependencies_of` said of its sources.

    Returns
    -------
    Path
        The folder where it is kept.

    Raises
    ------
    OSError
        No place to keep it can be written to.
    """
    file = _file(dependencies)
    with suppress(OSError):
        (file.parent / _USED).touch()
    # Where `inspect` looks for the source.
    code, closure = function.__code__, function.__closure__
    vars(function)["__wrapped__"] = FunctionType(code, function.__globals__, closure=closure)
    function.__code__ = code.replace(co_filename=str(file), co_firstlineno=1)
    return file.parent


def compile_function(
    title: str, function: Callable[..., Any], dependencies: str
) -> CompiledFunction:
    """Load the machine code of a function of one pointer, or compile it, and say so.

    Parameters
    ----------
    title
        What the message calls it.
    function, dependencies
        See :func:`keep`.
    """
    mark = _mark(keep(function, dependencies), function.__qualname__)
    signature = types.void(types.voidptr)
    message = "compiling %s for this machine, once; it takes up to a minute"
    with when_compiling(lambda: _log.warning(message, title)):
        try:
            compiled = numba.cfunc(signature, cache=True)(function)
        except OSError as error:  # on a full disk, after it has been compiled
            _log.warning("%s is compiled, but cannot be kept in %s: %s", title, mark.parent, error)
            compiled = numba.cfunc(signature)(function)
        else:
            with suppress(OSError):
                mark.touch()
    return CompiledFunction(compiled.ctypes, compiled.address, compiled)


def is_kept(name: str, dependencies: str) -> bool:
    """Whether :func:`compile_function` has compiled a function of that name and dependencies."""
    return _mark(_file(dependencies).parent, name).exists()


def _mark(folder: Path, name: str) -> Path:
    return folder / f"{name}.compiled"


def dependencies_of(sources: Iterable[Path]) -> str:
    """All that machine code depends on, a line each.

    To be called when the sources are imported: later they may have changed.

    Parameters
    ----------
    sources
        The files that it is compiled from, the function's own among them.
    """
    files = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sources)
    cpu = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES") or binding.get_host_cpu_features().flatten()
    return "\n".join(
        [
            *sorted(files),
            f"Numba {numba.__version__}, llvmlite {llvmlite.__version__}",
            f"Python {sys.version}",
            f"{platform.system()} {platform.machine()} {cpu} {features}",
        ]
    )


def _file(content: str) -> Path:
    """A file of that content, in a folder that is named after it."""
    folder_name = f"kernels-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    refused: list[OSError] = []
    for place in _places():
        file = place / folder_name / "dependencies.txt"
        try:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(
                    "w", dir=file.parent, encoding="utf-8", delete=False
                ) as new:
                    new.write(content)
                # In one step: another process may be looking.
                os.replace(new.name, file)
                _remove_unused(place)
        except OSError as error:
            refused.append(error)
        else:
            return file
    raise OSError(
        "machine code cannot be kept anywhere; NUMBA_CACHE_DIR may name a folder for it: "
        + "; ".join(map(str, refused))
    )


def _remove_unused(place: Path) -> None:
    for used in place.glob(f"kernels-*/{_USED}"):
        with suppress(OSError):
            if used.stat().st_mtime < time.time() - _MONTH:
                shutil.rmtree(used.parent)


def _places() -> Iterator[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen).absolute()
    else:
        yield platformdirs.user_cache_path("batchnorm-companion")
        yield Path(__file__).parent / "__pycache__"
