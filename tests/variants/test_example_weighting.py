import numpy as np
import pytest
import torch
from _family import SHAPES, batch, randomized

import companion
from companion import reference
from companion.variants import (
    ExampleWeightedBatchNorm1d,
    ExampleWeightedBatchNorm2d,
    ExampleWeightedBatchNorm3d,
    instance_norm,
)

CLASSES = {
    2: ExampleWeightedBatchNorm1d,
    3: ExampleWeightedBatchNorm1d,
    4: ExampleWeightedBatchNorm2d,
    5: ExampleWeightedBatchNorm3d,
}
PLAIN = {2: companion.BatchNorm1d, 3: companion.BatchNorm1d, 4: companion.BatchNorm2d}
PLAIN[5] = companion.BatchNorm3d
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
SPATIAL = pytest.mark.parametrize("shape", list(SHAPES.values())[1:], ids=list(SHAPES)[1:])


def pair(shape, alpha, dtype=torch.float64, **options):
    weighted = randomized(CLASSES[len(shape)](3, dtype=dtype, alpha=alpha, **options))
    plain = PLAIN[len(shape)](3, dtype=dtype, **options)
    plain.load_state_dict(weighted.state_dict())
    return weighted.eval(), plain.eval()


def oracle(layer, x):
    """The paper's moments E[x] and E[x²], example by example and channel by channel."""
    x, state = x.double().numpy(), {k: v.double().numpy() for k, v in layer.state_dict().items()}
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            mean, var = state["running_mean"][c], state["running_var"][c]
            first = layer.alpha * x[i, c].mean() + (1 - layer.alpha) * mean
            second = layer.alpha * (x[i, c] ** 2).mean() + (1 - layer.alpha) * (var + mean**2)
            x_hat = (x[i, c] - first) / np.sqrt(second - first**2 + layer.eps)
            y[i, c] = state["weight"][c] * x_hat + state["bias"][c]
    return y


@SHAPE
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_the_papers_formula(shape, alpha):
    layer, _ = pair(shape, alpha)
    x = batch(shape)
    assert np.abs(layer(x).detach().numpy() - oracle(layer, x)).max() < 1e-11


@SHAPE
def test_a_share_of_zero_is_ordinary_inference(shape):
    layer, plain = pair(shape, 0.0)
    assert torch.equal(layer(batch(shape)), plain(batch(shape)))


@SHAPE
def test_training_is_that_of_batch_normalization(shape):
    layer, plain = pair(shape, 0.5)
    assert torch.equal(layer.train()(batch(shape)), plain.train()(batch(shape)))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])


@SPATIAL
def test_a_share_of_one_is_instance_normalization(shape):
    layer, _ = pair(shape, 1.0)
    x = batch(shape)
    expected = instance_norm(x, layer.weight, layer.bias, layer.eps)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


@SHAPE
@pytest.mark.parametrize("size", [2, 5])
def test_consistent_with_a_training_batch(shape, size):
    # The others' statistics are the running ones; 1/B brings the example in.
    x = batch((size, *shape[1:]))
    layer, plain = pair(shape, 1.0 / size)
    expected = plain.train()(x)
    for i in range(size):
        others = torch.cat([x[:i], x[i + 1 :]])
        mean, var = reference.moments(others.numpy())
        layer.running_mean.copy_(torch.from_numpy(mean))
        layer.running_var.copy_(torch.from_numpy(var))
        assert torch.allclose(layer(x[i : i + 1]), expected[i : i + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_inference_is_what_training_is_on_average_over_the_others(size):
    # The pain: after training with small batches, inference treats an example as training never
    # did, even with the population's own statistics. The examples differ in their means too.
    generator = torch.Generator().manual_seed(0)

    def drawn(count):
        options = {"generator": generator, "dtype": torch.float64}
        return torch.randn(count, 1, 1, 1, **options) / 2 + torch.randn(count, 1, 3, 3, **options)

    x, population = drawn(200), {"running_mean": 0.0, "running_var": 1.25}
    train = torch.zeros_like(x)
    for _ in range(200):
        for i, others in enumerate(drawn(200 * (size - 1)).split(size - 1)):
            members = torch.cat([x[i : i + 1], others])
            mean, var = members.mean(), members.var(unbiased=False)
            train[i] += (x[i] - mean) / (var + 1e-5).sqrt() / 200

    def error(layer):
        for name, value in population.items():
            getattr(layer, name).fill_(value)
        with torch.no_grad():
            return (layer.eval()(x) - train).square().mean().sqrt().item()

    def weighted(alpha):
        return error(ExampleWeightedBatchNorm2d(1, alpha=alpha, dtype=torch.float64))

    best = weighted(1 / size)
    assert error(torch.nn.BatchNorm2d(1, dtype=torch.float64)) > 2.5 * best
    assert min(weighted(0.5 / size), weighted(1.5 / size)) > 1.3 * best


def test_each_example_is_on_its_own():
    layer, _ = pair(SHAPES["2d"], 0.5)
    x = batch(SHAPES["2d"])
    assert torch.allclose(layer(x)[2:3], layer(x[2:3]), rtol=0, atol=1e-12)


def test_an_offset_costs_nothing():
    layer, _ = pair(SHAPES["2d"], 0.5)
    x = batch(SHAPES["2d"])
    expected = layer(x)
    layer.running_mean += 2.0**30
    assert torch.allclose(layer(x + 2.0**30), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"bias": False}, {"track_running_stats": False}]
)
def test_options_of_the_layer(options):
    shape = SHAPES["2d"]
    cls = ExampleWeightedBatchNorm2d
    layer = cls(3, alpha=0.5, dtype=torch.float64, **options).eval()
    full = cls(3, alpha=0.5, dtype=torch.float64).eval()
    if "track_running_stats" in options:
        full = companion.BatchNorm2d(3, dtype=torch.float64).train()
    assert torch.allclose(layer(batch(shape)), full(batch(shape)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha: expected a number from 0 to 1, got"):
        ExampleWeightedBatchNorm1d(3, alpha=alpha)
    layer = ExampleWeightedBatchNorm1d(3, alpha=0.25)
    with pytest.raises(ValueError, match="alpha: expected a number from 0 to 1, got"):
        layer.alpha = alpha
    assert layer.alpha == 0.25
    assert str(layer).endswith("alpha=0.25)")
