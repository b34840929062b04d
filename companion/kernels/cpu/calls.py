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
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

from . import KINDS_OF, TYPES, Pass, pool, workers
from .jobs import COUNTERS, FLOATS, OUTPUT, SUMS, TURN_BYTES, Job
from .plans import Plan

NAME = "companion_calls"
_SOURCE = Path(__file__).with_name("calls.cpp")
_DTYPES = {kind: dtype for dtype, kind in KINDS_OF.items()}

Call = Callable[..., "Tensor | None"]
"""``calls.cpp``'s batch_norm; None stands for a call that takes Python's way."""


_BUILD = """\
import sys
from torch.utils import cpp_extension
name, source, folder = sys.argv[1:]
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
    planned = len(Plan._fields)
    own = [
        f"  {'double' if i < FLOATS else 'int64_t'} {name};"
        for i, name in enumerate(Job._fields[:-planned])
    ]
    lines = [
        "#pragma once",
        "#include <cstdint>",
        f"enum Sweeps {{ SUMS = {SUMS}, OUTPUT = {OUTPUT} }};",
        f"constexpr int64_t TURN_BYTES = {TURN_BYTES};",
        "struct Plan {",
        *(f"  int64_t {name};" for name in Plan._fields),
        "};",
        "struct Job {",
        f"  int64_t counters[{COUNTERS}];",
        *own,
        "  Plan plan;",
        "};",
    ]
    return "\n".join(lines) + "\n"


def path() -> Path:
    """Where the compiled way lies once it is built, for this source, PyTorch and Python.

    The folder is PyTorch's for what it compiles; ``TORCH_EXTENSIONS_DIR`` names another.
    """
    made_of = (header(), _SOURCE.read_text(encoding="utf-8"), torch.__version__, sys.version)
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    return Path(root) / f"{NAME}-{digest}" / f"{NAME}{suffix}"


def build() -> Path:
    """Compile ``calls.cpp``; takes half a minute. Nothing is left behind if that fails.

    Raises
    ------
    BuildError : there is no compiler, or no ninja, or they failed
    """
    target = path()
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": os.pathsep.join((scripts, os.environ.get("PATH", "")))}
    if shutil.which("ninja", path=environment["PATH"]) is None:
        raise BuildError("ninja is not installed: pip install ninja")
    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        raise BuildError("there is no C++ compiler (on Debian: apt-get install g++)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        (Path(folder) / "job.h").write_text(header(), encoding="utf-8")
        # In a process of its own: PyTorch loads what it has built.
        command = [sys.executable, "-c", _BUILD, NAME, str(_SOURCE), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise BuildError(f"the C++ compiler failed:\n{done.stdout}{done.stderr}")
        (built,) = [*Path(folder).glob(f"{NAME}*.so"), *Path(folder).glob(f"{NAME}*.pyd")]
        # In one step: another process may be looking.
        os.replace(built, target)
    return target


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
    found = Pass.over(shape, stride, _DTYPES[kind], tensors, threads)
    return None if found is None else (found.stride, found.packed, found.rooms, found.scratch)


def _kernel(backward: bool, kind: int) -> int:
    return workers.compiled(backward, *TYPES[_DTYPES[kind]]).address
