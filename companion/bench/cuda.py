"""What differs on a GPU: time is read on the device, data comes from its memory, bounds are known.

*Graphs.* A host cannot launch kernels as fast as a GPU runs the small ones. All calls are recorded
in a CUDA graph; what is timed, by events before and after, is the graph's replay.

*Rotation.* A tensor that was just read is in the L2 cache. Each graph makes the same call on many
sets of tensors, one after the other, whose inputs together exceed the cache fourfold; outputs are
kept, so that they are different memory too.

*Bounds.* See :func:`least_bytes`.

Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .document import Bounds, Gpu
from .operations import Call
from .suite import Case
from .timing import Limits, Timer, measure

# Where torch does not know a property: those of compute capability 9.0 (H100, H200), from the CUDA
# C++ Programming Guide, table "Technical Specifications per Compute Capability"; and of the H100.
_REGISTERS = 65536
_SHARED_BYTES = 228 * 2**10
_L2_BYTES = 50 * 2**20

_BEYOND_L2 = 4
# A graph of more calls takes long to record. Only tensors that are far too small to be limited by
# memory would need more.
_MOST_SETS = 256
# Not a power of two: an H100 copied 2^30 bytes a fifth slower than tensors of other sizes.
_COPIED_BYTES = 25 * 2**25
_LAUNCHES = 256


def count_sets(tensor_bytes: int, l2_bytes: int) -> int:
    """How many sets of tensors are rotated: their inputs exceed the L2 cache fourfold."""
    return min(_MOST_SETS, _BEYOND_L2 * l2_bytes // tensor_bytes + 1)


def least_bytes(name: str, tensor_bytes: int, on_chip_bytes: int) -> int:
    """The least traffic of a pass that keeps what fits in registers and shared memory.

    With T bytes per activation and R bytes there: forward, x is read for the statistics and again
    for the output, except for what was kept: 3T - min(T, R). Backward, x and grad_y are read twice:
    5T - min(2T, R). With fixed statistics, 2T.

    The L2 cache is left out, for a pass does not choose what stays in it. A pass that finds there
    what it has just read moves less, and may take less than the bound that follows.
    """
    T, R = tensor_bytes, on_chip_bytes
    forward, backward = 3 * T - min(T, R), 5 * T - min(2 * T, R)
    return {
        "forward": forward,
        "backward": backward,
        "both": forward + backward,
        "fixed": 2 * T,
    }[name]


def useful_bytes(name: str, tensor_bytes: int) -> int:
    """Traffic of a pass that reads each activation once and writes each once."""
    return {"forward": 2, "backward": 3, "both": 5, "fixed": 2}[name] * tensor_bytes


def bound(name: str, tensor_bytes: int, gpu: Gpu) -> float:
    """Microseconds that a pass takes at least: traffic over measured bandwidth, plus launches."""
    traffic = least_bytes(name, tensor_bytes, gpu["on_chip_bytes"])
    launches = 2 if name == "both" else 1
    return 1e6 * traffic / gpu["bandwidth_bytes_per_s"] + launches * gpu["launch_us"]


def describe(gpu: Gpu, name: str, case: Case, ours_us: float) -> Bounds:
    """How near to its bounds a pass is."""
    least = bound(name, case.bytes, gpu)
    bandwidth = useful_bytes(name, case.bytes) / (ours_us * 1e-6)
    return Bounds(
        bound_us=least,
        bound_fraction=least / ours_us,
        bandwidth_fraction=bandwidth / gpu["bandwidth_bytes_per_s"],
    )


def on_chip_bytes(properties: Any) -> int:
    """Registers and shared memory of all multiprocessors.

    Parameters
    ----------
    properties
        what ``torch.cuda.get_device_properties`` returns
    """
    registers = getattr(properties, "regs_per_multiprocessor", _REGISTERS)
    shared = getattr(properties, "shared_memory_per_multiprocessor", _SHARED_BYTES)
    return int(properties.multi_processor_count) * (4 * int(registers) + int(shared))


def graph_timer(calls: Sequence[Call]) -> Timer:
    """Record all calls in one CUDA graph, on the current stream, and time its replays."""
    stream = torch.cuda.current_stream()
    for call in calls:
        # Compiles, and lets libraries allocate what they cannot while a graph is recorded.
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        # Kept until the end, or the next call would write to the memory of this one's output.
        outputs = [call() for call in calls]
    del outputs
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run(repeats: int) -> float:
        start.record(stream)
        for _ in range(repeats):
            graph.replay()
        end.record(stream)
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return Timer(run, len(calls))


@contextmanager
def side_stream() -> Iterator[None]:
    """A stream of its own: graphs cannot be recorded on the default one.

    Backward passes run on the stream of their forward pass, so that everything has to be here.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def gpu() -> Gpu:
    """Describe the current device, and measure its bandwidth and its launches.

    To be called under :func:`side_stream`.
    """
    properties: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
    source = torch.randn(_COPIED_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    tiny = torch.zeros(1, device="cuda")
    copy_s = _median(graph_timer([lambda: target.copy_(source)]))
    launch_s = _median(graph_timer([lambda: tiny.add_(1.0)] * _LAUNCHES))
    return Gpu(
        name=str(properties.name),
        multiprocessors=int(properties.multi_processor_count),
        l2_bytes=int(getattr(properties, "L2_cache_size", 0)) or _L2_BYTES,
        on_chip_bytes=on_chip_bytes(properties),
        bandwidth_bytes_per_s=2 * _COPIED_BYTES / copy_s,
        launch_us=1e6 * launch_s,
    )


def _median(timer: Timer) -> float:
    samples = measure({"it": timer}, Limits(seconds=0.3, fewest=5)).seconds["it"]
    return statistics.median(samples)
