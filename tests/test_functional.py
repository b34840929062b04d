"""Values, gradients, running statistics, types and layouts of ``companion.functional``."""

import pytest
import torch
from _layer import (
    DEVICES,
    HALVES,
    PROPERTY,
    ROUNDING,
    SHAPES,
    ask_oracle,
    batches,
    layouts,
    max_difference,
    numpy64,
    relative_error,
    uniform_parameters,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from companion import reference
from companion.exercises.properties import LINE, MEAN_IS_BETA, NO_MOVE, NO_STRETCH, VARIANCE
from companion.functional import batch_norm
from companion.kernels import eager

ALL_TYPES = tuple(ROUNDING)


def parameter_like(x):
    return torch.empty((), dtype=eager.compute_dtype(x.dtype), device=x.device)


@given(batches(ALL_TYPES), st.sampled_from([1e-5, 1e-3, 1.0]), st.booleans(), st.booleans())
@PROPERTY
def test_training_matches_the_oracle(x, eps, with_weight, with_bias):
    weight, bias = uniform_parameters(x.shape[1], parameter_like(x))
    weight, bias = (weight if with_weight else None), (bias if with_bias else None)
    y = batch_norm(x, None, None, weight, bias, True, eps=eps)
    exact = reference.forward(
        numpy64(x), *(None if p is None else numpy64(p) for p in (weight, bias)), eps
    )
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    assert relative_error(y, exact.y) <= ROUNDING[x.dtype]


@given(batches(ALL_TYPES), st.sampled_from([1e-5, 1e-3, 1.0]))
@PROPERTY
def test_gradients_match_the_oracle(x, eps):
    weight, bias = uniform_parameters(x.shape[1], parameter_like(x))
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    grad_y = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    y = batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, eps=eps)
    grads = torch.autograd.grad(y, leaves, grad_y)
    exact = ask_oracle(x, grad_y, weight, bias, eps)
    batch = reference.forward(numpy64(x), numpy64(weight), numpy64(bias), eps)
    # Few values per channel make the exact gradient of x cancel: measure against its terms.
    terms = max(
        abs(batch.gamma * batch.inv_std).max() * abs(numpy64(grad_y)).max(), abs(exact.grad_x).max()
    )
    error = abs(numpy64(grads[0]) - exact.grad_x).max()
    assert error <= 4 * ROUNDING[x.dtype] * terms
    assert [g.dtype for g in grads] == [t.dtype for t in leaves]
    precise = ROUNDING[weight.dtype] * abs(numpy64(grad_y)).sum()
    assert abs(numpy64(grads[1]) - exact.grad_weight).max() <= precise
    assert abs(numpy64(grads[2]) - exact.grad_bias).max() <= precise


@given(batches(ALL_TYPES), st.sampled_from([1e-5, 1e-3, 1.0]))
@PROPERTY
def test_the_equations_of_the_book_hold_whatever_the_batch(x, eps):
    weight, bias = uniform_parameters(x.shape[1], parameter_like(x))
    x.requires_grad_()
    grad_y = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    y = batch_norm(x, None, None, weight, bias, True, eps=eps)
    (grad_x,) = torch.autograd.grad(y, x, grad_y)
    for law in (MEAN_IS_BETA, VARIANCE, LINE):
        assert law.error(y, x, weight, bias, eps) <= 4 * ROUNDING[x.dtype], law.says
    for law in (NO_MOVE, NO_STRETCH):
        assert law.error(grad_x, grad_y, x, weight, eps) <= 4 * ROUNDING[x.dtype], law.says


@given(batches(ALL_TYPES), st.sampled_from([0.0, 0.1, 1.0, 1.5]))
@PROPERTY
def test_running_statistics_match_the_oracle(x, momentum):
    channels, like = x.shape[1], parameter_like(x)
    mean, var = (p.clone() for p in uniform_parameters(channels, like))
    before = numpy64(mean.clone()), numpy64(var.clone())
    count = torch.tensor(7)
    batch_norm(x, mean, var, None, None, True, momentum, num_batches_tracked=count)
    batch = reference.forward(numpy64(x))
    unbiased = batch.batch_var.ravel() * batch.m / (batch.m - 1)
    for running, old, new in zip(
        (mean, var), before, (batch.batch_mean.ravel(), unbiased), strict=True
    ):
        assert (
            relative_error(running, (1 - momentum) * old + momentum * new) <= (ROUNDING[like.dtype])
        )
    assert count.item() == 8


@given(batches(ALL_TYPES), st.sampled_from([0.0, 1e-5, 1.0]), st.booleans())
@PROPERTY
def test_inference_matches_the_oracle(x, eps, affine):
    like = parameter_like(x)
    weight, bias = uniform_parameters(x.shape[1], like) if affine else (None, None)
    mean, var = uniform_parameters(x.shape[1], like, seed=9)[::-1]
    y = batch_norm(x, mean, var, weight, bias, eps=eps)
    arrays = [None if p is None else numpy64(p) for p in (weight, bias)]
    exact = reference.inference(numpy64(x), numpy64(mean), numpy64(var), *arrays, eps=eps)
    assert y.dtype == x.dtype
    assert relative_error(y, exact) <= ROUNDING[x.dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1, 4, 5), (3, 2, 1, 1), (1, 3, 4, 1)])
def test_memory_format_is_pytorchs(shape, training, device):
    """That of its CPU kernels: on a GPU, PyTorch keeps other orders of the axes too, or not."""
    for name, x in layouts(torch.randn(shape)).items():
        state = torch.zeros(shape[1]), torch.ones(shape[1])
        x = x.detach().requires_grad_()
        inputs = [tensor.to(device) for tensor in (x, *state)]
        ours, theirs = (
            batch_norm(*inputs, training=training),
            F.batch_norm(x, *state, training=training),
        )
        assert ours.stride() == theirs.stride(), name
        grad_y = torch.randn_like(x).contiguous()
        grads = [torch.autograd.grad(y, x, grad_y)[0] for y in (ours, theirs)]
        # The stride of an axis of length 1 means nothing.
        strides = [
            [s for s, size in zip(g.stride(), shape, strict=True) if size > 1] for g in grads
        ]
        assert strides[0] == strides[1], name
        assert max_difference(*grads) < 1e-4, name


@pytest.mark.parametrize("training", [True, False])
def test_expanded_input(training):
    for x in (torch.randn(1, 3).expand(4, 3), torch.randn(2, 1, 4, 5).expand(2, 3, 4, 5)):
        state = torch.zeros(3), torch.ones(3)
        ours, theirs = (f(x, *state, training=training) for f in (batch_norm, F.batch_norm))
        assert ours.stride() == theirs.stride()
        assert max_difference(ours, theirs) < 1e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(7, 3, 6, 5), (2, 50, 3), (3, 2, 40), (40, 6)])
def test_many_blocks_give_what_one_gives(monkeypatch, shape, device):
    x = torch.randn(shape, dtype=torch.float64, device=device) + 3.0
    grad_y = torch.randn_like(x)
    whole = eager.batch_stats(x)
    sums = eager.moments_with(grad_y, x, whole[0])
    y = eager.normalize(x, *whole, None, None, 1e-5)
    for size in (63, 7 * 3, 1):
        monkeypatch.setattr(eager, "_CPU_BLOCK", size)
        monkeypatch.setattr(eager, "_DEVICE_BLOCK", size)
        blocks = list(eager._blocks(x))
        assert len(blocks) > 1
        # Blocks stay within the limit as far as cutting one axis, the longest, can do it.
        longest = max(size for axis, size in enumerate(shape) if axis != 1)
        assert blocks[0][0].numel() <= max(2 * size, x.numel() // longest)
        assert torch.equal(eager.normalize(x, *whole, None, None, 1e-5), y)
        for a, b in zip(whole, eager.batch_stats(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
        for a, b in zip(sums, eager.moments_with(grad_y, x, whole[0]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_rounded_once(dtype, training):
    """The result is the float32 result, rounded: no step in between is."""
    x = (torch.randn(64, 4, 3) * 3 + 20).to(dtype)
    weight, bias = uniform_parameters(4, torch.empty(()))
    state = x.float().mean((0, 2)), x.float().var((0, 2))
    y = batch_norm(x, *(s.clone() for s in state), weight, bias, training)
    exact = batch_norm(x.float(), *(s.clone() for s in state), weight, bias, training)
    assert torch.equal(y, exact.to(dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parameters", [torch.float32, None])
@pytest.mark.parametrize("statistics", [torch.float32, None])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_takes_float32_or_its_own_type(
    dtype, parameters, statistics, training, device
):
    x = torch.randn(8, 3, device=device).to(dtype).requires_grad_()
    weight = torch.ones(3, device=device, dtype=parameters or dtype).requires_grad_()
    state = [f(3, device=device, dtype=statistics or dtype) for f in (torch.zeros, torch.ones)]
    y = batch_norm(x, *state, weight, weight, training)
    grads = torch.autograd.grad(y.float().sum(), (x, weight))
    assert (y.dtype, grads[0].dtype, grads[1].dtype) == (dtype, dtype, weight.dtype)
    assert [s.dtype for s in state] == [statistics or dtype] * 2


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_leaves_types_as_pytorch_does(dtype, training):
    x = torch.randn(8, 3).to(dtype)
    weight = torch.ones(3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [
            f(x, torch.zeros(3), torch.ones(3), weight, None, training)
            for f in (batch_norm, F.batch_norm)
        ]
        assert results[0].dtype == results[1].dtype
        (grad,) = torch.autograd.grad(results[0].float().square().sum(), weight)
    assert grad.dtype == torch.float32
    assert max_difference(*results) <= 2 * ROUNDING[dtype] * float(results[1].detach().abs().max())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty_batches(shape, training):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    mean, var, count = torch.full((3,), 2.0), torch.full((3,), 5.0), torch.tensor(4)
    y = batch_norm(x, mean, var, weight, weight, training, None, num_batches_tracked=count)
    theirs = F.batch_norm(x, torch.zeros(3), torch.ones(3), weight, weight, training)
    assert (y.shape, y.stride(), y.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
    grads = torch.autograd.grad(y.sum(), (x, weight))
    assert grads[0].shape == x.shape
    assert torch.equal(grads[1], torch.zeros(3))
    assert (mean.tolist(), var.tolist()) == ([2.0] * 3, [5.0] * 3)
    assert count.item() == (5 if training else 4)


@pytest.mark.parametrize("device", DEVICES)
def test_cumulative_average(device):
    """With momentum None the running statistics are plain averages over the batches."""
    mean, var = torch.full((2,), 9.0, device=device), torch.full((2,), 9.0, device=device)
    count, batch_list = torch.tensor(0, device=device), torch.randn(5, 8, 2, device=device)
    for x in batch_list:
        batch_norm(x, mean, var, None, None, True, None, num_batches_tracked=count)
    torch.testing.assert_close(mean, batch_list.mean((0, 1)))
    torch.testing.assert_close(var, batch_list.var(1).mean(0))
    assert count.item() == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nonfinite_values_do_what_they_do_in_pytorch(value):
    x = torch.randn(6, 3)
    x[2, 1] = value
    states = [(torch.zeros(3), torch.ones(3)) for _ in range(2)]
    results = [
        f(x, *state, training=True)
        for f, state in zip((batch_norm, F.batch_norm), states, strict=True)
    ]
    for ours, theirs in zip((results[0], *states[0]), (results[1], *states[1]), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert results[0][:, 1].isnan().all()
    assert results[0][:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinity_in_the_first_row_makes_an_infinite_mean(value, device):
    x = torch.randn(6, 3, dtype=torch.float64, device=device)
    x[0, 1] = value
    mean, var = eager.batch_stats(x)
    assert mean[1].item() == value
    assert var[1].isnan()
    others = x[:, [0, 2]]
    torch.testing.assert_close(mean[[0, 2]], others.mean(0))
    torch.testing.assert_close(var[[0, 2]], others.var(0, correction=0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_skip_nonfinite_leaves_the_state_alone(value, momentum):
    state = torch.zeros(3), torch.ones(3)
    count = torch.tensor(0)
    options = {"momentum": momentum, "num_batches_tracked": count, "skip_nonfinite": True}
    good = torch.randn(6, 3)
    batch_norm(good, *state, training=True, **options)
    expected = [s.clone() for s in state]
    assert not torch.equal(state[0], torch.zeros(3))
    bad = good.clone()
    bad[2, 1] = value
    y = batch_norm(bad, *state, training=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(state, expected, strict=True))
    assert count.item() == 1
    assert y[:, 1].isnan().all()
    batch_norm(bad, None, None, training=True, skip_nonfinite=True)


def test_skip_nonfinite_also_looks_at_the_variance():
    """Finite values, a mean of 0, and squares that overflow float64."""
    mean, var = torch.full((1,), 2.0).double(), torch.full((1,), 5.0).double()
    count = torch.tensor(4)
    x = torch.tensor([[1e200], [-1e200]], dtype=torch.float64)
    options = {"num_batches_tracked": count, "skip_nonfinite": True}
    batch_norm(x, mean, var, training=True, **options)
    assert (mean.item(), var.item(), count.item()) == (2.0, 5.0, 4)


def test_running_variance_saturates_and_decays():
    """An infinite average would stay infinite; the largest finite value gets smaller again."""
    mean, var = torch.zeros(1), torch.ones(1)
    batch_norm(torch.tensor([[1e30], [-1e30]]), mean, var, training=True)
    assert var.item() == torch.finfo(torch.float32).max
    for _ in range(3):
        batch_norm(torch.randn(4, 1), mean, var, training=True)
    assert var.item() == pytest.approx(0.9**3 * torch.finfo(torch.float32).max)


def test_infinite_running_statistics_stay_infinite():
    mean, var = torch.full((1,), float("inf")), torch.full((1,), float("inf"))
    batch_norm(torch.randn(4, 1), mean, var, training=True)
    assert mean.isinf().all()
    assert var.isinf().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 0), (0, 0), (2, 0, 5)])
def test_no_channels(shape, training):
    x, state = torch.randn(shape, requires_grad=True), (torch.zeros(0), torch.ones(0))
    y = batch_norm(x, *state, None, None, training)
    assert y.shape == shape
    assert torch.autograd.grad(y.sum(), x)[0].shape == shape


def test_rank_six_as_in_pytorch():
    x = torch.randn(2, 3, 2, 2, 2, 2)
    assert (
        max_difference(
            batch_norm(x, None, None, training=True), F.batch_norm(x, None, None, training=True)
        )
        < 1e-5
    )


def test_statistics_are_not_touched_in_evaluation():
    mean, var, count = torch.randn(3), torch.rand(3), torch.tensor(2)
    before = mean.clone(), var.clone()
    batch_norm(torch.randn(5, 3), mean, var, num_batches_tracked=count)
    assert torch.equal(mean, before[0])
    assert torch.equal(var, before[1])
    assert count.item() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_between_an_evaluation_and_its_backward_pass(dtype):
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    state = torch.zeros(3, dtype=dtype), torch.full((3,), 4.0, dtype=dtype)
    y = batch_norm(x, *state, eps=0.0)
    batch_norm(x.detach(), *state, training=True)
    assert torch.autograd.grad(y.sum(), x)[0].unique().tolist() == [0.5]


def test_no_gradients_in_no_gradients_out():
    x = torch.randn(4, 3)
    gradients = eager.batch_backward(eager.OutputGradients(), x, *eager.batch_stats(x), None, 1e-5)
    assert gradients == eager.InputGradients()


def test_nothing_global_changes():
    state = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    batch_norm(torch.ones(4, 3), None, None, training=True)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == state[1:]


def test_tangents_that_are_absent_count_as_zero():
    x, along = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    mean, var, weight = torch.randn(3).double(), torch.rand(3).double(), torch.randn(3).double()
    tangent = eager.normalize_tangent(eager.InputGradients(x=along), x, mean, var, weight, 1e-5)
    torch.testing.assert_close(tangent, along * weight / (var + 1e-5).sqrt())
    nothing = eager.normalize_tangent(eager.InputGradients(), x, mean, var, weight, 1e-5)
    assert torch.equal(nothing, torch.zeros_like(x))
