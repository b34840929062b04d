import copy
import math

import numpy as np
import pytest
import torch
from _family import SHAPES, batch, randomized
from torch.utils.checkpoint import checkpoint

import companion
from companion import reference
from companion.variants import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, LinearSchedule

CLASSES = {2: BatchRenorm1d, 3: BatchRenorm1d, 4: BatchRenorm2d, 5: BatchRenorm3d}
PLAIN = {2: companion.BatchNorm1d, 3: companion.BatchNorm1d, 4: companion.BatchNorm2d}
PLAIN[5] = companion.BatchNorm3d
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
INFINITY = float("inf")
OFF = {"r_max": 1.0, "d_max": 0.0}


def renorm(shape, **options):
    return randomized(CLASSES[len(shape)](3, dtype=torch.float64, **options))


def per_channel(value, ndim):
    return value.detach().numpy().reshape(1, -1, *(1,) * (ndim - 2))


def oracle(layer, x, grad_y, r_max, d_max):
    """Algorithm 1 of the paper and its gradients with r and d held constant, line by line."""
    x, grad_y = x.detach().numpy(), grad_y.numpy()
    weight, bias, mean, var = (
        per_channel(value, x.ndim)
        for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    )
    plain = reference.forward(x, eps=layer.eps)
    std, running_std = 1.0 / plain.inv_std, np.sqrt(var + layer.eps)
    r = np.clip(std / running_std, 1.0 / r_max, r_max)
    d = np.clip((plain.batch_mean - mean) / running_std, -d_max, d_max)
    y = weight * (plain.x_hat * r + d) + bias
    grads = (
        reference.backward(grad_y * weight * r, plain).x,
        plain.sum(grad_y * (plain.x_hat * r + d)).ravel(),
        plain.sum(grad_y).ravel(),
    )
    moved_std = running_std + layer.momentum * (std - running_std)
    moved = (mean + layer.momentum * (plain.batch_mean - mean), moved_std**2 - layer.eps)
    return y, grads, [value.ravel() for value in moved]


@SHAPE
@pytest.mark.parametrize("limits", [(1.2, 0.3), (1.0, 0.0), (3.0, 5.0), (1e9, 1e9)])
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_the_papers_algorithm(shape, limits, scale):
    layer = renorm(shape, r_max=limits[0], d_max=limits[1])
    x, grad_y = (scale * batch(shape)).requires_grad_(), batch(shape, seed=2)
    exact, exact_grads, statistics = oracle(layer, x, grad_y, *limits)
    y = layer(x)
    assert np.abs(y.detach().numpy() - exact).max() < 1e-12
    grads = torch.autograd.grad(y, (x, layer.weight, layer.bias), grad_y)
    for grad, expected in zip(grads, exact_grads, strict=True):
        assert np.abs(grad.numpy() - expected).max() < 1e-12 * max(1, np.abs(expected).max())
    assert np.abs(layer.running_mean.numpy() - statistics[0]).max() < 1e-13
    assert np.abs(layer.running_var.numpy() - statistics[1]).max() < 1e-13
    assert layer.num_batches_tracked == 1


@SHAPE
def test_with_the_narrowest_limits_it_is_batch_normalization(shape):
    layer = renorm(shape, **OFF)
    plain = PLAIN[len(shape)](3, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    x = batch(shape).requires_grad_()
    y, expected = layer(x), plain(x)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    weight = batch(shape, seed=2)
    for a, b in zip(
        torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()]),
        torch.autograd.grad((expected * weight).sum(), [x, *plain.parameters()]),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@SHAPE
def test_without_limits_training_sees_what_inference_will(shape):
    layer = renorm(shape, r_max=INFINITY, d_max=INFINITY)
    x = batch(shape)
    before = copy.deepcopy(layer).eval()(x)
    assert torch.allclose(layer(x), before, rtol=0, atol=1e-12)


@SHAPE
def test_inference_is_that_of_batch_normalization(shape):
    layer = renorm(shape).eval()
    plain = PLAIN[len(shape)](3, dtype=torch.float64).eval()
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(batch(shape)), plain(batch(shape)))


def test_small_batches_train_apart_from_inference_and_renorm_closes_the_gap():
    # The pain: two examples a batch are ±1 in training, whatever inference makes of them.
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(500, 2, 1, generator=generator, dtype=torch.float64) * 3.0 + 5.0
    for layer, closed in (
        (torch.nn.BatchNorm1d(1, dtype=torch.float64), False),
        (BatchRenorm1d(1, dtype=torch.float64, r_max=INFINITY, d_max=INFINITY), True),
    ):
        gaps = []
        for x in data:
            expected = copy.deepcopy(layer).eval()(x)
            gaps.append((layer(x) - expected).abs().mean().item())
        if closed:
            assert max(gaps) < 1e-12
        else:
            assert sum(gaps[100:]) / len(gaps[100:]) > 0.5


def test_no_gradient_passes_through_the_correction():
    # With r and d differentiated, an unlimited renorm would be inference, whose gradient is γ/σ.
    layer = renorm((8, 3), r_max=INFINITY, d_max=INFINITY)
    x = batch((8, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).sum(), x)
    assert grad.abs().max() < 1e-12


def test_schedules_are_the_papers_by_default():
    layer = BatchRenorm1d(3)
    steps = torch.tensor([0.0, 5_000, 15_000, 22_500, 25_000, 40_000, 10**6])
    r_max = torch.stack([layer.r_max(step) for step in steps])
    d_max = torch.stack([layer.d_max(step) for step in steps])
    assert torch.allclose(r_max, torch.tensor([1, 1, 11 / 7, 2, 15 / 7, 3, 3]).double())
    assert torch.allclose(d_max, torch.tensor([0, 0, 2.5, 4.375, 5, 5, 5]).double())
    assert layer.r_max(torch.tensor(22_500)).dtype == torch.float64


def test_a_schedule_is_read_at_the_number_of_batches_before():
    shape, seen = (8, 3), []

    def recorded(step):
        seen.append(step.item())
        return 1.0 + step

    layer = renorm(shape, r_max=recorded, d_max=LinearSchedule(0.0, 1.0, 0, 2))
    alike = {}
    for step in range(3):
        alike[step] = copy.deepcopy(layer)
        alike[step].r_max, alike[step].d_max = 1.0 + step, min(step / 2, 1.0)
        assert torch.equal(layer(batch(shape)), alike[step](batch(shape)))
    assert seen == [0.0, 1.0, 2.0]


def test_a_momentum_of_none_averages_all_batches_alike():
    layer = renorm((8, 3), momentum=None, **OFF)
    batches = [batch((8, 3), seed=seed) for seed in range(4)]
    for x in batches:
        layer(x)
    means = torch.stack([x.mean(0) for x in batches]).mean(0)
    stds = torch.stack([(x.var(0, unbiased=False) + layer.eps).sqrt() for x in batches]).mean(0)
    assert torch.allclose(layer.running_mean, means, rtol=0, atol=1e-13)
    assert torch.allclose(layer.running_var, stds.square() - layer.eps, rtol=0, atol=1e-13)


def test_a_constant_channel_keeps_a_variance_that_is_not_negative():
    layer = BatchRenorm1d(1, momentum=1.0)
    layer(torch.full((8, 1), 3.0))
    assert 0.0 <= layer.running_var.item() < 1e-9
    assert layer.running_mean.item() == 3.0


def test_a_statistic_too_large_for_its_type_stays_finite():
    layer = BatchRenorm1d(1, momentum=1.0, **OFF)
    layer(torch.tensor([[3e38], [-3e38]]))
    assert layer.running_var.item() == torch.finfo(torch.float32).max


@pytest.mark.parametrize("skip", [True, False])
def test_a_batch_that_is_not_finite(skip):
    layer = renorm((8, 3), skip_nonfinite=skip, **OFF)
    before = copy.deepcopy(layer.state_dict())
    x = batch((8, 3))
    x[0, 1] = math.nan
    y = layer(x)
    assert y[:, 1].isnan().all()
    assert not y[:, [0, 2]].isnan().any()
    assert layer.running_mean.isnan().any() != skip
    assert layer.running_var.isnan().any() != skip
    for name, value in before.items():
        assert torch.equal(value, layer.state_dict()[name]) == (skip or name in ("weight", "bias"))


def test_a_checkpointed_batch_counts_once():
    layer = renorm((8, 3), **OFF)
    alike = copy.deepcopy(layer)
    x = batch((8, 3)).requires_grad_()
    # What follows the layer needs its output, so that recomputation goes through all of it.
    checkpoint(lambda x: layer(x).exp().square(), x, use_reentrant=False).sum().backward()
    alike(x)
    for name, value in alike.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])


def test_statistics_that_are_not_tracked_for_a_while_stay():
    # As contexts that accumulate statistics ask for.
    layer = renorm((8, 3))
    before = copy.deepcopy(layer.state_dict())
    layer.track_running_stats = False
    assert torch.equal(layer(batch((8, 3))), renorm((8, 3))(batch((8, 3))))
    for name, value in before.items():
        assert torch.equal(value, layer.state_dict()[name])


@pytest.mark.parametrize("options", [{"affine": False}, {"bias": False}])
def test_without_parameters(options):
    layer = renorm((8, 3), r_max=INFINITY, d_max=INFINITY, **options)
    x = batch((8, 3))
    before = copy.deepcopy(layer).eval()(x)
    assert torch.allclose(layer(x), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"r_max": 0.9}, ValueError, "r_max: expected numbers not below 1.0, got 0.9"),
        ({"d_max": -1}, ValueError, "d_max: expected numbers not below 0.0, got -1"),
        ({"r_max": math.nan}, ValueError, "r_max: expected numbers not below 1.0, got nan"),
        (
            {"r_max": LinearSchedule(0.5, 3.0, 0, 1)},
            ValueError,
            "r_max: expected numbers not below 1.0, got 0.5",
        ),
        ({"d_max": "5"}, TypeError, "d_max: expected a number or a function of the step, got str"),
        ({"r_max": True}, TypeError, "r_max: expected a number or a function .* got bool"),
        ({"track_running_stats": False}, ValueError, "track_running_stats: expected True"),
    ],
)
def test_errors_name_the_argument(options, error, message):
    with pytest.raises(error, match=message):
        BatchRenorm1d(3, **options)


def test_statistics_of_another_type_are_refused_as_by_batch_normalization():
    layer = BatchRenorm1d(3)
    layer.running_mean = layer.running_mean.double()
    with pytest.raises(RuntimeError, match=r"running_mean: expected torch.float32 with an input"):
        layer(torch.ones(8, 3))
    assert layer.num_batches_tracked == 0


def test_a_schedule_needs_steps_in_order():
    with pytest.raises(ValueError, match="last_step: expected a step above first_step, 5, got 5"):
        LinearSchedule(0.0, 1.0, 5, 5)
