import collections
import itertools
import re

import pytest

from companion.bench import suite as module
from companion.bench.suite import Case, resnet50_layers, suite

RESNET50 = [
    *((64, 112), (64, 56), (256, 56), (128, 56), (128, 28), (512, 28)),
    *((256, 28), (256, 14), (1024, 14), (512, 14), (512, 7), (2048, 7)),
]


def paths(*arguments, **options):
    return [case.path for case in suite(*arguments, **options)]


def test_resnet50_has_53_layers_of_12_shapes():
    layers = resnet50_layers()
    assert len(layers) == 53
    assert list(dict.fromkeys(layers)) == RESNET50
    counted = collections.Counter(layers)
    assert counted[256, 14] == 11
    assert counted[1024, 14] == 7
    # Parameters of all batch normalizations, a weight and a bias per channel (torchvision's count).
    assert 2 * sum(C for C, _ in layers) == 53120


def test_the_cpu_suite_has_what_it_should():
    names = set(paths("cpu", ("float32",)))
    for N in (8, 32):
        for C, size in RESNET50:
            assert f"resnet50/{N}x{C}x{size}x{size}" in names
            assert f"resnet50/{N}x{C}x{size}x{size}-channels-last" in names
    expected = """
        planes/64x256x14x14 rows/60x100 rows/256x256 rows/1024x1024 rows/8192x512 rows/65536x64
        few-channels/128x3x224x224 few-channels/8x3x512x512-channels-last few-channels/1000000x2
        tiny/4x16x8x8 tiny/2x3x5x5 tiny/32x10 module/BatchNorm1d-60x100"""
    assert names >= set(expected.split())
    assert len(names) == 48 + 13 + 19


def test_irregular_shapes_are_in_both_layouts_and_ragged():
    cases = [case for case in suite("cpu", ("float32",)) if case.group == "irregular"]
    maps = {case.shape for case in cases if len(case.shape) == 4 and not case.channels_last}
    assert maps <= {case.shape for case in cases if case.channels_last}
    assert {size for *_, size in maps} == {20, 96}
    channels = {case.shape[1] for case in cases}
    assert {3, 17, 37, 129, 1001} <= channels
    last = {case.bytes // 2**20 for case in cases if case.channels_last}
    assert {2, 12, 28} <= last
    # Rows that end within a vector of sixteen values, each many and few.
    rows = [case.m for case in cases if len(case.shape) == 2 and case.shape[1] % 16]
    assert min(rows) < 1000
    assert max(rows) > 100_000


# The name of a mark that needs a device would be taken for that mark.
@pytest.mark.parametrize("device", ["cpu", "cuda"], ids=["for CPUs", "for GPUs"])
def test_names_are_unique_and_groups_are_together(device):
    cases = suite(device, ("bfloat16", "float32"))
    assert len({case.name for case in cases}) == len(cases)
    groups = [case.group for case in cases if case.dtype == "float32"]
    runs = sum(one != other for one, other in itertools.pairwise(groups)) + 1
    assert runs == len(set(groups))


def test_the_cuda_suite_has_two_batch_sizes_and_types():
    names = paths("cuda", ("bfloat16", "float32"))
    assert "resnet50/256x64x112x112-bfloat16" in names
    assert "resnet50/32x2048x7x7-channels-last" in names
    assert not [path for path in names if re.search("/8x.*x7x7|module", path)]


@pytest.mark.parametrize("device", ["cpu", "cuda"], ids=["for CPUs", "for GPUs"])
def test_the_quick_suite_is_a_selection(device):
    quick, full = (paths(device, ("float32",), quick=quick) for quick in (True, False))
    assert set(quick) < set(full)
    assert 8 <= len(quick) <= 16


def test_every_case_of_the_quick_suite_exists():
    assert set(paths("cpu", ("float32",), quick=True)) == module._QUICK


def test_a_case_knows_its_size():
    case = Case("rows", (8, 3, 5, 5), channels_last=True, dtype="bfloat16")
    assert (case.m, case.bytes) == (200, 1200)
    assert case.name == "8x3x5x5-channels-last-bfloat16"
    assert case.layout == "channels-last"
    assert Case("rows", (8, 3), dtype="float64").bytes == 192
    assert Case("module", (60, 100), module=True).path == "module/BatchNorm1d-60x100"
