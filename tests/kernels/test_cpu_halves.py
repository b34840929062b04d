"""Each sweep of the CPU kernels by itself: together they are the whole pass, to the last bit."""

import pytest
import torch
from _layer import layouts

from companion.kernels import eager

cpu = pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
from companion.kernels.cpu import plans  # noqa: E402

EPS = 1e-5
SHAPES = [(60, 5), (7, 20, 9), (5, 3, 40, 30), (2, 400, 3, 5), (3, 2, 2, 3, 4), (70000, 2)]
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def batch(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    return values[0].mul(3.0).add(2.0).to(dtype), values[1].to(dtype)


@pytest.fixture(params=[1, 2])
def _threads(request, monkeypatch):
    """One thread and two; the second also for small tensors, which then have several chunks."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    if request.param > 1:
        monkeypatch.setattr(plans, "_VALUES_PER_THREAD", 1)
        monkeypatch.setattr(plans, "_VALUES_PER_THREAD_ONCE", 1)
    cpu.Pass.over.cache_clear()
    yield
    torch.set_num_threads(before)
    cpu.Pass.over.cache_clear()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_halves_make_the_whole(shape, dtype):
    x, grad_y = batch(shape, dtype)
    weight = torch.linspace(0.5, 2.0, shape[1], dtype=torch.float64)
    for name, given in layouts(x).items():
        _, whole = cpu.normalize(given, weight, None, None, None, None, EPS, False)
        statistics = cpu.moments(given)
        assert torch.equal(statistics, whole), name
        gradients = cpu.differentiate(
            grad_y, given, None, statistics, weight, weight, EPS, False, False, True
        )
        sums = cpu.gradient_sums(grad_y, given, statistics, EPS)
        assert torch.equal(sums, torch.stack([gradients.bias, gradients.weight])), name
        grad_x = cpu.project(grad_y, given, statistics, weight, sums, EPS)
        assert torch.equal(grad_x, gradients.x), name
        assert grad_x.stride() == gradients.x.stride(), name


def test_sums_of_more_values_are_scaled_by_the_share():
    x, grad_y = batch((40, 3, 5), torch.float64)
    parts, grads = x.split([10, 30]), grad_y.split([10, 30])
    statistics = cpu.moments(x)
    pairs = list(zip(grads, parts, strict=True))
    sums = sum(cpu.gradient_sums(g, part, statistics, EPS) for g, part in pairs)
    whole = cpu.differentiate(grad_y, x, None, statistics, None, None, EPS, False, False, True)
    for (g, part), expected in zip(pairs, whole.x.split([10, 30]), strict=True):
        share = eager.values_per_channel(part) / eager.values_per_channel(x)
        grad_x = cpu.project(g, part, statistics, None, sums * share, EPS)
        torch.testing.assert_close(grad_x, expected, rtol=1e-12, atol=1e-13)
