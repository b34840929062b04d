"""``python -m companion bench --sync``: what synchronizing a layer over processes costs.

For each number of processes they are started anew and measure every shape (:mod:`.sync_worker`);
then :mod:`.sync_model` is fitted to what the synchronized layer took longer than the local one.
"""

from __future__ import annotations

import math
import multiprocessing
import queue
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from . import machine, sync_worker
from .report import Table
from .sync_model import BACKWARD, FORWARD, Model, Point, fit, values

SCHEMA = 1
PROCESSES: tuple[int, ...] = (1, 2, 4)
EXTRAPOLATED = (8, 64, 1024)
SHAPES: list[tuple[int, ...]] = [
    (8, 16, 32, 32),
    (8, 64, 16, 16),
    (8, 256, 8, 8),
    (8, 1024, 4, 4),
    (8, 4096, 2, 2),
]
_QUICK_SHAPES = [SHAPES[1], SHAPES[3]]
# A process that says nothing for so long is stuck: starting takes a while on a busy machine.
_PATIENCE = 120.0


class Request(NamedTuple):
    """What was asked for."""

    device: str
    processes: tuple[int, ...]
    shapes: list[tuple[int, ...]]
    seconds: float
    """Per shape and number of processes."""
    quick: bool


class Failed(Exception):
    """The processes did not finish; the message says why."""


def request(device: str, quick: bool, seconds: float | None) -> Request:
    """Fill in what depends on the machine and on `quick`.

    Raises
    ------
    Failed
        fewer than two GPUs, where GPUs were asked for
    """
    processes = PROCESSES
    if device == "cuda":
        gpus = torch.cuda.device_count()
        processes = tuple(count for count in PROCESSES if count <= gpus)
        if gpus < 2:
            raise Failed(f"--sync --device cuda: expected at least 2 GPUs, got {gpus}")
    shapes = _QUICK_SHAPES if quick else SHAPES
    return Request(device, processes, shapes, seconds or (0.5 if quick else 3.0), quick)


def run(request: Request) -> dict[str, Any]:
    """Measure, print the report on standard output, and return what ``--json`` writes.

    Raises
    ------
    Failed
        a process died, raised an error, or hung
    """
    started = time.perf_counter()
    document = _document(request)
    print(_header(document), flush=True)
    table = _table(request.device)
    print("\n" + table.head(), flush=True)
    for case in _measured(request):
        document["cases"].append(case)
        print(*_rows(table, case), sep="\n", flush=True)
    model = fit(list(_points(document["cases"])))
    if model is not None:
        document["model"] = {
            "latency_us": 1e6 * model.latency,
            "bandwidth_bytes_per_s": None if math.isinf(model.bandwidth) else model.bandwidth,
            "parameters": 2,
            "points": model.points,
            "median_relative_error": model.error,
        }
        document["predicted"] = _predicted(model, request)
    document["seconds"] = time.perf_counter() - started
    print("", *_conclusions(document, model, request), sep="\n", flush=True)
    return document


def _document(request: Request) -> dict[str, Any]:
    """Everything but the measurements."""
    return {
        "schema": SCHEMA,
        **machine.describe(),
        "settings": {
            "device": request.device,
            "processes": list(request.processes),
            "threads_per_process": 1,
            "seconds_per_case": request.seconds,
            "quick": request.quick,
        },
        "cases": [],
        "model": None,
        "predicted": [],
    }


def _measured(request: Request) -> Iterator[dict[str, Any]]:
    from tqdm import tqdm

    total = len(request.processes) * len(request.shapes)
    with tqdm(total=total, file=sys.stderr, disable=None, leave=False, unit="case") as progress:
        for ranks in request.processes:
            progress.set_description(f"{ranks} process{'es' * (ranks > 1)}")
            for measurements in _run_processes(ranks, request):
                progress.update()
                yield _case(ranks, measurements)


def _run_processes(ranks: int, request: Request) -> Iterator[dict[str, Any]]:
    """Start processes, and pass on what they measure; whatever happens, none is left running."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        job = sync_worker.Job(ranks, request.device, request.shapes, request.seconds, folder)
        started = [
            context.Process(target=sync_worker.process, args=(rank, job, results), daemon=True)
            for rank in range(ranks)
        ]
        try:
            for one in started:
                one.start()
            for _ in request.shapes:
                yield _next(results, started)
        finally:
            for one in started:
                one.join(10.0)
                one.kill()
                one.join()


def _next(results: Any, started: Sequence[Any]) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            measurements = results.get(timeout=1.0)
        except queue.Empty:
            dead = [one.exitcode for one in started if one.exitcode]
            if dead:
                raise Failed(f"--sync: a process ended with status {dead[0]}") from None
            continue
        if isinstance(measurements, str):
            raise Failed(f"--sync: {measurements}")
        return measurements
    raise Failed(f"--sync: the processes have said nothing for {_PATIENCE:.0f} s")


def _case(ranks: int, measurements: dict[str, Any]) -> dict[str, Any]:
    """One shape with one number of processes: times per call in microseconds, and quartiles."""
    passes = {}
    for name in (FORWARD, BACKWARD):
        seconds = {layer: times[name] for layer, times in measurements["seconds"].items()}
        messages, size = measurements["traffic"]["sync"][name]
        passes[name] = {
            "messages": messages,
            "bytes": size,
            "sync": sync_worker.summary(seconds["sync"]),
            "local": sync_worker.summary(seconds["local"]),
            "added": sync_worker.summary(seconds["sync"], seconds["local"]),
        }
        if "torch" in seconds:
            messages, size = measurements["traffic"]["torch"][name]
            passes[name]["torch"] = sync_worker.summary(seconds["torch"])
            passes[name] |= {"torch_messages": messages, "torch_bytes": size}
    return {
        "ranks": ranks,
        "shape": list(measurements["shape"]),
        "channels": measurements["shape"][1],
        "rounds": measurements["rounds"],
        **passes,
    }


def _points(cases: Sequence[dict[str, Any]]) -> Iterator[Point]:
    for case in cases:
        for name in (FORWARD, BACKWARD):
            seconds = 1e-6 * case[name]["added"]["us"]
            yield Point(case["ranks"], case["channels"], name, seconds)


def _predicted(model: Model, request: Request) -> list[dict[str, Any]]:
    """What the model says of forward and backward pass together."""
    return [
        {
            "ranks": ranks,
            "channels": shape[1],
            "schedule": schedule,
            "us": 1e6
            * sum(model.seconds(ranks, shape[1], name, schedule) for name in (FORWARD, BACKWARD)),
        }
        for ranks in (*request.processes, *EXTRAPOLATED)
        for shape in request.shapes
        for schedule in ("ring", "tree")
    ]


def _header(document: dict[str, Any]) -> str:
    computer, settings = document["machine"], document["settings"]
    present = [f"{name} {number}" for name, number in document["versions"].items() if number]
    load = "" if computer["load"] is None else f", load {computer['load']:.1f} before the start"
    return "\n".join(
        [
            ", ".join(present),
            f"{document['date']}, {computer['processor']}, {computer['system']}, "
            f"{computer['cores']} cores{load}",
            f"float32 on {settings['device']}, one thread per process, "
            f"{settings['seconds_per_case']:g} s per case; times in µs per call, of the slowest "
            "process, medians",
        ]
    )


def _table(device: str) -> Table:
    columns = [("messages", 10), ("bytes", 9), ("sync", 10), ("local", 10), ("added", 10)]
    return Table(34, [*columns, *([("torch", 10)] if device == "cuda" else [])])


def _rows(table: Table, case: dict[str, Any]) -> Iterator[str]:
    shape = "x".join(map(str, case["shape"]))
    for name in (FORWARD, BACKWARD):
        measured = case[name]
        times = [measured[key]["us"] for key in ("sync", "local", "added")]
        times += [measured["torch"]["us"]] if "torch" in measured else []
        cells = [
            str(measured["messages"]),
            str(measured["bytes"]),
            *(f"{time:.0f}" for time in times),
        ]
        yield table.row(f"{case['ranks']} × {shape} {name}", cells)


def _conclusions(document: dict[str, Any], model: Model | None, request: Request) -> Iterator[str]:
    if model is None:
        yield "No model: too few measurements in which synchronization took time."
        return
    speed = "no cost of bytes found"
    if math.isfinite(model.bandwidth):
        speed = f"{model.bandwidth / 1e6:.0f} MB/s"
    yield (
        f"Model: steps · latency + bytes / bandwidth; {1e6 * model.latency:.0f} µs per step, "
        f"{speed}: 2 parameters fitted to {model.points} measurements, which it misses by "
        f"{100 * model.error:.0f}% (median)."
    )
    yield "Added by synchronization, forward and backward together, µs:"
    predicted = {
        (one["ranks"], one["channels"], one["schedule"]): one["us"] for one in document["predicted"]
    }
    measured = {
        (case["ranks"], case["channels"]): case[FORWARD]["added"]["us"]
        + case[BACKWARD]["added"]["us"]
        for case in document["cases"]
    }
    counts = [count for count in (*request.processes, *EXTRAPOLATED) if count > 1]
    table = Table(24, [(f"p = {count}", 12) for count in counts])
    yield table.head()
    for shape in request.shapes:
        channels = shape[1]
        sent = values(channels, FORWARD) + values(channels, BACKWARD)
        medians = [measured.get((count, channels)) for count in counts]
        cells = ["–" if time is None else f"{time:.0f}" for time in medians]
        yield table.row(f"C = {channels} ({sent} values)", cells)
        for schedule in ("ring", "tree"):
            times = [f"{predicted[count, channels, schedule]:.0f}" for count in counts]
            yield table.row(f"  model, {schedule}", times)
    yield "gloo goes round a ring; the tree is what the same steps would cost by doubling."
    yield f"{len(document['cases'])} cases in {document['seconds']:.0f} s"
