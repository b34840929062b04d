"""The CUDA kernels, however they cut, and their numerics: in Triton's interpreter, or on a GPU.

The interpreter runs the same kernels on CPU tensors, slowly. Thresholds are lowered so that small
tensors take every path. What every kernel module promises is in ``test_contract.py``.
"""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from companion import reference
from companion.kernels.interface import Running

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

import _contract
from _contract import Case, Given, check, given
from _cuda_interpreter import DEVICE, cuda_kernels
from _passes import Passes

# The interpreter computes with NumPy, which warns of NaN and infinity.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# The lines that others run, with other values; and coverage would double their time.
slow = (
    pytest.mark.slow(reason="seconds in the interpreter, which the kernels alone can change"),
    pytest.mark.no_cover,
)


def mostly_slow(short, everything):
    """Cases of which only some are in the short run."""
    return [case if case in short else pytest.param(case, marks=slow) for case in everything]


EPS = 1e-5
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def module():
    with cuda_kernels() as kernels:
        yield kernels


@pytest.fixture(params=mostly_slow(["meeting"], ["meeting", "split"]))
def cuda(request, module, monkeypatch):
    """The kernels, made to take one of the two paths by small tensors too."""
    return take(request.param, module, monkeypatch)


def take(path, module, monkeypatch):
    plan = sys.modules[module.plan.__module__]
    # Small tiles of one warp: several tiles in each of several parts.
    monkeypatch.setattr(plan, "_WARPS", 1)
    monkeypatch.setattr(plan, "_TILE_BYTES", 512)
    monkeypatch.setattr(plan, "_MEETING_SHARE", 0.01)
    monkeypatch.setattr(module, "_multiprocessors", lambda _device: 4)
    if path == "split":
        monkeypatch.setattr(plan, "_meeting", lambda *_: None)
    for name in ("_ALONE", "_SHARING", "_NARROW", "_TOGETHER"):
        small = getattr(plan, name)._replace(warps=1, bytes=(48, 96))
        monkeypatch.setattr(plan, name, small)
    for name in ("_MOST_PARTS", "_MOST_PARTS_TOGETHER"):
        monkeypatch.setattr(plan, name, 10**6)
    monkeypatch.setattr(plan, "_MOST_WAVES_TOGETHER", (10**6, 10**6))
    plan.plan.cache_clear()
    return module


@pytest.fixture(autouse=True)
def _no_stale_plans(module):
    module._tile.cache_clear()
    yield
    module._tile.cache_clear()
    module.plan.cache_clear()


def random(shape, dtype=torch.float32, seed=0, *, offset=0.5, **more):
    return _contract.random(shape, dtype, seed, device=DEVICE, offset=offset, **more)


def with_channels_last(x):
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def parameters(C, dtype=torch.float32):
    return random((C,), dtype, seed=1, offset=1.0), random((C,), dtype, seed=2)


def as_array(tensor):
    return None if tensor is None else tensor.double().cpu().numpy()


def assert_close(values, expected, tolerance):
    """|values - expected| ≤ tolerance·(1 + |expected|), and NaN where NaN is expected."""
    values = as_array(values) if isinstance(values, torch.Tensor) else values
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


def check_training(cuda, x, grad_y=None, weight=None, bias=None, residual=None, slack=1.0):
    """Both passes over these tensors; with a residual, and a ReLU, too."""
    relu = residual is not None
    grad_y = random(x.shape, x.dtype, 1) if grad_y is None else grad_y
    arguments = Given(x, grad_y, weight, bias, residual, None, None)
    return check(cuda, Case(tuple(x.shape), x.dtype, relu=relu, residual=relu), arguments, slack)


SHAPES = {
    "planes": ((4, 3, 5, 7), False),
    "planes in pieces": ((3, 2, 11, 31), False),
    "one sample": ((1, 3, 6, 7), False),
    "one channel": ((4, 1, 6, 6), False),
    "channel of many parts": ((16, 1, 10, 13), False),
    "rows": ((37, 40), False),
    "rows in blocks": ((9, 300), False),
    "folded rows": ((150, 3), False),
    "folded samples": ((45, 3, 2, 2), False),
    "neighbouring channels": ((6, 40, 5), False),
    "two values": ((2, 3), False),
    "one position": ((5, 4, 1, 1), False),
    "channels last": ((3, 40, 4, 3), True),
    "few channels last": ((4, 3, 5, 5), True),
    "five axes, channels last": ((2, 3, 2, 3, 4), True),
}


def case(name, *options, **more):
    shape, channels_last = SHAPES[name]
    return Case(shape, *options or (torch.float32,), channels_last, **more)


# Of a path's two kinds of blocks, planes and rows, one that is easy to cut and one that is not.
SHORT = ("planes in pieces", "rows", "folded rows", "few channels last")


@pytest.mark.parametrize("cuda", ["meeting", "split"], indirect=True)
@pytest.mark.parametrize("name", mostly_slow(SHORT, SHAPES))
def test_every_way_of_cutting(cuda, name):
    check(cuda, case(name), given(case(name), DEVICE))


FIXED = [case(name, fixed=True) for name in [*SHAPES][1::2]]
FUSED = [
    case(name, **fused, fixed=fixed)
    for name in ("planes", "rows", "few channels last")
    for fused in ({"relu": True}, {"residual": True}, {"relu": True, "residual": True})
    for fixed in (False, True)
]
TRAINED = [case(name, dtype) for name in SHORT[:3] for dtype in TOLERANCE]
MOVED = [
    case(name, running=True, momentum=momentum)
    for name in ("planes", "rows in blocks")
    for momentum in (0.3, None, 1)
]


@pytest.mark.parametrize(
    "case",
    mostly_slow(
        [FIXED[-1], case("rows", relu=True, residual=True), *MOVED[:2]],
        [*FIXED, *FUSED, *TRAINED, *MOVED],
    ),
    ids=str,
)
def test_every_request(cuda, case):
    check(cuda, case, given(case, DEVICE))


@pytest.mark.parametrize("name", mostly_slow(SHORT[:1], ["planes in pieces", "folded rows"]))
def test_shares_are_added_in_several_rounds(cuda, name, monkeypatch):
    """As for many parts."""
    monkeypatch.setattr(cuda, "_MERGED_VALUES", 4)
    check(cuda, case(name), given(case(name), DEVICE))


def test_last_part_is_shorter_by_a_tile(cuda):
    check_training(cuda, random((2, 2, 512)), None, *parameters(2))


def test_held_tiles_are_added_in_several_groups(cuda, monkeypatch):
    monkeypatch.setattr(cuda, "_GROUPED_VALUES", 1)
    check(cuda, case("planes in pieces"), given(case("planes in pieces"), DEVICE))


@pytest.mark.parametrize(
    "name", mostly_slow(["folded rows"], ["planes in pieces", "rows in blocks", "folded rows"])
)
def test_long_offsets(cuda, name, monkeypatch):
    """As for activations of more than 2^31 values."""
    monkeypatch.setattr(cuda, "_MOST_SHORT_OFFSETS", 0)
    check(cuda, case(name), given(case(name), DEVICE))


@pytest.mark.parametrize("dtype", mostly_slow([torch.bfloat16], [torch.float16, torch.bfloat16]))
@pytest.mark.parametrize("name", mostly_slow(["rows"], SHORT[:3]))
def test_parameters_of_half_precision(cuda, dtype, name):
    arguments = given(case(name, dtype), DEVICE)
    weight, bias = arguments.weight.to(dtype), arguments.bias.to(dtype)
    check(cuda, case(name, dtype), arguments._replace(weight=weight, bias=bias))


def test_one_of_the_parameters(cuda):
    x = random((4, 3, 5, 7))
    weight, bias = parameters(3)
    check_training(cuda, x, None, weight, None)
    check_training(cuda, x, None, None, bias)


def test_layouts_that_are_not_dense(cuda):
    whole = random((4, 6, 5, 8))
    weight, bias = parameters(6)
    for x in (whole[:, ::2], whole[..., ::2], whole.transpose(2, 3), whole.transpose(0, 2)):
        C = x.shape[1]
        y = check_training(cuda, x, None, weight[:C], bias[:C])["y"]
        assert y.is_contiguous()
    for x in (with_channels_last(whole)[::2], with_channels_last(whole)[:, :, :3]):
        y = check_training(cuda, x, None, weight, bias)["y"]
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_gradient_and_residual_in_another_layout(cuda):
    weight, bias = parameters(3)
    x, grad_y = random((4, 3, 5, 7)), random((4, 3, 5, 7), seed=3)
    check_training(cuda, x, with_channels_last(grad_y), weight, bias)
    residual = random(x.shape, seed=6)
    check_training(cuda, with_channels_last(x), grad_y, weight, bias, residual)
    check_training(cuda, x, grad_y[:1, :1, :1, :1].expand(x.shape), weight, bias)


def test_parameters_that_are_not_dense(cuda):
    x = random((4, 3, 5, 7))
    pairs = torch.stack(parameters(3), 1)
    check_training(cuda, x, None, pairs[:, 0], pairs[:, 1])
    check_training(cuda, x, None, pairs[0, :1].expand(3), pairs[:, 1])


def test_misaligned_input(cuda):
    storage = random((1 + 4 * 3 * 64,))
    check_training(cuda, storage[1:].reshape(4, 3, 8, 8), None, *parameters(3))


# --- ReLU and residual ---------------------------------------------------------------------------


def test_relu_keeps_nan_and_lets_its_gradient_pass(cuda):
    x, grad_y = random((4, 2, 5, 7)), random((4, 2, 5, 7), seed=3)
    x[1, 1, 2, 3] = float("nan")
    y, mean, var = Passes(cuda).batch_forward(x, None, None, None, None, EPS, True)
    assert y[:, 1].isnan().all()
    assert y[:, 0].isfinite().all()
    grads = Passes(cuda).batch_backward(grad_y, x, y, mean, var, None, None, EPS, True, True)
    assert torch.equal(grads.residual[:, 1], grad_y[:, 1])
    assert torch.equal(grads.residual[:, 0], torch.where(y[:, 0] > 0, grad_y[:, 0], 0.0))


@pytest.mark.parametrize(
    "dtype", mostly_slow([torch.float16], [torch.float16, torch.bfloat16, torch.float32])
)
def test_recomputed_activation_is_the_output(cuda, dtype):
    """To the last bit: where the output is 0, also by rounding, nothing passes."""
    x = random((4, 3, 9, 9), dtype, scale=1.0)
    weight = torch.full((3,), 1e-7, device=DEVICE)
    bias = torch.tensor([0.0, 1e-8, -1e-8], device=DEVICE)
    grad_y = random(x.shape, dtype, seed=3)
    y, mean, var = Passes(cuda).batch_forward(x, weight, bias, None, None, EPS, True)
    if dtype == torch.float16:
        precise = Passes(cuda).batch_forward(x.float(), weight, bias, None, None, EPS, True)[0]
        assert ((y == 0) & (precise > 0)).any(), "nothing was rounded to 0"
    grads = Passes(cuda).batch_backward(grad_y, x, None, mean, var, weight, bias, EPS, True, False)
    passed = torch.where(y > 0, grad_y, 0.0).double().sum((0, 2, 3))
    assert_close(grads.bias, as_array(passed), 1e-5)


# --- Running statistics --------------------------------------------------------------------------


def state(C, dtype=torch.float32, count=3, stride=1):
    mean = random((C * stride,), dtype, seed=7)[::stride]
    var = random((C * stride,), dtype, seed=8).abs()[::stride]
    return mean, var, None if count is None else torch.tensor(count, device=DEVICE)


def moved(old, batch, factor):
    return (1.0 - factor) * as_array(old) + factor * batch


@pytest.mark.parametrize("skip", [False, True])
def test_running_statistics_of_another_type_and_layout(cuda, skip):
    asked = case("planes", running=True)
    running = Running(*state(3, torch.float64, stride=2), 0.3, skip)
    check(cuda, asked, given(asked, DEVICE)._replace(running=running))


def test_float64_momentum_and_eps_arrive_whole(cuda):
    x = random((4, 3, 5, 7), torch.float64)
    mean, var, _ = state(3, torch.float64, None)
    before = mean.clone()
    running = Running(mean, var, None, 0.1, False)
    y = Passes(cuda).batch_forward(x, None, None, None, running, 1e-3, False)[0]
    assert_close(mean, moved(before, reference.moments(as_array(x))[0], 0.1), 1e-15)
    assert_close(y, reference.forward(as_array(x), eps=1e-3).y, 1e-14)


def test_count_alone(cuda):
    count = torch.tensor(7, dtype=torch.int32, device=DEVICE)
    for momentum, skip in itertools.product((0.1, None), (False, True)):
        running = Running(None, None, count, momentum, skip)
        Passes(cuda).batch_forward(random((4, 3, 5, 7)), None, None, None, running, EPS, False)
    assert count.item() == 11


@pytest.mark.parametrize("bad", [float("nan"), pytest.param(float("inf"), marks=slow)])
@pytest.mark.parametrize("momentum", mostly_slow([0.5], [0.5, None]))
def test_nonfinite_statistics(cuda, bad, momentum):
    x = random((4, 40, 5))
    x[2, 33, 1] = bad
    for skip in (False, True):
        mean, var, count = state(40)
        before = mean.clone(), var.clone()
        running = Running(mean, var, count, momentum, skip)
        Passes(cuda).batch_forward(x, None, None, None, running, EPS, False)
        if skip:
            assert torch.equal(mean, before[0])
            assert torch.equal(var, before[1])
            assert count.item() == 3
        else:
            assert mean.isfinite().sum() == var.isfinite().sum() == 39
            assert var[33].isnan()
            assert torch.equal(mean[33].isnan(), torch.tensor(np.isnan(bad), device=DEVICE))
            assert count.item() == 4


def test_variance_alone_is_not_finite(cuda):
    """Squares beyond float64's range: the mean is finite, and the state stays all the same."""
    x = random((4, 3, 5, 7), torch.float64)
    x[:, 1] *= 1e200
    mean, var, count = state(3, torch.float64)
    before = mean.clone(), var.clone()
    running = Running(mean, var, count, 0.5, True)
    batch_mean = Passes(cuda).batch_forward(x, None, None, None, running, EPS, False)[1]
    assert batch_mean.isfinite().all()
    assert torch.equal(mean, before[0])
    assert torch.equal(var, before[1])
    assert count.item() == 3


@pytest.mark.parametrize("momentum", mostly_slow([0.5], [0.5, None]))
@pytest.mark.parametrize(
    "dtype", mostly_slow([torch.float16], [torch.float16, torch.bfloat16, torch.float32])
)
def test_state_is_clamped_to_its_type(cuda, dtype, momentum):
    x = random((4, 3, 5, 7), offset=0.0, scale=1.0)
    x[:, 0] *= 1e25
    x[:, 1] += 1e6
    mean, var, count = state(3, dtype)
    var[2] = float("inf")
    Passes(cuda).batch_forward(
        x, None, None, None, Running(mean, var, count, momentum, False), EPS, False
    )
    largest = torch.finfo(dtype).max
    assert var[0].item() == largest
    assert var[1].isfinite()
    assert var[2].item() == float("inf")
    assert mean.isfinite().all()
    if dtype == torch.float16:
        assert abs(mean[0].item()) == largest
        assert mean[1].item() == largest


def test_half_precision_state_moves_in_float64(cuda):
    """An average that would not move in bfloat16 arithmetic is rounded once, from float64."""
    x = random((4, 3, 5, 7), torch.bfloat16)
    mean, var, count = state(3, torch.bfloat16)
    before = mean.clone()
    Passes(cuda).batch_forward(
        x, None, None, None, Running(mean, var, count, 0.1, False), EPS, False
    )
    expected = moved(before, reference.moments(as_array(x))[0], 0.1)
    # The interpreter of some versions of Triton cuts off where it should round.
    assert_close(mean, expected, 2.0**-8 if DEVICE == "cuda" else 2.0**-7)


# --- Numerics ------------------------------------------------------------------------------------


def test_constant_channels(cuda):
    x = torch.full((4, 2, 5, 7), 7.3e9, device=DEVICE)
    x[:, 1] = 0.0
    y, mean, var = Passes(cuda).batch_forward(x, None, None, None, None, EPS, False)
    assert not y.any()
    assert not var.any()
    assert mean.tolist() == [x[0, 0, 0, 0].item(), 0.0]


@pytest.mark.parametrize("name", mostly_slow(SHORT[:1], SHORT[:3]))
@pytest.mark.parametrize("offset", mostly_slow([-1e5], [1e4, -1e5, 3e6]))
def test_large_offsets(cuda, name, offset):
    shape, _ = SHAPES[name]
    x = random(shape, offset=offset)
    check_training(cuda, x, random(shape, seed=3, offset=0.0), *parameters(shape[1]), slack=2.5)


def test_mean_between_two_numbers_of_the_type(cuda):
    """The mean needs more digits than float32 has: its low part counts."""
    steps = torch.arange(70, device=DEVICE).reshape(2, 1, 35) % 3
    x = 2.0**24 + 2.0 * steps.float()
    y = Passes(cuda).batch_forward(x, None, None, None, None, EPS, False)[0]
    assert_close(y, reference.forward(as_array(x), eps=EPS).y, 1e-6)
    # So does that of the gradient, where nothing else is rounded.
    grad_y = 2.0**20 + (torch.arange(70, device=DEVICE).reshape(2, 1, 35) * 7 % 11 % 3).float()
    x = (torch.arange(70, device=DEVICE).reshape(2, 1, 35) % 2) * 2.0 - 1.0
    _, mean, var = Passes(cuda).batch_forward(x, None, None, None, None, EPS, False)
    grads = Passes(cuda).batch_backward(grad_y, x, None, mean, var, None, None, EPS, False, False)
    expected = reference.backward(as_array(grad_y), reference.forward(as_array(x), eps=EPS))
    assert_close(grads.x, expected.x, 1e-5)


@pytest.mark.parametrize("channels_last", mostly_slow([True], [False, True]))
@pytest.mark.parametrize("fuse", mostly_slow([False], [True, False]))
def test_offset_that_breaks_channels_last_kernels(module, channels_last, fuse, monkeypatch):
    """(64, 8, 32, 32) + 1e5, at full size, with the thresholds of production."""
    if not fuse:
        monkeypatch.setattr(sys.modules[module.plan.__module__], "_meeting", lambda *_: None)
        module.plan.cache_clear()
    x = random((64, 8, 32, 32), channels_last=channels_last, offset=1e5, scale=1.0)
    y = Passes(module).batch_forward(x, None, None, None, None, EPS, False)[0]
    assert_close(y, reference.forward(as_array(x), eps=EPS).y, 1e-6)


def test_many_rows(module):
    check_training(module, random((60000, 2), offset=10.0))


@pytest.mark.parametrize("scale", mostly_slow([1e20], [1e20, 1e-20]))
@pytest.mark.parametrize("name", mostly_slow(["rows"], SHORT[:3]))
@pytest.mark.parametrize("dtype", mostly_slow([torch.float32], [torch.float32, torch.bfloat16]))
def test_extreme_sizes(cuda, dtype, scale, name):
    shape, _ = SHAPES[name]
    x = random(shape, dtype, offset=0.3 * scale, scale=scale)
    y, mean, var = Passes(cuda).batch_forward(x, None, None, None, None, 1e-60, False)
    batch = reference.forward(as_array(x), eps=1e-60)
    assert_close(mean / scale, batch.batch_mean.ravel() / scale, 1e-7)
    assert_close(var / scale**2, batch.batch_var.ravel() / scale**2, 1e-6)
    assert_close(y, batch.y, 2 * TOLERANCE[dtype])
    grads = Passes(cuda).batch_backward(y, x, None, mean, var, None, None, 1e-60, False, False)
    assert grads.x.isfinite().all()


@pytest.mark.parametrize("name", mostly_slow(SHORT[:1], SHORT[:3]))
@pytest.mark.parametrize("outlier", mostly_slow([1e6], [1e3, 1e6, -1e15]))
def test_first_value_is_an_outlier(cuda, name, outlier):
    shape, _ = SHAPES[name]
    x = random(shape)
    x.view(shape[0], shape[1], -1)[0, :, 0] = outlier
    check_training(cuda, x, None, *parameters(shape[1]), slack=2.5)


@pytest.mark.parametrize("name", mostly_slow(["folded rows"], SHORT[:3]))
def test_channels_do_not_disturb_each_other(cuda, name):
    shape, _ = SHAPES[name]
    x = random(shape)
    flat = x.view(shape[0], shape[1], -1)
    flat[0, 0, 0] = float("nan")
    flat[-1, 1, -1] = float("inf")
    y, mean, var = Passes(cuda).batch_forward(x, *parameters(shape[1]), None, None, EPS, False)
    assert mean[0].isnan()
    assert var[0].isnan()
    assert mean[1].item() == float("inf")
    assert var[1].isnan()
    assert y[:, :2].isnan().all()
    if shape[1] > 2:
        expected = reference.forward(*map(as_array, (x, *parameters(shape[1]))), EPS)
        assert_close(y[:, 2:], expected.y[:, 2:], 2e-6)
    # Both infinities in one channel have no mean.
    flat[0, 1, 0] = -float("inf")
    assert Passes(cuda).batch_forward(x, None, None, None, None, EPS, False)[1][1].isnan()
    # An infinity to begin with, about which nothing can be summed.
    flat[-1, 1, -1] = 0.0
    _, mean, var = Passes(cuda).batch_forward(x, None, None, None, None, EPS, False)
    assert mean[1].item() == -float("inf")
    assert var[1].isnan()


def test_unequal_parts(cuda):
    """Parts of different length, mean and spread: the merging must count."""
    x = random((13, 2, 11, 12))
    x[-1] += 100.0
    x[0] *= 10.0
    check_training(cuda, x, random(x.shape, seed=3, offset=4.0), *parameters(2))
    x = random((101, 40))
    x[-5:] += 100.0
    check_training(cuda, x, random(x.shape, seed=3, offset=4.0), *parameters(40))


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["few channels last"],
        ["planes in pieces", "rows in blocks", "folded samples", "few channels last"],
    ),
)
def test_every_value_is_written(cuda, name, monkeypatch):
    """Outputs are poisoned, so that one that no program writes shows."""
    for function in ("empty", "empty_like"):
        allocate = getattr(torch, function)

        def poisoned(*args, allocate=allocate, **kwargs):
            return allocate(*args, **kwargs).fill_(float("nan"))

        monkeypatch.setattr(torch, function, poisoned)
    shape, channels_last = SHAPES[name]
    x = random(shape, channels_last=channels_last)
    y, mean, var = Passes(cuda).batch_forward(x, None, None, x, None, EPS, True)
    z = Passes(cuda).fixed_forward(x, mean, var, None, None, x, EPS, True)
    results = [y, mean, var, z]
    for backward in (Passes(cuda).batch_backward, Passes(cuda).fixed_backward):
        results += backward(x, x, y, mean, var, None, None, EPS, True, True)
    assert all(result.isfinite().all() for result in results)


def test_deterministic(cuda):
    x = random((13, 2, 11, 12))
    weight, bias = parameters(2)
    first, second = (
        Passes(cuda).batch_forward(x, weight, bias, None, None, EPS, False) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- Without the interpreter ---------------------------------------------------------------------


def _environment():
    root = str(HERE.parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    return environment


def test_kernels_have_few_parameters(module):
    for name in ("forward", "backward", "running"):
        for kernel in vars(sys.modules[f"{module.__name__}.{name}"]).values():
            if hasattr(kernel, "arg_names"):
                assert len(kernel.arg_names) <= 20, kernel.fn.__name__


def test_import_without_triton():
    program = "import sys; sys.modules['triton'] = None; import companion.kernels.cuda"
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError: import of triton halted" in result.stderr


def test_nothing_imports_the_kernels_by_itself():
    program = "import companion.modules, sys; assert 'companion.kernels.cuda' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env=_environment(), check=True)


# --- On a GPU only -------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [
        ((32, 64, 56, 56), False),
        ((32, 64, 56, 56), True),
        ((32, 512, 14, 14), False),
        ((32, 2048, 7, 7), False),
        ((8, 3, 512, 512), False),
        ((8, 3, 512, 512), True),
        ((8192, 512), False),
        ((1000003, 5), False),
        ((2, 1, 3001, 1001), False),
    ],
)
def test_shapes_of_networks(module, dtype, shape, channels_last):
    asked = Case(shape, dtype, channels_last)
    check(module, asked, given(asked, DEVICE))


@pytest.mark.cuda
def test_more_than_2_to_the_31_values(module):
    x = torch.randn((2**15, 65, 1025), device=DEVICE, dtype=torch.float16)
    assert x.numel() > 2**31
    y, mean, var = Passes(module).batch_forward(x, None, None, None, None, EPS, False)
    last = x[:, -1].double()
    assert abs(mean[-1] - last.mean()) < 1e-9
    assert abs(var[-1] - last.var(correction=0)) < 1e-6
    expected = (last - last.mean()) / (last.var(correction=0) + EPS).sqrt()
    assert (y[:, -1] - expected).abs().max() < 5e-3


@pytest.mark.cuda
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("skip", [False, True])
def test_cuda_graph(module, momentum, skip):
    """A graph that was recorded once is replayed on new data; the running statistics move."""
    x, weight, bias = random((8, 64, 28, 28)), *parameters(64)
    grad_y = random(x.shape, seed=3)
    mean, var, count = state(64, count=0)
    running = Running(mean, var, count, momentum, skip)

    def step():
        y, batch_mean, batch_var = Passes(module).batch_forward(
            x, weight, bias, None, running, EPS, True
        )
        return y, Passes(module).batch_backward(
            grad_y, x, y, batch_mean, batch_var, weight, bias, EPS, True, False
        )

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, grads = step()
    for replay in range(3):
        x.copy_(random(x.shape, seed=10 + replay))
        before, steps = mean.clone(), count.item()
        graph.replay()
        batch = reference.forward(*map(as_array, (x, weight, bias)), EPS)
        assert_close(y, np.maximum(batch.y, 0.0), 2e-6)
        factor = 1.0 / (steps + 1) if momentum is None else momentum
        assert_close(mean, moved(before, batch.batch_mean.ravel(), factor), 1e-6)
        assert count.item() == steps + 1
        expected = reference.backward(as_array(grad_y) * (as_array(y) > 0.0), batch)
        assert_close(grads.x, expected.x, 1e-5)


@pytest.mark.cuda
def test_nothing_waits_for_the_device(module):
    x, weight, bias = random((8, 64, 28, 28)), *parameters(64)
    running = Running(*state(64), None, True)

    def step():
        y, mean, var = Passes(module).batch_forward(x, weight, bias, x, running, EPS, True)
        Passes(module).batch_backward(x, x, y, mean, var, weight, bias, EPS, True, True)

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
