"""The failures of other implementations, one test for each row of the design's table of traps.

Each asserts that the error against the float64 oracle is within 1e-5 and not above PyTorch's,
measured on the same batch. Where PyTorch does not fall into the trap, the test writes down the
formula that does, and shows that it fails where the layer does not.
"""

import warnings

import numpy as np
import pytest
import torch
from _layer import DEVICES, compare, max_difference, numpy64, relative_error
from torch import nn

import companion
from companion import reference
from companion.functional import batch_norm
from companion.kernels import eager

LIMIT = 1e-5
# The result of one float32 rounding, which no implementation can be asked to beat; on a GPU of two,
# since the parts of a sum are rounded there.
ROUNDED = {"cpu": 2.0**-23, "cuda": 2.0**-22}
LAYERS = {
    2: (companion.BatchNorm1d, nn.BatchNorm1d),
    3: (companion.BatchNorm1d, nn.BatchNorm1d),
    4: (companion.BatchNorm2d, nn.BatchNorm2d),
    5: (companion.BatchNorm3d, nn.BatchNorm3d),
}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def assert_better(x, quantities=None, limit=LIMIT, eps=1e-5):
    """Every quantity within `limit`, and none worse than PyTorch's; returns PyTorch's errors."""
    ours, theirs = compare(*LAYERS[x.ndim], x, eps)
    for name in quantities or ours:
        assert ours[name] <= limit, (name, ours, theirs)
        assert ours[name] <= max(theirs[name], ROUNDED[x.device.type]), (name, ours, theirs)
    return theirs


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("one_thread")
def test_accumulation_over_many_rows(device):
    theirs = assert_better((randn(10**7, 2) + 10).to(device))
    if device == "cpu":
        assert theirs["mean"] > 0.01
        assert theirs["var"] > 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7])
def test_channels_last_with_an_offset(offset, device):
    theirs = assert_better(channels_last(randn(64, 8, 32, 32) + offset).to(device))
    if offset == 1e5 and device == "cpu":
        assert theirs["y"] > 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7])
def test_contiguous_with_an_offset(offset, device):
    theirs = assert_better((randn(64, 8, 32, 32) + offset).to(device))
    if offset == 1e5 and device == "cpu":
        assert theirs["y"] > 1e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_constant_channel(layout, device):
    """x·α + β' is the difference of two large numbers; (x - μ)·α is zero."""
    x = randn(16, 3, 8, 8)
    x[:, 1] = 7.3e9
    x = x.contiguous(memory_format=layout).to(device)
    y = companion.BatchNorm2d(3).to(device)(x)
    assert torch.equal(y[:, 1].detach().cpu(), torch.zeros(16, 8, 8))
    theirs = assert_better(x, ("y", "mean", "var", "grad_weight", "grad_bias", "grad_x"))
    if device == "cpu" and layout == torch.contiguous_format:
        assert theirs["y"] > 1.0


@pytest.mark.parametrize("value", [7.3e9, 0.1, 1e30, -1e-30])
def test_constant_channel_has_variance_zero(value):
    for shape in ((37, 2), (3, 2, 5, 7)):
        mean, var = eager.batch_stats(torch.full(shape, value))
        assert var.tolist() == [0.0, 0.0]
        assert mean.tolist() == [torch.tensor(value).double().item()] * 2


@pytest.mark.parametrize("device", DEVICES)
def test_difference_of_two_squares(device):
    """E[x²] - E[x]² cancels in float32."""
    x = (randn(256, 4, 7, 7) + 1e4).to(device)
    axes = (0, 2, 3)
    wrong = x.square().mean(axes) - x.mean(axes).square()
    exact = reference.moments(numpy64(x))[1]
    assert relative_error(wrong, exact) > 1.0
    assert relative_error(eager.batch_stats(x)[1], exact) < 1e-12
    assert_better(x)


def welford_by_step(x, rows, lanes):
    """Welford's update in a block of lanes, dividing by the step: wrong where a lane idles."""
    mean, squares, count = (torch.zeros(rows, lanes) for _ in range(3))
    step = 0
    for block in x.split(rows):
        for part in block.split(lanes, 1):
            step += 1
            used = part.shape[1]
            delta = part - mean[:, :used]
            mean[:, :used] += delta / step
            squares[:, :used] += delta * (part - mean[:, :used])
            count[:, :used] += 1
    total = count.sum()
    centre = (mean * count).sum() / total
    return (squares + count * (mean - centre).square()).sum() / total


def test_welford_that_divides_by_the_step():
    x = randn(4096, 3, 12)
    exact = reference.moments(numpy64(x))[1]
    wrong = torch.stack([welford_by_step(x[:, c], rows=1024, lanes=8) for c in range(3)])
    assert relative_error(wrong, exact) > 0.02
    assert relative_error(eager.batch_stats(x)[1], exact) < 1e-12
    assert_better(x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(64, 4), (8, 4, 5, 5)])
def test_overflow_near_1e20(shape, device):
    x = (randn(*shape) * 1e20).to(device)
    # The variance, 1e40, has no float32 value: it is the largest one instead of infinity.
    theirs = assert_better(x, ("y", "mean", "grad_x", "grad_weight", "grad_bias"))
    if device == "cpu" and len(shape) == 2:
        assert theirs["y"] > 0.5
    layers = [cls(4, momentum=1.0).to(device) for cls in LAYERS[x.ndim]]
    for layer in layers:
        layer(x)
    assert layers[0].running_var.tolist() == [torch.finfo(torch.float32).max] * 4
    assert layers[1].running_var.isinf().all()


@pytest.mark.parametrize("scale", [1e18, 3e37, 1e-3, 1e-18])
def test_other_scales(scale):
    quantities = ("y", "mean", "grad_x", "grad_weight", "grad_bias")
    assert_better(randn(64, 4) * scale, quantities)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_state_overflows_or_rounds(dtype):
    """A variance of 9e4 is beyond float16, and between two numbers of bfloat16."""
    x = (randn(512, 4) * 300).to(dtype)
    errors = []
    for cls in LAYERS[2]:
        layer = cls(4, momentum=1.0).to(dtype)
        layer(x)
        exact = reference.moments(numpy64(x))[1] * 512 / 511
        errors.append(relative_error(layer.running_var, exact))
    assert errors[0] <= LIMIT
    assert errors[1] > 1e-3


def test_bfloat16_average_that_never_moves():
    """An average of 0.01 from 1.0 towards 1.3: the step is below half a unit of bfloat16."""
    torch.manual_seed(0)
    x = torch.randn(512, 1)
    x = ((x - x.mean()) / x.std() * 1.3**0.5).bfloat16()
    target = reference.moments(numpy64(x))[1].item() * 512 / 511
    exact, layers = 1.0, [cls(1, momentum=0.01).bfloat16() for cls in LAYERS[2]]
    for _ in range(500):
        exact = 0.99 * exact + 0.01 * target
        for layer in layers:
            layer(x)
    errors = [relative_error(layer.running_var, np.array([exact])) for layer in layers]
    assert layers[1].running_var.item() == 1.0
    assert errors[0] <= LIMIT < errors[1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input(dtype, device):
    """Correct to one rounding of the type; statistics and their gradients to float32."""
    x = (randn(64, 8, 16, 16) * 3 + 20).to(dtype).to(device)
    unit = torch.finfo(dtype).eps / 2
    assert_better(x, ("mean", "var", "grad_weight", "grad_bias"))
    ours, theirs = compare(*LAYERS[4], x)
    for name in ("y", "grad_x"):
        assert ours[name] <= 1.01 * unit
        assert ours[name] <= max(theirs[name], unit)


def test_one_value_per_channel():
    """m/(m-1) is a division by zero: PyTorch and this package refuse, and only one has counted."""
    x = randn(1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert x.var(0).isnan().all()
    ours, theirs = (cls(3) for cls in LAYERS[2])
    for layer in (ours, theirs):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(x)
        assert layer.running_var.tolist() == [1.0] * 3
    assert (ours.num_batches_tracked.item(), theirs.num_batches_tracked.item()) == (0, 1)
    assert_better(randn(2, 3), ("y", "mean", "var", "grad_weight", "grad_bias"))


@pytest.mark.parametrize("device", DEVICES)
def test_eps_belongs_under_the_root(device):
    x = torch.tensor([[1e-3], [-1e-3]]).repeat(4, 1).to(device)
    wrong = x / (x.std(correction=0) + 1e-5)
    y = batch_norm(x, None, None, training=True)
    exact = reference.forward(numpy64(x)).y
    assert abs(wrong).max() > 0.98
    assert float(abs(y).max()) == pytest.approx(0.30151, abs=1e-4)
    assert relative_error(y, exact) <= LIMIT
    assert_better(x, ("y", "mean", "var", "grad_weight", "grad_bias"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_ordinary_batches(layout):
    assert_better(randn(64, 32, 8, 8).contiguous(memory_format=layout))


def test_ordinary_rows():
    assert_better(randn(640, 32))
    assert_better(randn(37, 5, 11) * 3 - 7)
    assert_better(randn(5, 4, 3, 6, 7) + 50)


def test_an_outlier_as_the_first_value():
    """The shift is the first value; that must not matter where it is far from the others."""
    x = randn(100_000, 3)
    x[0] = 1e6
    assert_better(x)
    mean, var = eager.batch_stats(x)
    exact = reference.moments(numpy64(x))
    assert relative_error(mean, exact[0]) < 1e-10
    assert relative_error(var, exact[1]) < 1e-10


def test_evaluation_centres_first():
    x = randn(64, 8, 16, 16) + 1e5
    state = x.mean((0, 2, 3)), torch.ones(8)
    exact = reference.inference(numpy64(x), *(numpy64(s) for s in state))
    ours = batch_norm(x, *state)
    theirs = nn.functional.batch_norm(x, *state)
    assert relative_error(ours, exact) <= LIMIT
    assert relative_error(ours, exact) < relative_error(theirs, exact)


def test_precision_does_not_depend_on_the_layout():
    x = randn(64, 8, 32, 32) + 1e5
    results = [batch_norm(v, None, None, training=True) for v in (x, channels_last(x))]
    assert max_difference(*results) <= 1e-5
