"""Byte counts against cases done by hand, and the four steps against the oracle."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from companion import reference
from companion.bench.cuda import least_bytes
from companion.experiments import gpu_log
from companion.experiments import memory_steps as steps
from companion.experiments import memory_traffic as traffic

H200 = 4.3e12  # bytes per second

rng = np.random.default_rng(0)


# --- Counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # T in MB; forward 2T and 3T, backward 3T and 5T in microseconds on an H200, in bfloat16
        ((32, 2048, 7, 7), (6.4, 3.0, 4.5, 4.5, 7.5)),
        ((32, 64, 56, 56), (12.8, 6.0, 9.0, 9.0, 14.9)),
        ((32, 512, 28, 28), (25.7, 11.9, 17.9, 17.9, 29.9)),
        ((32, 256, 56, 56), (51.4, 23.9, 35.8, 35.8, 59.7)),
        ((256, 256, 56, 56), (411, 191, 287, 287, 478)),
    ],
)
def test_the_table_of_bounds(shape, expected):
    T = 2 * math.prod(shape)
    bounds_us = [T / 1e6]
    for name in ("forward", "backward"):
        for kept in (2 * T, 0):
            bounds_us.append(1e6 * traffic.bytes_moved(name, T, kept=kept) / H200)
    assert bounds_us == pytest.approx(expected, abs=0.5 if T > 1e8 else 0.051)


@pytest.mark.parametrize("name", ["forward", "backward", "fixed"])
@pytest.mark.parametrize("kept", [0, 1, 500, 1000, 1500, 5000])
def test_with_all_in_flight_as_the_benchmark_counts(name, kept):
    assert traffic.bytes_moved(name, 1000, kept=kept) == least_bytes(name, 1000, kept)


@pytest.mark.parametrize(
    ("name", "in_flight", "kept", "expected"),
    [
        ("forward", 10, 10, 200),
        ("forward", 10, 4, 260),
        ("backward", 10, 20, 300),
        ("backward", 10, 10, 400),
        # Three blocks of 30, of which 5 are read again each, and one of 10, which is kept.
        ("forward", 30, 25, 215),
        ("fixed", 7, 0, 200),
    ],
)
def test_blocks(name, in_flight, kept, expected):
    assert traffic.bytes_moved(name, 100, in_flight, kept) == expected


@pytest.mark.parametrize("in_flight", [0, 101])
def test_an_impossible_block_is_refused(in_flight):
    with pytest.raises(ValueError, match="in_flight: expected 1 to 100 bytes"):
        traffic.bytes_moved("forward", 100, in_flight)


def test_an_unknown_pass_is_refused():
    with pytest.raises(ValueError, match="name: expected one of forward, backward, fixed"):
        traffic.bytes_moved("sideways", 100)


def test_each_step_drops_a_term():
    assert traffic.STEPS["textbook"] == (7, 5, 2)
    assert [sweeps.total for sweeps in traffic.STEPS.values()] == [14, 4, 3, 2]
    asked = {name: sweeps.reads + sweeps.writes for name, sweeps in traffic.STEPS.items()}
    assert asked["two sweeps"] == traffic.bytes_moved("forward", 1)
    assert asked["in blocks"] == traffic.bytes_moved("forward", 1, kept=1)


def test_the_roof():
    assert traffic.attainable(0.5, 10.0, 20.0) == 5.0
    assert traffic.attainable(4.0, 10.0, 20.0) == 20.0


# --- Recorded runs -------------------------------------------------------------------------------


def test_a_recorded_run_is_read(tmp_path):
    (tmp_path / "bench-cpu.json").write_text(json.dumps({"cases": []}), encoding="utf-8")
    assert traffic.recorded("cpu", tmp_path) == {"cases": []}


def test_a_run_that_is_not_there_says_how_to_record_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="companion bench --device cuda --json book/"):
        traffic.recorded("cuda", tmp_path)


def test_the_log_of_a_gpu_is_read(tmp_path):
    header, rows = gpu_log.read()
    assert "H200" in header
    assert len(rows) == len({row.name for row in rows}) == 48
    assert {row.layout for row in rows} == {"contiguous", "channels-last"}
    first = rows[0]
    assert (first.name, first.copy_us) == ("32x64x112x112-bfloat16", 26.4)
    assert first.copies["forward"] == {
        "ours": 1.53, "torch": 14.87, "native": 14.87, "compile": 2.14
    }  # fmt: skip
    assert first.copies["both"]["compile"] == 4.56
    assert first.gain("both") == pytest.approx(4.56 / 3.73)
    assert not any(row.name.endswith("*") for row in rows)
    device = gpu_log.gpu(header)
    assert device == (4.223e12, 132, 60 * 2**20)
    with pytest.raises(FileNotFoundError, match=gpu_log.RESNET):
        gpu_log.read(folder=tmp_path)
    with pytest.raises(ValueError, match="header: expected GB/s copied and the L2 cache"):
        gpu_log.gpu("bfloat16 on cuda")


def test_a_log_without_the_compiler_is_read():
    header, rows = gpu_log.read(gpu_log.ROWS)
    assert "torch.compile: off" in header
    assert len(rows) == len({row.name for row in rows}) == 15
    last = rows[-1]
    assert (last.name, last.copy_us) == ("8x3x512x512-channels-last", 14.0)
    assert last.copies["backward"] == {"ours": 3.20, "torch": 3.45, "native": 3.78}
    assert last.copies["both"] == {"ours": 5.59, "torch": 6.63, "native": 6.91}
    assert last.gain("both") == pytest.approx(6.63 / 5.59)
    image = rows[11 + 2]
    assert (image.name, image.gain("forward")) == ("128x3x224x224", pytest.approx(66.17 / 1.76))


# --- Steps ---------------------------------------------------------------------------------------


def parameters(C):
    return rng.uniform(0.5, 1.5, C).astype(np.float32), rng.normal(size=C).astype(np.float32)


def close(output, x, gamma, beta):
    expected = reference.forward(x, gamma, beta).y
    return np.allclose(output, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(4, 6, 100), (3, 5, 1041), (2, 1, 31), (7, 3, 1)])
@pytest.mark.parametrize("block", [1, 2, 8])
@pytest.mark.parametrize("stream", [False, True])
def test_forward_in_blocks(shape, block, stream):
    x = rng.normal(3.0, 2.0, size=shape).astype(np.float32)
    gamma, beta = parameters(shape[1])
    y = np.full_like(x, np.nan)
    steps.forward(x, gamma, beta, 1e-5, block, stream, y)
    assert close(y, x, gamma, beta)


def test_streaming_keeps_what_lies_beside_the_output():
    x = rng.normal(size=(2, 3, 5)).astype(np.float32)
    gamma, beta = parameters(3)
    scratch = np.full(x.size + 2, 7.0, dtype=np.float32)
    y = scratch[1:-1].reshape(x.shape)
    steps.forward(x, gamma, beta, 1e-5, 2, True, y)
    assert close(y, x, gamma, beta)
    assert scratch[0] == scratch[-1] == 7.0


def test_textbook():
    x = rng.normal(3.0, 2.0, size=(4, 6, 100)).astype(np.float32)
    gamma, beta = parameters(6)
    y, scratch = np.empty_like(x), np.empty_like(x)
    steps.textbook(x, gamma, beta, 1e-5, y, scratch)
    assert close(y, x, gamma, beta)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pytorch(layout):
    x = torch.randn(4, 6, 10, 10).contiguous(memory_format=layout)
    gamma, beta = parameters(6)
    y = torch.empty_like(x)
    steps.pytorch(x, gamma, beta, 1e-5, y)
    assert close(y.numpy(), x.numpy(), gamma, beta)


def test_sums():
    x = rng.normal(0.5, 2.0, size=3000).astype(np.float32)
    exact = x.astype(np.float64) - 0.5
    expected = exact.sum(), (exact**2).sum()
    assert steps.moments(x, 0.5) == pytest.approx(expected, rel=1e-9)
    assert steps.moments_float32(x, 0.5) == pytest.approx(expected, rel=1e-3)
    # Chains and a rest, chains only, a rest only.
    for part in (x, x[:1024], x[:100]):
        expected = steps.moments(part, 0.5)
        assert steps.moments_chains(part, 0.5) == pytest.approx(expected, abs=1e-7 * expected[1])
    assert steps.sum_of(x) == pytest.approx(x.astype(np.float64).sum(), rel=1e-3)


# --- Timing --------------------------------------------------------------------------------------


def test_measure_relates_to_the_unit():
    x = np.ones(100_000, dtype=np.float32)
    threads = torch.get_num_threads()
    seen = []

    def twice():
        seen.append(torch.get_num_threads())
        steps.sum_of(x)
        steps.sum_of(x)

    timings = steps.measure({"copy": lambda: steps.sum_of(x), "twice": twice}, seconds=0.05)
    assert set(timings.seconds) == {"copy", "twice"}
    assert set(timings.ratios) == {"twice"}
    assert 0.5 < timings.ratios["twice"].median < 20.0
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads


def test_measure_needs_its_unit():
    with pytest.raises(ValueError, match="unit: expected one of a, got 'copy'"):
        steps.measure({"a": lambda: None})


def test_without_numba_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "try:\n"
        "    import companion.experiments.memory_steps\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'batchnorm-companion[cpu]'" in done.stdout
