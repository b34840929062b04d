import math
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from companion.bench import measure as module
from companion.bench.document import Bounds
from companion.bench.measure import Bench
from companion.bench.operations import PASSES
from companion.bench.suite import Case
from companion.bench.timing import Samples, Timer

ROOT = Path(__file__).parents[2]
CASE = Case("tiny", (4, 3, 5, 6))
# Seconds in odd and in even rounds.
TIMES = {
    "copy": (10e-6, 20e-6),
    "ours": (30e-6, 60e-6),
    "torch": (60e-6, 120e-6),
    "again": (60e-6, 126e-6),
    "compile": (45e-6, 90e-6),
    "native": (90e-6, 180e-6),
}


def bench(**options):
    # Kernels that need no compiling.
    settings = {"seconds_per_case": 0.0, "compiled": False, "cache_bytes": 2**20}
    return Bench(**{**settings, "backend": "eager", **options})


@pytest.fixture
def timed(monkeypatch):
    """Times that are known: whoever takes part takes what is in TIMES."""

    def measure(timers, _limits):
        return Samples({name: list(TIMES[name]) * 4 for name in timers}, 3)

    monkeypatch.setattr(module, "measure", measure)


@pytest.mark.usefixtures("timed")
def test_a_record_has_medians_paired_ratios_and_quartiles():
    record = bench().case(CASE)
    assert record["copy_us"] == pytest.approx(15.0)
    for name in PASSES:
        measured = record[name]
        assert (measured["copy_us"], measured["ours_us"]) == pytest.approx((15.0, 45.0))
        assert (measured["ours_copies"], measured["torch_copies"]) == pytest.approx((3.0, 6.0))
        assert measured["speedup"] == pytest.approx(2.0)
        assert measured["verdict"] == "faster"
        assert measured["quartiles"]["speedup"] == pytest.approx([2.0, 2.0])
        assert measured["quartiles"]["ours_us"] == pytest.approx([30.0, 60.0])
        assert set(measured["quartiles"]) == {
            *("copy_us", "ours_us", "torch_us", "ours_copies", "torch_copies", "speedup")
        }
        assert measured["compile_us"] is measured["native_speedup"] is measured["bound_us"] is None
        assert (measured["samples"], measured["page_faults"]) == (8, 3)
        assert record["noise"][name]["ratio"] == pytest.approx(1.025)
        assert record["noise"][name]["low"] == pytest.approx(1.0)
        assert record["noise"][name]["high"] == pytest.approx(1.05)


@pytest.mark.usefixtures("timed")
def test_slower_and_even_are_found(monkeypatch):
    monkeypatch.setitem(TIMES, "ours", (70e-6, 140e-6))
    assert bench().case(CASE)["both"]["verdict"] == "slower"
    monkeypatch.setitem(TIMES, "ours", (61e-6, 122e-6))
    assert bench().case(CASE)["both"]["verdict"] == "even"


@pytest.mark.usefixtures("timed")
def test_a_record_describes_its_case():
    record = bench().case(CASE._replace(channels_last=True, dtype="float64"))
    assert record["name"] == "4x3x5x6-channels-last-float64"
    assert record["shape"] == [4, 3, 5, 6]
    assert (record["layout"], record["dtype"]) == ("channels-last", "float64")
    assert (record["bytes"], record["module"], record["beyond_cache"]) == (2880, False, False)
    assert record["error"]["channels"] == 3
    small = bench(cache_bytes=100)
    assert small.case(CASE)["beyond_cache"]


@pytest.mark.usefixtures("timed")
def test_the_compiled_contender_takes_part(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    record = bench(compiled=True).case(CASE)
    measured = record["backward"]
    assert (measured["compile_us"], measured["compile_copies"]) == pytest.approx((67.5, 4.5))
    assert measured["compile_speedup"] == pytest.approx(1.5)
    assert measured["quartiles"]["compile_speedup"] == pytest.approx([1.5, 1.5])
    assert record["compile_note"] is None


@pytest.mark.usefixtures("timed")
def test_where_compiling_fails_the_rest_is_measured(monkeypatch):
    def fails(*_):
        raise RuntimeError("/home/somebody: no")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    record = bench(compiled=True).case(CASE)
    # Nothing of the message, which may have paths.
    assert record["compile_note"] == "torch.compile failed: RuntimeError"
    assert record["forward"]["compile_us"] is None
    assert record["forward"]["speedup"] == pytest.approx(2.0)


def test_a_device_brings_its_timer_its_sets_and_its_bounds():
    given, asked = [], []

    def make_timer(calls):
        given.append(len(calls))
        return Timer(lambda repeats: repeats * len(calls) * 1e-3, len(calls))

    def bounds(name, case, ours_us):
        asked.append((name, case, ours_us))
        return Bounds(bound_us=1.0, bound_fraction=2.0, bandwidth_fraction=3.0)

    record = bench(make_timer=make_timer, count_sets=lambda _: 3, bounds=bounds).case(CASE)
    assert given == [3] * 4 * len(PASSES)
    assert asked == [(name, CASE, pytest.approx(1000.0)) for name in PASSES]
    assert record["fixed"]["bound_us"] == 1.0


def test_real_times_are_measured_in_every_pass():
    record = bench(seconds_per_case=0.01, fewest=2).case(CASE)
    for name in PASSES:
        measured = record[name]
        assert measured["samples"] % 4 == 0
        for key in ("copy_us", "ours_us", "torch_us"):
            assert 0 < measured[key] < 1e7
            assert math.isfinite(measured[key])
        low, high = measured["quartiles"]["speedup"]
        assert low <= measured["speedup"] <= high


FAULTS = """
import sys
from companion.bench import machine, operations
from companion.bench.measure import Bench, touch_memory
from companion.bench.suite import Case
from companion.bench.timing import Limits, measure
if sys.argv[1] == "reused":
    assert machine.reuse_memory()
# Beyond the size up to which glibc learns to keep memory by itself, 32 MiB.
case = Case("few-channels", (9, 4, 512, 512))
layers = operations.layers(case, "cpu", "torch", False)
timers = Bench(0.0, False, 1)._timers("forward", layers, [operations.tensors(case, "cpu")])
touch_memory(6 * case.bytes)
print(measure(timers, Limits(0.0, fewest=4)).page_faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_timing_is_free_of_page_faults_where_memory_is_reused():
    faults = {}
    for setting in ("reused", "default"):
        command = [sys.executable, "-c", FAULTS, setting]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        faults[setting] = int(done.stdout)
    # 12 outputs of 36 MiB; a page has 4 KiB, a huge page 2 MiB.
    assert faults["reused"] < 12 * 4
    assert faults["default"] >= 12 * 18


def test_memory_for_outputs_is_there_before_anything_is_timed(monkeypatch):
    done = []

    def measure(timers, _limits):
        done.append("measure")
        return Samples({name: [1.0] for name in timers}, 0)

    monkeypatch.setattr(module, "measure", measure)
    bench(reserve=done.append).case(CASE)
    assert done == [6 * CASE.bytes, "measure"] * len(PASSES)
