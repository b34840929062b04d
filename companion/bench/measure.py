"""Measure one case: all passes, the errors, the noise."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from . import operations
from .accuracy import errors
from .document import Bounds, CaseRecord, Noise, PassRecord
from .operations import Call, Layer, Tensors
from .spread import Spread, paired_ratios, spread, verdict
from .suite import Case
from .timing import Limits, Samples, Timer, host_timer, measure

_log = logging.getLogger(__name__)

# Activation tensors that a call allocates, and space for what does not fit between them.
_MOST_OUTPUTS = 6


def no_bounds(_name: str, _case: Case, _ours_us: float) -> Bounds:
    """What is known of a bound on the CPU."""
    return Bounds(bound_us=None, bound_fraction=None, bandwidth_fraction=None)


def touch_memory(size: int) -> None:
    """Have the system map `size` bytes to the process, and free them for what comes next."""
    torch.ones(size, dtype=torch.uint8)


@dataclass
class Bench:
    """How cases are measured on a device; the defaults are the CPU's."""

    seconds_per_case: float
    compiled: bool
    cache_bytes: int
    backend: str = "auto"
    device: str = "cpu"
    fewest: int = 6
    bounds: Callable[[str, Case, float], Bounds] = no_bounds
    """Given a pass, a case, and our microseconds."""
    make_timer: Callable[[Sequence[Call]], Timer] = lambda calls: host_timer(calls[0])
    """Given the same call on each of the sets of tensors."""
    count_sets: Callable[[Case], int] = lambda _case: 1
    """How many sets of tensors a case is measured on."""
    reserve: Callable[[int], None] = touch_memory
    """Given the bytes that outputs may need."""

    def case(self, case: Case) -> CaseRecord:
        """Measure everything about a case."""
        sets = [
            operations.tensors(case, self.device, seed) for seed in range(self.count_sets(case))
        ]
        layers = operations.layers(case, self.device, self.backend, self.compiled)
        error = errors(case, layers, sets[0])
        note = self._try_compiled(layers, sets[0])
        limits = Limits(self.seconds_per_case / len(operations.PASSES), fewest=self.fewest)
        samples = {}
        for name in operations.PASSES:
            with operations.recording(name):
                timers = self._timers(name, layers, sets)
                self.reserve(_MOST_OUTPUTS * case.bytes)
                samples[name] = measure(timers, limits)
        records = {name: self._record(name, case, samples[name]) for name in operations.PASSES}
        return CaseRecord(
            name=case.name,
            group=case.group,
            shape=list(case.shape),
            layout=case.layout,
            dtype=case.dtype,
            bytes=case.bytes,
            module=case.module,
            beyond_cache=case.bytes > self.cache_bytes,
            copy_us=1e6
            * statistics.median(s for one in samples.values() for s in one.seconds["copy"]),
            forward=records["forward"],
            backward=records["backward"],
            both=records["both"],
            fixed=records["fixed"],
            error=error,
            noise={name: _noise(samples[name]) for name in operations.PASSES},
            compile_note=note,
        )

    def _try_compiled(self, layers: dict[str, Layer], given: Tensors) -> str | None:
        """Compile all passes; if that fails, drop the layer and say why."""
        if "compile" not in layers:
            return None
        try:
            for name in operations.PASSES:
                with operations.recording(name):
                    operations.call_of(name, layers["compile"], given)()
        except Exception as error:
            # Whatever a compiler, and a compiler's compiler, may raise.
            _log.debug("torch.compile failed", exc_info=True)
            del layers["compile"]
            return f"torch.compile failed: {type(error).__name__}"
        return None

    def _timers(
        self, name: str, layers: dict[str, Layer], sets: Sequence[Tensors]
    ) -> dict[str, Timer]:
        calls = {"copy": [operations.copy_of(given) for given in sets]}
        for contender, layer in layers.items():
            calls[contender] = [operations.call_of(name, layer, given) for given in sets]
        return {contender: self.make_timer(on_sets) for contender, on_sets in calls.items()}

    def _record(self, name: str, case: Case, samples: Samples) -> PassRecord:
        spreads = _measured(samples.seconds)
        noise = spread(paired_ratios(samples.seconds["again"], samples.seconds["torch"]))

        def maybe(key: str) -> float | None:
            return spreads[key].median if key in spreads else None

        ours_us = spreads["ours_us"].median
        return PassRecord(
            copy_us=spreads["copy_us"].median,
            ours_us=ours_us,
            torch_us=spreads["torch_us"].median,
            compile_us=maybe("compile_us"),
            native_us=maybe("native_us"),
            ours_copies=spreads["ours_copies"].median,
            torch_copies=spreads["torch_copies"].median,
            compile_copies=maybe("compile_copies"),
            native_copies=maybe("native_copies"),
            speedup=spreads["speedup"].median,
            compile_speedup=maybe("compile_speedup"),
            native_speedup=maybe("native_speedup"),
            verdict=verdict(spreads["speedup"], noise),
            quartiles={key: [value.low, value.high] for key, value in spreads.items()},
            samples=len(samples.seconds["ours"]),
            page_faults=samples.page_faults,
            **self.bounds(name, case, ours_us),
        )


def _measured(seconds: dict[str, list[float]]) -> dict[str, Spread]:
    """The times in microseconds, and the ratios, of the contenders that took part."""
    spreads = {}
    for contender in ("copy", "ours", "torch", "compile", "native"):
        if contender in seconds:
            samples = seconds[contender]
            spreads[f"{contender}_us"] = spread([1e6 * sample for sample in samples])
            spreads[f"{contender}_copies"] = spread(paired_ratios(samples, seconds["copy"]))
            speedup = "speedup" if contender == "torch" else f"{contender}_speedup"
            spreads[speedup] = spread(paired_ratios(samples, seconds["ours"]))
    for meaningless in ("copy_copies", "copy_speedup", "ours_speedup"):
        del spreads[meaningless]
    return spreads


def _noise(samples: Samples) -> Noise:
    noise = spread(paired_ratios(samples.seconds["again"], samples.seconds["torch"]))
    return Noise(ratio=noise.median, low=noise.low, high=noise.high)


def warm_up(device: str) -> None:
    """Start what starts with the first operation, such as threads and the device's context."""
    torch.ones(2**20, device=device).add_(1).sum().item()
