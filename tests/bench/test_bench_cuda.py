from types import SimpleNamespace

import pytest
import torch
from _documents import GPU

from companion.bench import cuda
from companion.bench.suite import Case

MB = 10**6
H200 = {**GPU, "bandwidth_bytes_per_s": 4.3e12, "launch_us": 0.0}


# The table of bounds in the design of the kernels: bfloat16, all on chip / nothing on chip.
@pytest.mark.parametrize(
    ("shape", "megabytes", "forward", "backward"),
    [
        ((32, 2048, 7, 7), 6.4, (3.0, 4.5), (4.5, 7.5)),
        ((32, 64, 56, 56), 12.8, (6.0, 9.0), (9.0, 14.9)),
        ((32, 512, 28, 28), 25.7, (11.9, 17.9), (17.9, 29.9)),
        ((32, 256, 56, 56), 51.4, (23.9, 35.8), (35.8, 59.7)),
        ((256, 256, 56, 56), 411, (191, 287), (287, 478)),
    ],
)
def test_bounds_are_traffic_over_bandwidth(shape, megabytes, forward, backward):
    T = Case("resnet50", shape, dtype="bfloat16").bytes
    assert pytest.approx(T / MB, rel=0.01) == megabytes
    for on_chip, place in ((10**12, 0), (0, 1)):
        gpu = {**H200, "on_chip_bytes": on_chip}
        assert cuda.bound("forward", T, gpu) == pytest.approx(forward[place], rel=0.01)
        assert cuda.bound("backward", T, gpu) == pytest.approx(backward[place], rel=0.01)
        both = cuda.bound("forward", T, gpu) + cuda.bound("backward", T, gpu)
        assert cuda.bound("both", T, gpu) == pytest.approx(both)
        assert cuda.bound("fixed", T, gpu) == pytest.approx(forward[0], rel=0.01)


def test_what_is_kept_on_chip_is_not_read_again():
    # Forward x is kept, backward x and grad_y.
    assert cuda.least_bytes("forward", 100, 30) == 270
    assert cuda.least_bytes("backward", 100, 130) == 370
    assert cuda.least_bytes("backward", 100, 1000) == 300
    assert cuda.least_bytes("both", 100, 130) == 200 + 370
    for name in ("forward", "backward", "both", "fixed"):
        assert cuda.least_bytes(name, 100, 10**9) == cuda.useful_bytes(name, 100)


def test_launches_are_part_of_the_bound():
    launched = {**H200, "launch_us": 2.0}
    for name, launches in (("forward", 1), ("backward", 1), ("both", 2), ("fixed", 1)):
        more = cuda.bound(name, MB, launched) - cuda.bound(name, MB, H200)
        assert more == pytest.approx(2.0 * launches)


def test_fractions_of_the_bound_and_of_the_bandwidth():
    case = Case("rows", (1000, 1000))
    gpu = {**GPU, "bandwidth_bytes_per_s": 1e12, "launch_us": 2.0}
    # 4 MB are read and 4 MB written in 8 µs at best.
    description = cuda.describe(gpu, "forward", case, 20.0)
    assert description["bound_us"] == pytest.approx(10.0)
    assert description["bound_fraction"] == pytest.approx(0.5)
    assert description["bandwidth_fraction"] == pytest.approx(0.4)


@pytest.mark.parametrize("l2_bytes", [6 * 2**20, 50 * 2**20])
@pytest.mark.parametrize("tensor_bytes", [2**20, 3 * 10**6, 12845056, 411 * MB])
def test_rotated_tensors_exceed_the_cache_fourfold(tensor_bytes, l2_bytes):
    sets = cuda.count_sets(tensor_bytes, l2_bytes)
    assert sets * tensor_bytes > 4 * l2_bytes
    assert sets == 1 or (sets - 1) * tensor_bytes <= 4 * l2_bytes


def test_there_are_always_some_sets_and_never_too_many():
    assert cuda.count_sets(10**9, 50 * 2**20) == 1
    assert cuda.count_sets(100, 50 * 2**20) == 256


def test_the_chip_s_memory_is_what_torch_says_or_what_the_guide_says():
    told = SimpleNamespace(
        multi_processor_count=10, regs_per_multiprocessor=1000, shared_memory_per_multiprocessor=500
    )
    assert cuda.on_chip_bytes(told) == 10 * (4000 + 500)
    # 132 multiprocessors with 256 KiB of registers and 228 KiB of shared memory each.
    silent = SimpleNamespace(multi_processor_count=132)
    assert cuda.on_chip_bytes(silent) / 2**20 == pytest.approx(33 + 29, abs=0.5)


@pytest.mark.cuda
def test_a_graph_makes_every_call_and_keeps_every_output():
    with cuda.side_stream():
        totals = [torch.zeros(1, device="cuda") for _ in range(3)]
        timer = cuda.graph_timer([lambda total=total: total.add_(1.0) for total in totals])
        assert timer.calls == 3
        before = [total.item() for total in totals]
        assert timer.run(5) > 0
        assert [total.item() - was for total, was in zip(totals, before, strict=True)] == [5] * 3
        pointers = []
        x = torch.ones(1000, device="cuda")
        calls = [lambda: pointers.append((y := x + 1).data_ptr()) or y for _ in range(4)]
        cuda.graph_timer(calls)
        assert len(set(pointers[4:])) == 4


@pytest.mark.cuda
def test_the_device_is_described():
    with cuda.side_stream():
        description = cuda.gpu()
    assert description["bandwidth_bytes_per_s"] > 1e10
    assert 0 < description["launch_us"] < 100
    assert description["l2_bytes"] > 2**18
