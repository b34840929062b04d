"""Which exercises a reader has solved: a local file, of which nothing is sent anywhere."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .catalogue import EXERCISES

VARIABLE = "COMPANION_PROGRESS"


def location() -> Path:
    """The file: what the environment variable `COMPANION_PROGRESS` names, or the user's own."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if os.name == "nt":
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return folder / "batchnorm-companion" / "solved.json"


def solved() -> list[str]:
    """Names of the exercises that have been solved.

    Raises
    ------
    ValueError
        the file is not one of ours
    """
    try:
        names = json.loads(location().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except json.JSONDecodeError as error:
        raise ValueError(f"{location()}: expected a list of solved exercises: {error}") from None
    if not isinstance(names, list):
        raise ValueError(f"{location()}: expected a list of solved exercises, got {names!r}")
    return [name for name in names if name in EXERCISES]


def record(names: list[str]) -> None:
    """Add exercises to those that have been solved. The file is replaced whole, or not at all."""
    path = location()
    path.parent.mkdir(parents=True, exist_ok=True)
    together = list(dict.fromkeys([*solved(), *names]))
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8"
    ) as temporary:
        json.dump(together, temporary)
    os.replace(temporary.name, path)


def solved_now(name: str) -> str:
    """Record an exercise; what a report adds: how many of its chapter are solved."""
    try:
        record([name])
        names = solved()
    except (OSError, ValueError) as error:
        return f"\n  (progress is not kept: {error})"
    chapter = [each.name for each in EXERCISES.values() if each.chapter == EXERCISES[name].chapter]
    left = [each for each in chapter if each not in names]
    return f"; {len(chapter) - len(left)} of {len(chapter)} of this chapter solved" + (
        f", next: {left[0]}" if left else ""
    )


def overview() -> Iterator[str]:
    """A line for each chapter: what is solved, and what is open."""
    names = solved()
    for chapter in dict.fromkeys(each.chapter for each in EXERCISES.values()):
        all_of_it = [each.name for each in EXERCISES.values() if each.chapter == chapter]
        marks = ", ".join(f"{'✓' if name in names else '·'} {name}" for name in all_of_it)
        count = sum(name in names for name in all_of_it)
        yield f"{chapter}: {count} of {len(all_of_it)}\n    {marks}"
    yield f"{len(names)} of {len(EXERCISES)} solved; kept in {location()}"
