import itertools

import pytest
import torch
from torch import nn

from companion.experiments import accuracy, minibatches, train


def test_minibatches_visit_every_example_once_an_epoch():
    x = torch.arange(10)
    batches = minibatches(x, x, 3, torch.Generator().manual_seed(0))
    epochs = [[next(batches)[0] for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        values = torch.cat(epoch)
        assert len(values) == len(values.unique()) == 9
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_inputs_and_targets_stay_together():
    x = torch.arange(10)
    batches = minibatches(x, x * 2, 4, torch.Generator().manual_seed(0))
    for inputs, targets in itertools.islice(batches, 5):
        assert torch.equal(targets, inputs * 2)


@pytest.mark.parametrize("size", [0, 11])
def test_a_batch_larger_than_the_data_is_refused(size):
    with pytest.raises(ValueError, match=f"batch_size: expected 1 to 10, got {size}"):
        next(minibatches(torch.ones(10), torch.ones(10), size, torch.Generator()))


def test_training_learns_and_is_repeatable():
    torch.manual_seed(0)
    x = torch.randn(200, 2)
    y = (x[:, 0] > 0).long()
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        model = nn.Linear(2, 2)
        options = {"steps": 100, "batch_size": 20, "learning_rate": 1.0}
        runs.append(train(model, x, y, **options))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 100
    assert runs[0][-1] < 0.2 < runs[0][0]
    assert accuracy(model, x, y) > 0.95


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_the_learning_rate_times_the_velocity(momentum):
    torch.manual_seed(0)
    x, y = torch.randn(8, 3).double(), torch.tensor([0, 1] * 4)
    model = nn.Linear(3, 2, bias=False).double()
    weight, velocity = model.weight.detach().clone().requires_grad_(), 0.0
    expected = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(x @ weight.T, y)
        (grad,) = torch.autograd.grad(loss, weight)
        velocity = momentum * velocity + grad
        weight = (weight - 0.5 * velocity).detach().requires_grad_()
        expected.append(loss.item())
    options = {"steps": 4, "batch_size": 8, "learning_rate": 0.5, "momentum": momentum}
    assert train(model, x, y, **options) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(model.weight, weight)


def test_training_is_in_training_mode():
    norm = nn.BatchNorm1d(2)
    x, y = torch.randn(8, 2) + 5, torch.tensor([0, 1] * 4)
    train(norm.eval(), x, y, steps=1, batch_size=8, learning_rate=0.1)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(dim=0))


def test_accuracy_is_taken_in_evaluation_mode_and_restores_the_mode():
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    x = torch.eye(3) + 1
    assert accuracy(model, x, torch.arange(3)) == 1
    assert model.training
