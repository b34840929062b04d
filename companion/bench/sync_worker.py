"""What each process of ``python -m companion bench --sync`` does: measure calls, together.

The layers take turns, in rounds, and all processes begin a sample together. What a sample took is
what the slowest process took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

import companion

from .spread import spread

TIMEOUT = timedelta(seconds=60)
_WARM_UPS = 3


class Job(NamedTuple):
    """What the processes are to do."""

    ranks: int
    device: str
    shapes: list[tuple[int, ...]]
    """Of each process's activation."""
    seconds: float
    """Per shape."""
    folder: str
    """Where the processes find each other."""


def process(rank: int, job: Job, results: Any) -> None:
    """Measure all shapes; the first process puts a dictionary for each into the queue `results`.

    An error goes there too, as its text.
    """
    try:
        # One thread each, as the processes share the cores.
        torch.set_num_threads(1)
        device = torch.device("cpu")
        if job.device == "cuda":
            device = torch.device("cuda", rank)
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "nccl" if job.device == "cuda" else "gloo",
            init_method=f"file://{job.folder}/ranks-{job.ranks}",
            rank=rank,
            world_size=job.ranks,
            timeout=TIMEOUT,
        )
        for shape in job.shapes:
            measurements = _measure(shape, device, job.seconds)
            if rank == 0:
                results.put(measurements)
        distributed.destroy_process_group()
    except Exception as error:
        results.put(f"rank {rank} of {job.ranks}: {type(error).__name__}: {error}")
        raise


class _Pair:
    """A layer, and its calls."""

    def __init__(self, layer: nn.Module, x: Tensor, grad_y: Tensor) -> None:
        self._layer, self._x, self._grad_y = layer, x, grad_y

    def forward(self) -> Tensor:
        y: Tensor = self._layer(self._x)
        return y

    def times(self, calls: int) -> tuple[float, float]:
        """Seconds per forward and per backward pass."""
        forward = backward = 0.0
        for _ in range(calls):
            _together(self._x.device)
            start = time.perf_counter()
            y = self.forward()
            _wait(self._x.device)
            middle = time.perf_counter()
            y.backward(self._grad_y)
            _wait(self._x.device)
            forward, backward = forward + middle - start, backward + time.perf_counter() - middle
        return forward / calls, backward / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _together(device: torch.device) -> None:
    if distributed.get_world_size() > 1:
        distributed.barrier()
        _wait(device)


def _measure(shape: tuple[int, ...], device: torch.device, seconds: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(distributed.get_rank())
    x, grad_y = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    x.requires_grad_()
    channels = shape[1]
    layers: dict[str, nn.Module] = {
        "sync": companion.SyncBatchNorm(channels),
        "local": companion.BatchNorm2d(channels),
    }
    if device.type == "cuda":
        # On the CPU it refuses.
        layers["torch"] = nn.SyncBatchNorm(channels)
    pairs = {name: _Pair(layer.to(device), x, grad_y) for name, layer in layers.items()}
    for pair in pairs.values():
        pair.times(_WARM_UPS)
    traffic = {
        name: {"forward": forward, "backward": backward}
        for name, pair in pairs.items()
        for forward, backward in [_traffic(pair, grad_y, 4 if name == "torch" else 8)]
    }
    rounds = _rounds(pairs, seconds)
    samples = [[time for pair in pairs.values() for time in pair.times(1)] for _ in range(rounds)]
    slowest = torch.tensor(samples, dtype=torch.float64, device=device)
    distributed.all_reduce(slowest, distributed.ReduceOp.MAX)
    columns = [column.tolist() for column in slowest.cpu().unbind(1)]
    times = {}
    for index, name in enumerate(pairs):
        times[name] = {"forward": columns[2 * index], "backward": columns[2 * index + 1]}
    return {"shape": shape, "rounds": rounds, "seconds": times, "traffic": traffic}


def _rounds(pairs: dict[str, _Pair], seconds: float) -> int:
    """How many fit into the time, as the first process finds; the same in all of them."""
    start = time.perf_counter()
    for pair in pairs.values():
        pair.times(2)
    each = (time.perf_counter() - start) / 2
    count = torch.tensor([min(500.0, max(5.0, seconds / each))], dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        count = count.cuda()
    distributed.broadcast(count, 0)
    return int(count.item())


def _traffic(pair: _Pair, grad_y: Tensor, value_bytes: int) -> list[list[int]]:
    """Messages of this process, and their bytes, forward and backward, as a profiler sees them.

    PyTorch's layer sends float32.
    """
    traffic = []
    outputs: list[Tensor] = []
    passes: list[Callable[[], Any]] = [
        lambda: outputs.append(pair.forward()),
        lambda: outputs[0].backward(grad_y),
    ]
    for call in passes:
        with torch.profiler.profile(record_shapes=True) as profile:
            call()
        sent = [event for event in profile.events() if event.name.startswith(("gloo:", "nccl:"))]
        shapes: list[list[int]] = [next(filter(None, event.input_shapes), []) for event in sent]
        values = sum(math.prod(shape) for shape in shapes)
        traffic.append([len(sent), value_bytes * values])
    return traffic


def summary(samples: list[float], against: list[float] | None = None) -> dict[str, float]:
    """Quartiles in microseconds, of samples or of their differences in each round."""
    if against is not None:
        samples = [a - b for a, b in zip(samples, against, strict=True)]
    low, median, high = spread(samples)
    return {"us": 1e6 * median, "low_us": 1e6 * low, "high_us": 1e6 * high}
