"""Running averages against their explicit weights, in exact arithmetic and in simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from companion.statistics import RunningAverage, debias, ema_lag, ema_variance

MOMENTA = [0.001, 0.1, 0.7, 1.0]


def exact_weights(momentum, steps):
    """The normalized weights of values 1 to t, oldest first, as fractions."""
    alpha = Fraction(momentum)
    raw = [alpha * (1 - alpha) ** (steps - 1 - k) for k in range(steps)]
    return [weight / sum(raw) for weight in raw]


def averaged(values, momentum):
    average = RunningAverage.empty(values[0].shape, momentum)
    for value in values:
        average = average.update(value)
    return average


def random_values(steps, shape=(3,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(steps, *shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 2, 17])
@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_weights_are_exact_and_sum_to_one(momentum, steps):
    weights = exact_weights(momentum, steps)
    for k in range(steps):
        values = [torch.tensor([float(k == j)]) for j in range(steps)]
        got = averaged(values, momentum).value.item()
        assert abs(got - float(weights[k])) < 1e-15


@pytest.mark.parametrize("momentum", [*MOMENTA, None])
@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, -1e-9])
def test_the_average_of_equal_values_is_that_value_exactly(momentum, value):
    average = averaged([torch.tensor([value], dtype=torch.float64)] * 50, momentum)
    assert average.value.item() == value


def test_without_momentum_all_values_weigh_alike():
    values = random_values(23)
    mean = torch.stack(values).mean(dim=0)
    assert torch.allclose(averaged(values, None).value, mean, rtol=0, atol=1e-15)


def test_a_small_momentum_is_nearly_the_mean_of_all():
    values = random_values(23)
    mean = torch.stack(values).mean(dim=0)
    assert torch.allclose(averaged(values, 1e-12).value, mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.01, 0.1, 1.0, None])
def test_started_at_is_what_a_layer_holds(momentum):
    layer = nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    means, variances = [], []
    for batch in random_values(7, (6, 3)):
        layer(batch)
        means.append(batch.mean(dim=0))
        variances.append(batch.var(dim=0))
    mean, var = averaged(means, momentum), averaged(variances, momentum)
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert torch.allclose(mean.started_at(zeros), layer.running_mean, rtol=0, atol=1e-15)
    assert torch.allclose(var.started_at(ones), layer.running_var, rtol=0, atol=1e-14)


def test_nothing_averaged_is_the_start_in_a_new_tensor():
    start = torch.ones(3, dtype=torch.float64)
    average = RunningAverage.empty(torch.Size([3]), 0.1).started_at(start)
    average.zero_()
    assert start.sum() == 3.0


def test_young_running_statistics_are_mostly_their_start_and_can_be_debiased():
    # The complaint: after 5 batches at momentum 0.01 the layer knows next to nothing.
    layer = nn.BatchNorm1d(3, momentum=0.01, dtype=torch.float64)
    batches = [5.0 + 2.0 * batch for batch in random_values(5, (64, 3))]
    for batch in batches:
        layer(batch)
    together = torch.cat(batches)
    assert (layer.running_mean - together.mean(dim=0)).abs().min() > 4.5
    assert (layer.running_var - together.var(dim=0)).abs().min() > 2.0
    mean = debias(layer.running_mean, 0.0, 0.01, int(layer.num_batches_tracked))
    var = debias(layer.running_var, 1.0, 0.01, int(layer.num_batches_tracked))
    for got, values in (
        (mean, [b.mean(dim=0) for b in batches]),
        (var, [b.var(0) for b in batches]),
    ):
        assert torch.allclose(got, averaged(values, 0.01).value, rtol=0, atol=1e-12)
    assert (mean - together.mean(dim=0)).abs().max() < 0.02
    assert (var - together.var(dim=0)).abs().max() < 0.1


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("momentum", [*MOMENTA, 1e-9])
def test_variance_and_lag_are_those_of_the_weights(momentum, steps):
    weights = exact_weights(momentum, steps)
    variance = float(sum(weight**2 for weight in weights))
    lag = float(sum((steps - 1 - k) * weight for k, weight in enumerate(weights)))
    assert math.isclose(ema_variance(momentum, steps), variance, rel_tol=1e-12)
    assert math.isclose(ema_lag(momentum, steps), lag, rel_tol=1e-11, abs_tol=1e-12)


def test_lag_on_both_sides_of_the_expansion():
    for momentum in (1.9e-7, 2.1e-7):
        weights = exact_weights(momentum, 50)
        lag = float(sum((49 - k) * weight for k, weight in enumerate(weights)))
        assert math.isclose(ema_lag(momentum, 50), lag, rel_tol=1e-10)


@pytest.mark.parametrize("momentum", [0.01, 0.1, 0.5, 1.0])
def test_in_the_end(momentum):
    assert math.isclose(ema_variance(momentum), momentum / (2 - momentum), rel_tol=1e-15)
    assert math.isclose(ema_lag(momentum), (1 - momentum) / momentum, rel_tol=1e-15)
    assert ema_variance(momentum, 10_000) == ema_variance(momentum)


def test_simulated_variance_and_lag():
    momentum, steps, runs = 0.1, 60, 40_000
    noise = np.random.default_rng(0).normal(size=(steps, runs))
    average = averaged(list(torch.from_numpy(noise)), momentum)
    assert abs(average.value.var().item() / ema_variance(momentum, steps) - 1) < 0.03
    # Something that moves by 2 a step is trailed by twice the lag.
    line = averaged([torch.tensor([2.0 * step]) for step in range(steps)], momentum)
    trail = 2.0 * (steps - 1) - line.value.item()
    assert math.isclose(trail, 2.0 * ema_lag(momentum, steps), rel_tol=1e-12)
    assert abs(trail - 18.0) < 0.3


def test_no_gradient_and_no_alias():
    value = torch.ones(3, dtype=torch.float64, requires_grad=True)
    average = RunningAverage.empty(torch.Size([3]), 0.1).update(value)
    assert not average.value.requires_grad
    with torch.no_grad():
        value.zero_()
    assert average.value.sum() == 3.0


def test_errors_name_the_argument():
    for momentum in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="momentum: expected a number above 0 and up to 1"):
            RunningAverage.empty(torch.Size([3]), momentum)
        with pytest.raises(ValueError, match="momentum: expected a number above 0"):
            ema_variance(momentum)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        debias(torch.zeros(3), 0.0, 0.1, 0)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        ema_lag(0.1, 0)
    with pytest.raises(ValueError, match="steps: expected a number not below 0, got -1"):
        RunningAverage(0.1, -1, torch.zeros(3))
    with pytest.raises(ValueError, match=r"value: expected shape \(3,\), got \(1,\)"):
        RunningAverage.empty(torch.Size([3]), 0.1).update(torch.zeros(1))
