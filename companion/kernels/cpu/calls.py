"""A call's way to the kernels without Python: ``calls.cpp``, compiled once for this machine.

For a small batch Python takes longer than the kernels do. Where the compiled way has been built, by
``python -m companion compile``, :func:`companion.functional.batch_norm` goes it; elsewhere it goes
Python's, with the same kernels and the same bits. To build it takes a C++ compiler and ninja.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

from . import KINDS, NAMES, Pass, pool, workers
from .formats import FORMATS
from .jobs import OUTPUT, SUMS, TAKEN_BYTES, Job, PlanNumbers

NAME = "companion_calls"
_SOURCE = Path(__file__).with_name("calls.cpp")
_DTYPES = {kind: dtype for dtype, kind in KINDS.items()}

Call = Callable[..., "Tensor | None"]
"""``calls.cpp``'s batch_norm; None stands for a call that takes Python's way."""


# PyTorch quotes the folders of its headers, but not that of its libraries.
_BUILD = """\
import os, shlex, sys
from torch.utils import cpp_extension
name, source, folder = sys.argv[1:]
if os.name == "posix":
    cpp_extension.TORCH_LIB_PATH = shlex.quote(cpp_extension.TORCH_LIB_PATH)
cpp_extension.load(
    name,
    source,
    extra_cflags=["-O2"],
    extra_include_paths=[folder],
    build_directory=folder,
    is_python_module=False,
)
"""


class BuildError(Exception):
    """What is missing, or what the compiler said."""


def header() -> str:
    """``job.h``: the job in memory as C++ has it, see :mod:`.jobs`."""
    kinds = ", ".join(f"{name.upper()} = {numbers.kind}" for name, numbers in FORMATS.items())
    lines = [
        "#pragma once",
        "#include <cstdint>",
        f"enum Sweeps {{ SUMS = {SUMS}, OUTPUT = {OUTPUT} }};",
        f"enum Kinds {{ ABSENT, {kinds} }};",
        f"constexpr int64_t TAKEN_BYTES = {TAKEN_BYTES};",
        *_struct("Plan", PlanNumbers),
        *_struct("Job", Job),
    ]
    return "\n".join(lines) + "\n"


_CPP_TYPES: dict[Any, str] = {
    ctypes.c_double: "double",
    ctypes.c_int64: "int64_t",
    PlanNumbers: "Plan",
}


def _struct(name: str, structure: Any) -> list[str]:
    """The lines that define a structure in C++."""
    fields = []
    for field, kind in structure._fields_:
        if issubclass(kind, ctypes.Array):
            fields.append(f"  {_CPP_TYPES[kind._type_]} {field}[{kind._length_}];")
        else:
            fields.append(f"  {_CPP_TYPES[kind]} {field};")
    return [f"struct {name} {{", *fields, "};"]


def path() -> Path:
    """Where the compiled way is once it is built, for this source, PyTorch and Python.

    It is in the user's cache; ``TORCH_EXTENSIONS_DIR`` names another folder.
    """
    made_of = (header(), _SOURCE.read_text(encoding="utf-8"), torch.__version__, sys.version)
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(chosen) if chosen else platformdirs.user_cache_path("batchnorm-companion")
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    return root / f"{NAME}-{digest}" / f"{NAME}{suffix}"


@contextmanager
def building() -> Iterator[tuple[list[str], dict[str, str]]]:
    """Give a command, and its environment, that compiles ``calls.cpp`` in half a minute.

    What it has made is put in its place at the end of the block. Nothing is left behind if the
    block fails.

    Raises
    ------
    BuildError
        There is no compiler, or no ninja, or nothing was made.
    """
    target = path()
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": os.pathsep.join((scripts, os.environ.get("PATH", "")))}
    if shutil.which("ninja", path=environment["PATH"]) is None:
        raise BuildError("ninja is not installed: pip install ninja")
    # Where there is no GPU, PyTorch's builds for CUDA warn of that when they import it.
    from torch.utils import cpp_extension

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        raise BuildError("there is no C++ compiler (on Debian: apt-get install g++)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        (Path(folder) / "job.h").write_text(header(), encoding="utf-8")
        # In a process of its own: PyTorch loads what it has built.
        yield [sys.executable, "-c", _BUILD, NAME, str(_SOURCE), folder], environment
        built = [*Path(folder).glob(f"{NAME}*.so"), *Path(folder).glob(f"{NAME}*.pyd")]
        if len(built) != 1:
            raise BuildError("the C++ compiler has made nothing")
        # In one step: another process may be looking.
        os.replace(built[0], target)


def load(differentiate_again: Callable[..., Any]) -> Call | None:
    """The compiled way, or None where it has not been built.

    Parameters
    ----------
    differentiate_again : callable
        :func:`companion.differentiation.differentiate_again`, for gradients that are themselves
        differentiated; that of the first caller serves all.
    """
    target = path()
    if pool.entry is None or not target.exists():
        return None
    spec = importlib.util.spec_from_file_location(NAME, target)
    if spec is None or spec.loader is None:
        return None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parallel = ctypes.cast(pool.entry, ctypes.c_void_p).value
    module.connect(_plan, _kernel, differentiate_again, parallel, pool.thread_number)
    return module.batch_norm


def _plan(
    shape: tuple[int, ...], stride: tuple[int, ...], kind: int, tensors: int, threads: int
) -> tuple[tuple[int, ...], bytes, int, int] | None:
    this = Pass.over(shape, stride, _DTYPES[kind], tensors, threads)
    return None if this is None else (this.stride, bytes(this.numbers), this.scratch, this.memory)


def _kernel(backward: bool, kind: int) -> int:
    return workers.compiled(backward, NAMES[_DTYPES[kind]]).address
