"""The CPU kernels where they differ from others: numerics, threads, plans, compiled code.

What every kernel module promises is in ``test_contract.py``.
"""

import itertools
import sys

import numba
import numpy as np
import pytest
import torch
from _contract import random
from _layer import numpy64
from _passes import Passes
from torch.nn import functional as F

from companion import reference
from companion.kernels.interface import Running

cpu = pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
from companion.kernels.cpu import plans, runtime  # noqa: E402
from companion.kernels.cpu.plans import plan  # noqa: E402

passes = Passes(cpu)

EPS = 1e-5
# Relative to the largest value; half precision is rounded once, at the end.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 3e-7,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def batch(shape, dtype=torch.float64, last=False, seed=0):
    return random(shape, dtype, seed, offset=2.0, channels_last=last)


def parameters(channels, dtype):
    generator = torch.Generator().manual_seed(5)
    kind = torch.float64 if dtype is torch.float64 else torch.float32
    return [torch.randn(channels, generator=generator, dtype=kind) + 1.0 for _ in range(2)]


def close(result, exact, dtype):
    result, exact = result.double(), torch.as_tensor(exact).double()
    assert result.shape == exact.shape
    assert (result - exact).abs().max() <= TOLERANCE[dtype] * exact.abs().max().clamp(min=1.0)


def oracle(x, weight, bias, grad_y):
    """Output and the gradient of `x`, in float64."""
    batch = reference.forward(*(None if t is None else numpy64(t) for t in (x, weight, bias)), EPS)
    return torch.from_numpy(batch.y), reference.backward(numpy64(grad_y), batch).x


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_stores_past_the_cache_write_the_same(stream, dtype, monkeypatch):
    """Whole cache lines, ragged ends, and vectors of two channels, from every alignment."""
    monkeypatch.setattr(plans, "_LARGE", (0 if stream else 2**62,) * 3)
    cpu.Pass.over.cache_clear()
    for shape in [(3, 5, 13, 17), (3, 24, 13, 17), (4, 33), (90, 37), (9, 1001), (2, 2, 65541)]:
        size = int(np.prod(shape))
        for shift in (0, 1, 7):
            storage = torch.empty(size + shift, dtype=dtype)
            x = storage[shift:].view(shape).copy_(batch(shape, dtype))
            grad_y = batch(shape, dtype, seed=1)
            y, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
            grads = passes.batch_backward(grad_y, x, None, mean, var, None, None, EPS, False, False)
            expected, grad_x = oracle(x, None, None, grad_y)
            close(y, expected, dtype)
            close(grads.x, grad_x, dtype)
    cpu.Pass.over.cache_clear()


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_the_run():
    x, grad_y = batch((512, 12), torch.float32), batch((512, 12), torch.float32, seed=1)
    runs = []
    for _ in range(3):
        y, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
        grads = passes.batch_backward(grad_y, x, None, mean, var, None, None, EPS, False, False)
        runs.append((y, mean, var, grads.x, grads.weight, grads.bias))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 13, 17)])
def test_gradient_in_another_layout(shape):
    x, grad_y = batch(shape), batch(shape, seed=1)
    _, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
    plain = passes.batch_backward(grad_y, x, None, mean, var, None, None, EPS, False, False)
    other = grad_y.transpose(0, 1).contiguous().transpose(0, 1)
    expanded = torch.ones(1).double().expand(shape)
    same = passes.batch_backward(other, x, None, mean, var, None, None, EPS, False, False)
    assert torch.equal(same.x, plain.x)
    constant = passes.batch_backward(expanded, x, None, mean, var, None, None, EPS, False, False)
    assert constant.x.abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 13, 17), (3, 4, 5, 6)])
def test_nan_and_infinity_stay_in_their_channel(shape):
    for bad in (float("nan"), float("inf")):
        for dtype in (torch.float32, torch.bfloat16):
            x = batch(shape, dtype)
            x[1, 2] = bad
            y, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
            assert y[:, 2].isnan().all()
            assert not mean[2].isfinite()
            assert var[2].isnan()
            others = [0, 1, 3]
            assert y[:, others].isfinite().all()
            relu, _, _ = passes.batch_forward(x, None, None, None, None, EPS, True)
            assert relu[:, 2].isnan().all()


SUMMED = [((3, 5, 13, 17), False), ((2, 2, 5000), False), ((3, 5, 13, 17), True), ((700, 3), False)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("shape", "last"), SUMMED)
@pytest.mark.parametrize("scale", [1e25, 3e-22])
def test_sums_outside_the_range_of_float32(shape, last, scale):
    """1e50 has no float32 value, and 1e-43 one of six bits; in float64 both are ordinary."""
    x, grad_y = batch(shape, torch.float32, last), batch(shape, torch.float32, last, seed=1)
    x, grad_y = x * scale, grad_y * 1e20
    y, mean, var = passes.batch_forward(x, None, None, None, None, 0.0, False)
    exact = reference.forward(x.double().numpy(), eps=0.0)
    close(y, exact.y, torch.float32)
    for batch_moment, moment in zip(
        (mean, var), reference.moments(x.double().numpy()), strict=True
    ):
        np.testing.assert_allclose(batch_moment, moment, rtol=1e-9)
    ones = torch.ones(shape[1], dtype=torch.float64)
    gradients = passes.batch_backward(grad_y, x, None, mean, var, ones, ones, 0.0, False, False)
    grads = reference.backward(grad_y.double().numpy(), exact)
    for sums, exact_sums in ((gradients.weight, grads.gamma), (gradients.bias, grads.beta)):
        np.testing.assert_allclose(sums, exact_sums, rtol=1e-5)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("shape", "last", "values", "averaged"),
    [((2, 2, 5000), False, 5000, 16), ((4000, 3), False, 4000, 4), ((3, 5, 40, 40), True, 4800, 4)],
)
def test_sums_about_a_value_far_from_the_mean(shape, last, values, averaged):
    """Where the shift is chosen from outliers, float32 does not do: the variance would cancel."""
    x = batch(shape, torch.float32, last)
    step = (values - averaged) // 2
    for first in (0, step, 2 * step):
        for i in range(first, first + averaged):
            if x.ndim == 4:
                x[i // 1600, :, i % 1600 // 40, i % 40] = 3e4
            else:
                x[(0, slice(None), i) if x.ndim == 3 else i] = 3e4
    _, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
    exact = reference.moments(x.double().numpy())
    np.testing.assert_allclose(mean, exact[0], rtol=1e-12)
    np.testing.assert_allclose(var, exact[1], rtol=1e-9)


def rounding(size):
    """What one rounding of float32 changes at most in a number of that size."""
    return torch.as_tensor(size).abs() * 2.0**-24


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("shape", "last"), SUMMED)
@pytest.mark.parametrize("mean", [0.0, 0.5, 100.0])
def test_results_are_rounded_once_and_their_constants_once(shape, last, mean):
    x = ((batch(shape, torch.float64, last) - 2.0) / 1.5 + mean).float()
    weight, bias = parameters(shape[1], torch.float32)
    y, batch_mean, var = passes.batch_forward(x, weight, bias, None, None, EPS, False)
    exact, _ = oracle(x, weight, bias, torch.zeros_like(x))
    slope = weight.double() / (var + EPS).sqrt()
    within = batch_mean.abs() <= var.sqrt()
    constant = bias.double() - torch.where(within, batch_mean * slope, 0.0)
    like = [1, -1] + [1] * (x.ndim - 2)
    allowed = rounding(exact) + rounding(constant).view(like)
    # x less the mean is exact where x is half the mean to twice the mean.
    allowed = allowed + torch.where(within, 0.0, 1.0).view(like) * rounding(exact) * (mean < 50)
    assert ((y.double() - exact).abs() <= 1.1 * allowed + 1e-8).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("shape", "last"), [((32, 10), False), ((2, 5, 7, 9), False), ((2, 5, 7, 9), True)]
)
def test_few_values_are_the_nearest_to_the_exact_ones(shape, last, relu, training):
    x = batch(shape, torch.float32, last) + 0.3
    weight, bias = parameters(shape[1], torch.float32)
    if training:
        y, _, _ = passes.batch_forward(x, weight, bias, None, None, EPS, relu)
        exact = reference.forward(*(t.double().numpy() for t in (x, weight, bias)), EPS).y
    else:
        given = torch.linspace(-1.0, 2.0, shape[1]), torch.linspace(0.1, 3.0, shape[1])
        y = passes.fixed_forward(x, *given, weight, bias, None, EPS, relu)
        exact = reference.inference(*(t.double().numpy() for t in (x, *given, weight, bias)), EPS)
    if relu:
        exact = np.maximum(exact, 0.0)
    nearest = exact.astype(np.float32)
    assert np.abs(y.numpy() - exact).max() > 0.0
    assert (np.abs(y.numpy() - exact) <= 0.5001 * np.spacing(np.abs(nearest))).all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(6, 16), (3, 16, 13, 17)])
def test_an_infinite_bias(shape, training):
    x = batch(shape, torch.float32)
    weight, bias = parameters(16, torch.float32)
    bias[1], bias[3] = float("inf"), float("-inf")
    expected = F.batch_norm(x, torch.zeros(16), torch.ones(16), weight, bias, training, 0.1, EPS)
    if training:
        y, _, _ = passes.batch_forward(x, weight, bias, None, None, EPS, False)
    else:
        zeros, ones = torch.zeros(16).double(), torch.ones(16).double()
        y = passes.fixed_forward(x, zeros, ones, weight, bias, None, EPS, False)
    assert expected[:, [1, 3]].isinf().all()
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("shape", [(6, 16), (3, 16, 13, 17)])
def test_infinite_values_stay_infinite_in_evaluation(shape):
    x = batch(shape, torch.float32)
    x[0], x[1] = float("inf"), float("-inf")
    statistics = torch.full((16,), 0.3).double(), torch.full((16,), 1.7).double()
    weight, bias = parameters(16, torch.float32)
    y = passes.fixed_forward(x, *statistics, weight, bias, None, EPS, False)
    infinite = (weight.sign() * float("inf")).view([16] + [1] * (x.ndim - 2))
    assert (y[0] == infinite).all()
    assert (y[1] == -infinite).all()
    assert y[2:].isfinite().all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics(kind, momentum):
    x = batch((50, 3), torch.float32)
    state = torch.full((3,), 0.5).to(kind), torch.full((3,), 2.0).to(kind)
    count = torch.tensor(3)
    _, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
    running = Running(*state, count, momentum, False)
    versions = [tensor._version for tensor in (*state, count)]
    passes.batch_forward(x, None, None, None, running, EPS, False)
    share = 0.25 if momentum is None else momentum
    for average, batch_value, former in zip(state, (mean, var * 50 / 49), (0.5, 2.0), strict=True):
        expected = (1 - share) * former + share * batch_value
        torch.testing.assert_close(average.double(), expected, rtol=4e-3, atol=1e-9)
        if kind is torch.float32:
            assert torch.equal(average, expected.to(kind))
    assert count.item() == 4
    assert all(t._version > v for t, v in zip((*state, count), versions, strict=True))


def test_running_statistics_skip_and_clamp():
    state, count = (torch.zeros(2), torch.ones(2)), torch.tensor(0)
    bad = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    passes.batch_forward(bad, None, None, None, Running(*state, count, 0.1, True), EPS, False)
    assert (state[0] == 0).all()
    assert count.item() == 0
    large = torch.tensor([[1e30, 1.0], [-1e30, 3.0]])
    passes.batch_forward(large, None, None, None, Running(*state, count, 1.0, False), EPS, False)
    assert state[1][0] == torch.finfo(torch.float32).max
    assert state[1][1] == 2.0


@pytest.mark.parametrize("bits", [np.int16, np.uint16])
def test_every_half_precision_number_survives(bits):
    """Read, centred about 0 with slope 1, and written, each of the 65,536 comes back."""
    dtype = torch.float16 if bits is np.int16 else torch.bfloat16
    x = torch.from_numpy(np.arange(2**16, dtype=np.int64).astype(np.uint16).view(np.int16))
    x = x.view(dtype).view(-1, 1)
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    y = passes.fixed_forward(x, zero, one, None, None, None, 0.0, False)
    finite = x.isfinite()
    assert torch.equal(y[finite], x[finite])
    assert torch.equal(y[x.isinf()], x[x.isinf()])
    assert y[x.isnan()].isnan().all()
    # And float32 values round as PyTorch rounds them, ties to even.
    halves = torch.linspace(-3.0, 3.0, 9973).to(dtype).view(-1, 1)
    third = passes.fixed_forward(halves, zero, one * 9.0, None, None, None, 0.0, False)
    assert torch.equal(third, (halves.float() * np.float32(1 / 3)).to(dtype))


@pytest.mark.parametrize(
    ("shape", "last", "tensors", "threads"),
    itertools.product(
        [(32, 64, 56, 56), (128, 3, 224, 224), (8192, 512), (32, 2048, 7, 7), (1, 2, 9, 9)],
        [False, True],
        [0, 1, 2],
        [1, 2, 64],
    ),
)
def test_plans_cover_every_value_once(shape, last, tensors, threads):
    cut = plan(shape, last and len(shape) > 2, 4, tensors, threads)
    assert cut.size == np.prod(shape)
    assert cut.m * cut.channels == cut.size
    assert (cut.blocks - 1) * cut.block < cut.channels <= cut.blocks * cut.block
    assert (cut.chunks - 1) * cut.chunk < cut.rows <= cut.chunks * cut.chunk
    assert cut.block <= plans.COLUMNS
    if cut.width:
        assert (cut.rows - 1) * cut.width < cut.size <= cut.rows * cut.width
        assert min(cut.width, cut.block * cut.inner) <= plans.COLUMNS
    else:
        assert cut.tile <= plans.TILE
        assert (cut.tiles - 1) * cut.tile < cut.inner <= cut.tiles * cut.tile
        assert cut.rows == cut.tiles * shape[0]


@pytest.mark.parametrize("shape", [(8, 64, 56, 56), (8, 1024, 14, 14), (32, 512, 14, 14)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("tensors", [0, 1, 2])
def test_threads_have_equal_shares(shape, last, tensors):
    cut = plan(shape, last, 4, tensors, 2)
    shares = -(-cut.blocks * cut.chunks // 2)
    busiest = shares * cut.chunk * cut.block
    assert busiest <= 1.05 * cut.rows * cut.channels / 2


def test_one_thread_does_not_cut_what_fits_the_cache():
    assert plan((4, 16, 8, 8), False, 4, 2, threads=2).blocks == 1
    assert plan((64, 256, 14, 14), False, 4, 2, threads=2).blocks >= 8


def test_blocks_for_the_second_cache_where_it_is_large(monkeypatch):
    for second, expected in ((2**20, 2**22), (2**21, 2**20), (2**22, 2**21)):
        monkeypatch.setattr(plans.caches, "sizes", lambda second=second: {2: second})
        assert plans._block_bytes() == expected
    monkeypatch.setattr(plans.caches, "sizes", dict)
    assert plans._block_bytes() == 2**22


def test_what_is_large_depends_on_the_caches(monkeypatch):
    for sizes, limits in (
        ({2: 2**20, 3: 2**25}, (16, 12, 8)),
        ({2: 2**20, 3: 2**23}, (4, 3, 2)),
        ({2: 2**20, 3: 2**28}, (16, 12, 8)),
        ({2: 2**21, 3: 2**28}, (8, 4, 8 / 3)),
        ({}, (16, 12, 8)),
    ):
        monkeypatch.setattr(plans.caches, "sizes", lambda sizes=sizes: sizes)
        assert plans._large() == tuple(int(limit * 2**20) for limit in limits)


@pytest.mark.usefixtures("threads")
def test_python_threads_do_where_there_is_no_openmp(monkeypatch):
    x = batch((3, 5, 40, 40))
    expected = passes.batch_forward(x, None, None, None, None, EPS, False)[0]
    monkeypatch.setattr(runtime, "_openmp", lambda: (None, None))
    monkeypatch.setattr(cpu, "pool", runtime.Threads())
    assert torch.equal(passes.batch_forward(x, None, None, None, None, EPS, False)[0], expected)


@pytest.mark.parametrize("shape", [(3, 5, 40, 40), (37, 3), (2, 40, 3, 3)])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_thread_does_what_others_do_not(monkeypatch, shape, number):
    """OpenMP may give fewer threads than asked for; this one is the only one of three."""
    x, grad_y = batch(shape), batch(shape, seed=1)

    def both():
        y, mean, var = passes.batch_forward(x, None, None, None, None, EPS, False)
        gradients = passes.batch_backward(grad_y, x, y, mean, var, None, None, EPS, False, False)
        return y, mean, var, gradients.x

    expected = both()

    @numba.cfunc("int32()")
    def own_number():
        return number

    class Alone:
        thread_number = own_number.address

        def run(self, function, job, threads):
            assert threads == 3
            function.call(job)

    monkeypatch.setattr(plans, "_VALUES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(cpu, "pool", Alone())
    cpu.Pass.over.cache_clear()
    results = both()
    cpu.Pass.over.cache_clear()
    for ours, other in zip(results, expected, strict=True):
        close(ours, other, x.dtype)


@pytest.mark.parametrize(
    ("channels", "width"),
    [(3, 240), (5, 240), (64, 256), (100, 400), (17, 272), (129, 903), (1001, 1001)],
)
def test_joined_rows_are_whole_lines_if_they_may_be(channels, width):
    assert plan((10**5, channels), False, 4, 1, 2).width == width


def test_openmp_is_pytorchs():
    """On Linux, PyTorch brings OpenMP, and its threads are used."""
    if sys.platform != "linux":
        pytest.skip("PyTorch's OpenMP library has other names elsewhere")
    assert runtime._openmp()[0] is not None


def allocated(function):
    """Bytes of all tensors that a call allocates, kept or not."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        result = function()
    del result
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())


@pytest.mark.parametrize(("shape", "last"), [((4, 64, 32, 32), False), ((4, 64, 32, 32), True)])
@pytest.mark.parametrize("relu", [False, True])
def test_no_room_of_the_activations_size_but_for_results(shape, last, relu):
    x, grad_y = batch(shape, torch.float32, last), batch(shape, torch.float32, last, seed=1)
    residual = batch(shape, torch.float32, last, seed=2) if relu else None
    weight, bias = parameters(shape[1], torch.float32)
    forward = (x, weight, bias, residual, None, None, EPS, relu)
    y, statistics = cpu.normalize(*forward)
    backward = (grad_y, x, y if relu else None, statistics, weight, bias, EPS, relu, relu, True)
    cpu.differentiate(*backward)
    least = x.numel() * x.itemsize
    assert least <= allocated(lambda: cpu.normalize(*forward)) <= 1.05 * least
    results = 2 if relu else 1
    size = allocated(lambda: cpu.differentiate(*backward))
    assert results * least <= size <= (results + 0.05) * least
