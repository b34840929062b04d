"""Where a measurement ran: the processor, the versions, the memory allocator."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from companion import caches

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# What a current machine has, where the system does not say.
_DEFAULT_CACHE_BYTES = 2**25
_MOST_CACHE_BYTES = 2**25
_PACKAGE = Path(__file__).parents[1]


def reuse_memory() -> bool:
    """Tell glibc to keep freed memory; returns whether it was told.

    By default glibc takes every block beyond a threshold from the system and gives it back when it
    is freed, so that each large output costs a page fault per 4 KiB: as much as computing it.
    Changes the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # -1: never trim.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def page_faults() -> int | None:
    """Pages mapped for this process so far without reading a disk; None if the system is silent."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def processor() -> str:
    """The processor's name, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Programs that ran or waited for a core, averaged over a minute; None if nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def last_level_cache() -> int:
    """Bytes of the largest cache that the first core has a share in."""
    return max(caches.sizes().values(), default=_DEFAULT_CACHE_BYTES)


def dependable_cache() -> int:
    """Bytes of it that a program can count on.

    A virtual machine reports the whole cache of a processor, hundreds of MiB, of which it has a
    share that changes with what its neighbours do.
    """
    return min(last_level_cache(), _MOST_CACHE_BYTES)


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Versions of everything that has a part in the numbers; None for what is not installed."""
    return {
        "companion": version("batchnorm-companion"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numba": version("numba"),
        "triton": version("triton"),
        "cuda": torch.version.cuda,
    }


def describe() -> dict[str, Any]:
    """When, where and with which versions something is measured: the head of a record."""
    found = revision()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": None if found is None else found[0],
        "modified": None if found is None else found[1],
        "versions": versions(),
        "machine": {
            "processor": processor(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": cores(),
            "load": load(),
        },
    }


def revision() -> tuple[str, bool] | None:
    """The package's git revision, and whether files were changed since; None outside a checkout."""
    try:
        answer = _git("rev-parse", "--show-prefix", "HEAD").splitlines()
        # An installed copy may lie in the checkout of something else.
        if len(answer) != 2 or answer[0] != f"{_PACKAGE.name}/":
            return None
        return answer[1], bool(_git("status", "--porcelain", "--", ".").strip())
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_PACKAGE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
