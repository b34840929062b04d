"""``python -m companion bench --models``: whole training steps, and evaluations, of whole networks.

Each network is built four times with the same parameters: with ``torch.nn``'s layers; with them
once more, which measures the noise; converted; and converted with ReLUs and sums fused. Then all
but the second once more, under torch.compile. All take turns in one process, see :mod:`.timing`.
"""

from __future__ import annotations

import copy
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import companion
from companion._torch import compile_for_timing

from ..interruption import Interruption
from . import machine
from .document import rounded
from .measure import touch_memory, warm_up
from .networks import CLASSES, NETWORKS
from .operations import forget_compiled
from .report import Table
from .spread import geometric_mean, paired_ratios, spread, verdict
from .timing import Limits, Samples, Timer, host_timer, measure

SCHEMA = 1
MODES = ("step", "evaluation")
"""step: forward, loss, backward, and stochastic gradient descent. evaluation: forward, recording
nothing."""
OURS = ("ours", "fused")
_COMPILED = "compiled "
# Of memory that a step needs, per network; what is mapped beforehand costs no page faults.
_RESERVED = 2**29


class Case(NamedTuple):
    """A network in a memory format."""

    network: str
    channels_last: bool
    compiled: bool
    """Whether it is timed under torch.compile too."""

    @property
    def name(self) -> str:
        """Unique in a run."""
        return self.network + ("-channels-last" if self.channels_last else "")


class Request(NamedTuple):
    """What was asked for, with the defaults filled in."""

    cases: list[Case]
    images: int
    pixels: int
    seconds: float
    """Per case, mode, and way to run."""
    threads: int | None
    quick: bool


def suite(quick: bool, compiled: bool) -> list[Case]:
    """The cases; to compile a DenseNet would take as long as all else."""
    networks = {"resnet": True, "mobilenet": True} | ({} if quick else {"densenet": False})
    return [
        Case(network, last, compiled and compiles)
        for network, compiles in networks.items()
        for last in (False, True)
    ]


def request(cases: list[Case], quick: bool, seconds: float | None, threads: int | None) -> Request:
    """Fill in what depends on `quick`."""
    return Request(
        cases,
        images=4 if quick else 8,
        pixels=64 if quick else 96,
        seconds=seconds or (0.7 if quick else 8.0),
        threads=threads,
        quick=quick,
    )


def run(asked: Request) -> dict[str, Any]:
    """Measure, print the report on standard output, and return what ``--json`` writes.

    Changes the process: the number of PyTorch's threads, and how the C library reuses memory.
    """
    started = time.perf_counter()
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    document = _document(asked, memory_reused=machine.reuse_memory())
    warm_up("cpu")
    print(_header(document), flush=True)
    failed = []
    for case, record in _measured(asked):
        if record is None:
            failed.append(case.name)
        else:
            document["cases"].append(record)
    summary = summarize(document["cases"]) | {
        "failed": failed,
        "interrupted": len(document["cases"]) + len(failed) < len(asked.cases),
        "seconds": time.perf_counter() - started,
    }
    document["summary"] = rounded(summary)
    print("", *_conclusions(document["summary"]), sep="\n", flush=True)
    return document


def _measured(asked: Request) -> Iterator[tuple[Case, dict[str, Any] | None]]:
    """Measure and print case by case, to the last, or until Ctrl-C; None where one failed."""
    from tqdm import tqdm

    table = _table([case.name for case in asked.cases])
    progress = tqdm(asked.cases, file=sys.stderr, disable=None, leave=False, unit="case")
    with progress, Interruption() as interruption:
        tqdm.write("\n" + table.head(), file=sys.stdout)
        for case in progress:
            progress.set_description(case.name)
            record = None
            try:
                record = rounded(measure_case(case, asked))  # printed as it is written
            except Exception:
                # A compiler that runs for this case is interrupted too, and fails.
                if interruption.asked:
                    return
                tqdm.write(f"{case.name}: {traceback.format_exc()}", file=sys.stderr)
            finally:
                forget_compiled()
            for row in _rows(table, record) if record is not None else ():
                tqdm.write(row, file=sys.stdout)
            sys.stdout.flush()
            yield case, record
            if interruption.asked:
                return


class Network:
    """A network, its optimizer, and what it is called with."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, compiled: bool) -> None:
        self.model, self._images, self._labels = model, images, labels
        # With a learning rate of 0 all steps compute the same, in as much time.
        self._optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        self._call: Callable[[Tensor], Tensor] = model
        if compiled:
            self._call = torch.compile(model, fullgraph=True, dynamic=False)

    def step(self) -> None:
        """Run a training step."""
        self._optimizer.zero_grad()
        F.cross_entropy(self._call(self._images), self._labels).backward()
        self._optimizer.step()

    def evaluation(self) -> Tensor:
        """Run the forward pass of evaluation."""
        with torch.no_grad():
            return self._call(self._images)


def contenders(case: Case, asked: Request) -> dict[str, Network]:
    """The networks that take turns, by name; those that are compiled come last."""
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model: Any = NETWORKS[case.network]()
    model.to(memory_format=layout)
    images = torch.randn(asked.images, 3, asked.pixels, asked.pixels).to(memory_format=layout)
    labels = torch.arange(asked.images) % CLASSES
    models: dict[str, nn.Module] = {name: copy.deepcopy(model) for name in ("torch", "again")}
    models["ours"] = companion.convert(copy.deepcopy(model))
    models["fused"] = companion.convert(copy.deepcopy(model), fuse=True)
    networks = {name: Network(one, images, labels, False) for name, one in models.items()}
    if case.compiled:
        compile_for_timing()
        for name in ("torch", *OURS):
            one = copy.deepcopy(models[name])
            networks[_COMPILED + name] = Network(one, images, labels, True)
    return networks


def measure_case(case: Case, asked: Request) -> dict[str, Any]:
    """Measure a network in both modes."""
    networks = contenders(case, asked)
    limits = Limits(asked.seconds * (2 if case.compiled else 1), fewest=len(networks))
    modes = {}
    for mode in MODES:
        for network in networks.values():
            network.model.train(mode == "step")
        timers = {name: _timer(network, mode) for name, network in networks.items()}
        for timer in timers.values():
            # Compiles.
            timer.run(1)
        touch_memory(_RESERVED)
        modes[mode] = conclude(measure(timers, limits))
    return {
        "name": case.name,
        "network": case.network,
        "layout": "channels-last" if case.channels_last else "contiguous",
        "images": [asked.images, 3, asked.pixels, asked.pixels],
        **modes,
    }


def _timer(network: Network, mode: str) -> Timer:
    return host_timer(network.step if mode == "step" else network.evaluation)


def conclude(samples: Samples) -> dict[str, Any]:
    """Medians and quartiles: times in ms, speed-ups in the same round, and the noise."""
    seconds = samples.seconds
    noise = spread(paired_ratios(seconds["again"], seconds["torch"]))
    record: dict[str, Any] = {
        "times_ms": {name: _quartiles([1e3 * s for s in seconds[name]]) for name in seconds},
        "noise": {"ratio": noise.median, "low": noise.low, "high": noise.high},
        "speedup": {},
        "verdict": {},
        "samples": len(seconds["torch"]),
        "page_faults": samples.page_faults,
    }
    for prefix in ("", _COMPILED):
        for name in OURS:
            if prefix + name in seconds:
                ratios = paired_ratios(seconds[prefix + "torch"], seconds[prefix + name])
                record["speedup"][prefix + name] = _quartiles(ratios)
                record["verdict"][prefix + name] = verdict(spread(ratios), noise)
    return record


def _quartiles(samples: Sequence[float]) -> dict[str, float]:
    low, median, high = spread(samples)
    return {"median": median, "low": low, "high": high}


def summarize(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of the speed-ups, the smallest of each, and what is slower beyond noise."""
    means: dict[str, dict[str, float | None]] = {}
    least: dict[str, dict[str, float | None]] = {}
    slower = []
    for mode in MODES:
        means[mode], least[mode] = {}, {}
        for name in (prefix + name for prefix in ("", _COMPILED) for name in OURS):
            having = [case for case in cases if name in case[mode]["speedup"]]
            speedups = [case[mode]["speedup"][name]["median"] for case in having]
            means[mode][name] = geometric_mean(speedups)
            least[mode][name] = min(speedups, default=None)
            slower += [
                {
                    "case": case["name"],
                    "mode": mode,
                    "with": name,
                    "speedup": case[mode]["speedup"][name],
                    "noise": case[mode]["noise"],
                }
                for case in having
                if case[mode]["verdict"][name] == "slower"
            ]
    return {"cases": len(cases), "mean": means, "least": least, "slower": slower}


def report(document: dict[str, Any]) -> str:
    """What :func:`run` printed for a run."""
    table = _table([case["name"] for case in document["cases"]])
    rows = [row for case in document["cases"] for row in _rows(table, case)]
    conclusions = _conclusions(document["summary"])
    return "\n".join([_header(document), "", table.head(), *rows, "", *conclusions])


def _document(asked: Request, memory_reused: bool) -> dict[str, Any]:
    """Everything but the measurements."""
    return {
        "schema": SCHEMA,
        **machine.describe(),
        "settings": {
            "threads": torch.get_num_threads(),
            "images": asked.images,
            "pixels": asked.pixels,
            "seconds": asked.seconds,
            "compile": any(case.compiled for case in asked.cases),
            "quick": asked.quick,
            "memory_reused": memory_reused,
        },
        "cases": [],
        "summary": None,
    }


def _header(document: dict[str, Any]) -> str:
    computer, settings = document["machine"], document["settings"]
    present = [f"{name} {number}" for name, number in document["versions"].items() if number]
    load = "" if computer["load"] is None else f", load {computer['load']:.1f} before the start"
    return "\n".join(
        [
            ", ".join(present),
            f"{document['date']}, {computer['processor']}, {computer['system']}, "
            f"{computer['cores']} cores, {settings['threads']} threads{load}",
            f"float32 on cpu, {settings['images']} images of {settings['pixels']} pixels squared, "
            f"torch.compile: {'on' if settings['compile'] else 'off'}; "
            "× is the speed-up over torch.nn's layers, run the same way",
        ]
    )


def _table(names: Sequence[str]) -> Table:
    columns = [("torch ms", 11), ("ours ×", 9), ("fused ×", 9)]
    columns += [("compiled: torch ms", 21), ("ours ×", 9), ("fused ×", 9), ("noise", 15)]
    return Table(max(map(len, names)) + len(MODES[1]) + 3, columns)


def _rows(table: Table, record: dict[str, Any]) -> Iterator[str]:
    for mode in MODES:
        measured = record[mode]
        cells = []
        for prefix in ("", _COMPILED):
            time_ms = measured["times_ms"].get(prefix + "torch")
            cells.append("–" if time_ms is None else f"{time_ms['median']:.1f}")
            for name in OURS:
                speedup = measured["speedup"].get(prefix + name)
                cells.append("–" if speedup is None else f"{speedup['median']:.2f}")
        cells.append(_range(measured["noise"]))
        yield table.row(f"{record['name']} {mode}", cells)


def _range(value: dict[str, float]) -> str:
    return f"{value['low']:.2f} … {value['high']:.2f}"


def _conclusions(summary: dict[str, Any]) -> Iterator[str]:
    if summary["cases"]:
        yield "Speed-up, geometric mean over the networks, and the smallest:"
    for mode in MODES:
        for name, mean in summary["mean"][mode].items():
            if mean is not None:
                yield f"  {mode:<12}{name:<16}{mean:.2f}, {summary['least'][mode][name]:.2f}"
    yield "Slower than torch.nn's beyond noise:" + ("" if summary["slower"] else " no network.")
    for one in summary["slower"]:
        yield (
            f"  {one['case']} {one['mode']}, {one['with']}: speed-up "
            f"{one['speedup']['median']:.2f} ({_range(one['speedup'])}); "
            f"PyTorch over itself {_range(one['noise'])}"
        )
    yield from (f"failed, see the error above: {name}" for name in summary["failed"])
    if summary["interrupted"]:
        yield "ended by Ctrl-C; the networks that were not measured are missing"
    yield f"networks: {summary['cases']}, in {summary['seconds']:.0f} s"
