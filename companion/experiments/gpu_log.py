"""The log of the benchmark on a GPU: what ``python -m companion bench --device cuda`` printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from companion.experiments.recorded import FOLDER

NAME = "bench-cuda.txt"
PASSES = ("forward", "backward", "both")
CONTENDERS = ("ours", "torch", "native", "compile")
"""native: PyTorch without cuDNN."""

# A case's name, the copy's microseconds, and for each pass four multiples of it and a speed-up.
_ROW = re.compile(r"(\d[\dx]*(?:-[a-z]\w*)*)\*? +([\d.]+)((?: +[\d.]+){15})")


class Row(NamedTuple):
    """A case of the log."""

    name: str
    copy_us: float
    """Microseconds of a copy of the tensor."""
    copies: dict[str, dict[str, float]]
    """By pass and contender: time as a multiple of the copy's."""

    @property
    def layout(self) -> str:
        """In words, as in :class:`companion.bench.suite.Case`."""
        return "channels-last" if "channels-last" in self.name else "contiguous"

    def gain(self, name: str) -> float:
        """The best other contender's time over ours, for one of :data:`PASSES`."""
        ours, *others = (self.copies[name][contender] for contender in CONTENDERS)
        return min(others) / ours


def read(folder: Path = FOLDER) -> tuple[str, list[Row]]:
    """Read the header, which says where and when, and the cases.

    Raises
    ------
    FileNotFoundError
        there is no log in `folder`
    """
    header, _, table = (folder / NAME).read_text(encoding="utf-8").partition("\n\n")
    rows = []
    for line in table.splitlines():
        if match := _ROW.fullmatch(line.rstrip()):
            values = [float(value) for value in match[3].split()]
            copies = {
                name: dict(zip(CONTENDERS, values[5 * index :], strict=False))
                for index, name in enumerate(PASSES)
            }
            rows.append(Row(match[1], float(match[2]), copies))
    return header, rows
