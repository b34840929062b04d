"""How many bytes batch normalization moves, and how long that takes at least.

Bytes are counted, not measured. The unit is one activation tensor, T: a copy asks for 2T.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

from companion.bench.document import Document
from companion.experiments.recorded import FOLDER, read

OPERATIONS = {"forward": 7, "backward": 9}
"""Additions and multiplications per value: forward x - shift, its square, two sums, then
(x - mean)·slope + β; backward two sums, one of a product with x - mean, then
((g - mean g) + (x - mean)·a)·b."""

# How many tensors are swept twice, and the traffic if the second sweep finds all in the cache.
_SWEPT_TWICE = {"forward": 1, "backward": 2, "fixed": 0}
_LEAST = {"forward": 2, "backward": 3, "fixed": 2}


class Traffic(NamedTuple):
    """Sweeps of one tensor's size between memory and processor."""

    reads: int
    writes: int
    fetches: int
    """Reads that nobody asked for: an ordinary store fetches the line that it changes a part of,
    unless the line is in the cache."""

    @property
    def total(self) -> int:
        return sum(self)


TEXTBOOK = {
    "mean of x": Traffic(1, 0, 0),
    "centred = x - mean": Traffic(1, 1, 1),
    "squares = centred²": Traffic(1, 1, 1),
    "variance = mean of squares": Traffic(1, 0, 0),
    "centred ← centred · inv_std": Traffic(1, 1, 0),
    "centred ← centred · gamma": Traffic(1, 1, 0),
    "centred ← centred + beta": Traffic(1, 1, 0),
}
"""What :func:`companion.experiments.memory_steps.textbook` does. The last three change a tensor in
place: a line that was read need not be fetched."""

STEPS = {
    "textbook": Traffic(*(sum(sweeps) for sweeps in zip(*TEXTBOOK.values(), strict=True))),
    "two sweeps": Traffic(2, 1, 1),
    "in blocks": Traffic(1, 1, 1),
    "past the cache": Traffic(1, 1, 0),
}
"""The forward pass in four steps, each of which drops a term of the one before."""

COPY = Traffic(1, 1, 1)


def bytes_moved(name: str, tensor: int, in_flight: int | None = None, kept: int = 0) -> int:
    """Bytes that a pass reads and writes.

    Parameters
    ----------
    name
        "forward", "backward", or "fixed": forward, with statistics that are given
    tensor
        bytes of one activation
    in_flight
        bytes of each activation in a block: all of its first sweep comes before its second; by
        default the whole tensor
    kept
        bytes that stay in the cache or on the chip between the two sweeps

    Raises
    ------
    ValueError
        another name; a block that is empty or larger than the tensor

    References
    ----------
    Eq. (3) memory-speed/blocked-traffic.
    """
    if name not in _LEAST:
        raise ValueError(f"name: expected one of {', '.join(_LEAST)}, got {name!r}")
    in_flight = tensor if in_flight is None else in_flight
    if not 0 < in_flight <= tensor:
        raise ValueError(f"in_flight: expected 1 to {tensor} bytes, got {in_flight}")
    blocks, last = divmod(tensor, in_flight)
    twice = _SWEPT_TWICE[name]
    again = blocks * max(twice * in_flight - kept, 0) + max(twice * last - kept, 0)
    return _LEAST[name] * tensor + again


def attainable(intensity: float, bandwidth: float, rate: float) -> float:
    """The roofline: operations per second that a machine allows.

    Parameters
    ----------
    intensity
        operations per byte moved
    bandwidth
        bytes per second
    rate
        operations per second, if bytes were free

    References
    ----------
    Eq. (2) memory-speed/roofline; Williams, Waterman & Patterson (2009).
    """
    return min(rate, intensity * bandwidth)


def recorded(device: str = "cpu", folder: Path = FOLDER) -> Document:
    """Read the run of the benchmark that comes with the book.

    Parameters
    ----------
    device
        "cpu" or "cuda"
    folder
        where the file ``bench-DEVICE.json`` is

    Raises
    ------
    FileNotFoundError
        there is none; the message says how to record one
    """
    name = f"bench-{device}"
    command = f"python -m companion bench --device {device} --json book/results/{name}.json"
    return cast(Document, read(name, command, folder))
