"""The network of the chapter `backprop`: gradients against autograd, training, errors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from companion import data
from companion.experiments import two_layer

NAMES = ("w1", "gamma1", "beta1", "w2", "gamma2", "beta2")


def random_parameters(d, h, k, seed=0):
    """Parameters without the symmetries of the start: γ of both signs, β not 0."""
    rng = np.random.default_rng(seed)
    return two_layer.initialize(d, h, k).map(lambda value: rng.normal(size=value.shape))


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    return random_parameters(7, 6, 4), rng.normal(size=(12, 7)), rng.integers(4, size=12)


def torch_loss(leaves, x, classes, statistics=None):
    """The same network from PyTorch's parts: logits and loss."""
    fixed = [None] * 4 if statistics is None else list(vars(statistics).values())
    fixed = [None if value is None else torch.tensor(value) for value in fixed]
    options = {"training": statistics is None, "eps": two_layer.EPS}
    z1 = torch.tensor(x) @ leaves.w1.T
    a1 = F.batch_norm(z1, *fixed[:2], leaves.gamma1, leaves.beta1, **options).relu()
    z2 = a1 @ leaves.w2.T
    logits = F.batch_norm(z2, *fixed[2:], leaves.gamma2, leaves.beta2, **options)
    return logits, F.cross_entropy(logits, torch.tensor(classes))


def test_forward_and_every_gradient_agree_with_autograd(case):
    p, x, classes = case
    activations = two_layer.forward(p, x)
    gradient = two_layer.backward(p, activations, classes)
    leaves = p.map(lambda value: torch.tensor(value, requires_grad=True))
    logits, loss = torch_loss(leaves, x, classes)
    loss.backward()
    np.testing.assert_allclose(activations.layer2.y, logits.detach(), atol=1e-12)
    assert two_layer.cross_entropy(activations.probabilities, classes) == pytest.approx(loss.item())
    for name in NAMES:
        expected = getattr(leaves, name).grad
        np.testing.assert_allclose(getattr(gradient, name), expected, atol=1e-12, err_msg=name)


def test_predictions_agree_with_evaluation_mode(case):
    p, x, classes = case
    statistics = two_layer.population(p, x, batch_size=6)
    logits, _ = torch_loss(p.map(torch.tensor), x, classes, statistics)
    expected = logits.softmax(dim=1)
    np.testing.assert_allclose(two_layer.predict(p, statistics, x), expected, atol=1e-12)
    # Each example on its own, whatever else is in the batch.
    np.testing.assert_allclose(two_layer.predict(p, statistics, x[:1]), expected[:1], atol=1e-12)


def test_population_statistics_average_the_batches_without_bias(case):
    p, x, _ = case
    statistics = two_layer.population(p, x[:11], batch_size=5)
    batches = np.stack([x[:5] @ p.w1.T, x[5:10] @ p.w1.T])
    np.testing.assert_allclose(statistics.mean1, batches.mean(axis=(0, 1)))
    np.testing.assert_allclose(statistics.var1, batches.var(axis=1, ddof=1).mean(axis=0))


def test_softmax_of_huge_logits_is_finite():
    np.testing.assert_allclose(two_layer.softmax([[1e4, 1e4, -1e4]]), [[0.5, 0.5, 0]])


def test_training_learns_the_digits_and_is_repeatable():
    split = data.digits(dtype=torch.float64)
    x, y = split.x_train.numpy(), split.y_train.numpy()
    start = two_layer.initialize(64, 32, 10)
    options = {"steps": 150, "batch_size": 60, "learning_rate": 1.0}
    learned, losses = two_layer.train(start, x, y, **options)
    assert len(losses) == 150
    statistics = two_layer.population(learned, x, batch_size=60)
    predicted = two_layer.predict(learned, statistics, split.x_test.numpy()).argmax(axis=1)
    assert (predicted == split.y_test.numpy()).mean() > 0.9
    assert two_layer.train(start, x, y, **options)[1] == losses
    assert two_layer.train(start, x, y, **options, seed=1)[1] != losses
    # The start is left alone.
    np.testing.assert_array_equal(start.w1, two_layer.initialize(64, 32, 10).w1)


def test_weights_start_with_a_variance_of_one_over_the_fan_in():
    start = two_layer.initialize(400, 100, 50)
    assert start.w1.std() == pytest.approx(400**-0.5, rel=0.05)
    assert start.w2.std() == pytest.approx(100**-0.5, rel=0.05)


@pytest.mark.parametrize("name", ["d", "h", "k"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=rf"{name}: expected at least 1, got 0"):
        two_layer.initialize(**{"d": 2, "h": 2, "k": 2, name: 0})


@pytest.mark.parametrize("shape", [(5,), (5, 6), (1, 7)])
def test_inputs_are_checked(case, shape):
    with pytest.raises(ValueError, match=r"x: expected shape \(m, 7\)"):
        two_layer.forward(case[0], np.zeros(shape))


def test_classes_are_checked(case):
    p, x, classes = case
    with pytest.raises(ValueError, match=r"classes: expected shape \(12,\), got \(11,\)"):
        two_layer.backward(p, two_layer.forward(p, x), classes[:11])


@pytest.mark.parametrize("size", [1, 13])
def test_batch_sizes_are_checked(case, size):
    p, x, classes = case
    with pytest.raises(ValueError, match=rf"batch_size: expected 2 to 12, got {size}"):
        two_layer.population(p, x, batch_size=size)
    with pytest.raises(ValueError, match=rf"batch_size: expected 2 to 12, got {size}"):
        two_layer.train(p, x, classes, steps=1, batch_size=size, learning_rate=1.0)
