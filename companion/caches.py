"""The processor's caches, as Linux's sysfs describes them.

``sysconf`` is no substitute: on some AMD processors it answers with the sum over all chiplets, of
which a core reaches one.
"""

from __future__ import annotations

from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def sizes() -> dict[int, int]:
    """Bytes of each level's largest cache that the first core has a share in; empty if unknown."""
    bytes_of_level: dict[int, int] = {}
    for folder in _CACHES.glob("index*"):
        try:
            level = int((folder / "level").read_text(encoding="ascii"))
            size = _bytes((folder / "size").read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
        bytes_of_level[level] = max(size, bytes_of_level.get(level, 0))
    return bytes_of_level


def _bytes(size: str) -> int:
    """Read "32768K"."""
    return int(size[:-1]) * _UNITS[size[-1]] if size[-1:] in _UNITS else int(size)
