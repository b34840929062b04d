"""Logs of the benchmark on a GPU: what ``python -m companion bench --device cuda`` printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from companion.experiments.recorded import FOLDER

RESNET = "bench-cuda.txt"
"""All activations of ResNet-50, with ``torch.compile``."""
ROWS = "bench-cuda-rows.txt"
"""Rows, and tensors of few channels, without ``torch.compile``."""
PASSES = ("forward", "backward", "both")
CONTENDERS = ("ours", "torch", "native", "compile")
"""native: PyTorch without cuDNN."""

# A case's name, the copy's microseconds, and for each pass multiples of it and a speed-up.
_ROW = re.compile(r"(\d[\dx]*(?:-[a-z]\w*)*)\*? +([\d.]+)((?: +[\d.]+)+)")
_GPU = re.compile(r": (\d+) GB/s copied, .* (\d+) multiprocessors with .*, L2 cache (\d+) MiB")


class Row(NamedTuple):
    """A case of a log."""

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
        times = self.copies[name]
        return min(time for who, time in times.items() if who != "ours") / times["ours"]


class Gpu(NamedTuple):
    """What the header of a log says of the device."""

    copied: float
    """Bytes of a tensor's copy, read and written, per second."""
    multiprocessors: int
    l2: int
    """Bytes."""


def read(name: str = RESNET, folder: Path = FOLDER) -> tuple[str, list[Row]]:
    """Read the header, which says where and when, and the cases.

    Parameters
    ----------
    name
        :data:`RESNET` or :data:`ROWS`
    folder
        where the logs are

    Raises
    ------
    FileNotFoundError
        there is no such log in `folder`
    """
    header, _, table = (folder / name).read_text(encoding="utf-8").partition("\n\n")
    lines = [line.rstrip() for line in table.splitlines()]
    titles = next(line for line in lines if "copy µs" in line).split()
    contenders = [who for who in CONTENDERS if who in titles]
    columns = len(contenders) + 1
    rows = []
    for line in lines:
        match = _ROW.fullmatch(line)
        values = [float(value) for value in match[3].split()] if match else []
        if match and len(values) == columns * len(PASSES):
            copies = {
                each: dict(zip(contenders, values[columns * index :], strict=False))
                for index, each in enumerate(PASSES)
            }
            rows.append(Row(match[1], float(match[2]), copies))
    return header, rows


def gpu(header: str) -> Gpu:
    """Read the numbers of the device in a log's header.

    Raises
    ------
    ValueError
        they are not there
    """
    match = _GPU.search(header)
    if match is None:
        raise ValueError(f"header: expected GB/s copied and the L2 cache, got {header!r}")
    return Gpu(1e9 * int(match[1]), int(match[2]), int(match[3]) * 2**20)
