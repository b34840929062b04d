"""The recorded runs that come with the book, in a clone and in an installed package."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

_DISTRIBUTION = "batchnorm-companion"


def _folder() -> Path:
    in_clone = Path(__file__).parents[2] / "book" / "results"
    if not in_clone.is_dir():
        for file in metadata.files(_DISTRIBUTION) or ():
            if file.parts[-3:-1] == (_DISTRIBUTION, "results"):
                return Path(str(file.locate())).resolve().parent
    return in_clone


FOLDER = _folder()


def read(name: str, command: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read ``NAME.json``.

    Parameters
    ----------
    name
        of the file, without its ending
    command
        records it, when run in the book's repository
    folder
        that holds it

    Raises
    ------
    FileNotFoundError
        there is none; the message has the command
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no recorded run {path.name}. To record one, in the book's repository:\n"
            f"{command}"
        )
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run


def experiment(name: str) -> dict[str, Any]:
    """The ``result.json`` of an experiment at full length: see :mod:`.results`.

    Raises
    ------
    FileNotFoundError
        it has not been recorded; the message has the command

    Examples
    --------
    >>> experiment("smoothness")["source"]
    'Santurkar et al. (2018), arXiv:1805.11604, Figure 4'
    """
    return read(name, f"python -m companion run {name} --out runs/{name}")


def trials(run: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    """The trials of one variant, in the order of their seeds.

    Raises
    ------
    ValueError
        there is no such variant

    Examples
    --------
    >>> [trial["seed"] for trial in trials(experiment("smoothness"), "bn")]
    [0, 1, 2, 3, 4]
    """
    chosen = [trial for trial in run["trials"] if trial["variant"] == variant]
    if not chosen:
        variants = dict.fromkeys(trial["variant"] for trial in run["trials"])
        raise ValueError(f"variant: expected one of {', '.join(variants)}, got {variant!r}")
    return sorted(chosen, key=lambda trial: trial["seed"])
