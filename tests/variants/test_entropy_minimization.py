import copy

import pytest
import torch
from _family import assert_same, state_of, trained_on_digits
from torch import nn
from torch.nn import functional as F

import companion
from companion.experiments import accuracy
from companion.variants import adapted_statistics, tent

PACKAGES = pytest.mark.parametrize("package", [nn, companion])


def network(package):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), package.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(8, 3)).double()
    model(inputs(20)).sum().backward()
    model[0].bias.requires_grad_(False)
    return model


def inputs(size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 5, dtype=torch.float64, generator=generator) * 2 + 1


def entropy(logits):
    return -(F.softmax(logits, 1) * F.log_softmax(logits, 1)).sum(1).mean()


@PACKAGES
def test_steps_of_adam_on_weight_and_bias_down_the_entropy(package):
    model = network(package)
    alike = copy.deepcopy(model)
    alike[3].p, alike[1].momentum = 0.0, 0.0
    optimizer = torch.optim.Adam(alike[1].parameters(), lr=0.02)
    with tent(model, learning_rate=0.02) as adapt:
        for seed in range(4):
            logits = adapt(inputs(20, seed))
            expected = alike.train()(inputs(20, seed))
            assert torch.allclose(logits, expected, rtol=0, atol=1e-12)
            assert not logits.requires_grad
            optimizer.zero_grad()
            entropy(expected).backward()
            optimizer.step()
            for name, value in alike.named_parameters():
                parameter = model.get_parameter(name)
                assert torch.allclose(parameter, value, rtol=0, atol=1e-12), name
        # Nothing is computed for what does not learn.
        with_gradient = [name for name, p in model.named_parameters() if p.grad is not None]
        assert with_gradient == ["1.weight", "1.bias"]


def fails_at_the_second_batch(model):
    with tent(model) as adapt:
        adapt(inputs(20))
        adapt(inputs(20)[:, :4])


@PACKAGES
def test_the_model_is_left_as_it_was_after_an_error_too(package):
    model = network(package).train()
    model[1].eval()
    before = state_of(model)
    with tent(model) as adapt:
        adapt(inputs(20))
        kept = copy.deepcopy(model.state_dict())
    assert_same(before, state_of(model))
    assert not torch.equal(kept["1.weight"], model.state_dict()["1.weight"])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fails_at_the_second_batch(model)
    assert_same(before, state_of(model))


def test_dense_predictions_have_an_entropy_for_each_position():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), companion.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    alike, x = copy.deepcopy(model.double()), torch.randn(4, 2, 5, 5, dtype=torch.float64)
    optimizer = torch.optim.Adam(alike[1].parameters(), lr=0.05)
    with tent(model, learning_rate=0.05) as adapt:
        for _ in range(3):
            optimizer.zero_grad()
            entropy(alike(x)).backward()
            optimizer.step()
            assert adapt(x).shape == (4, 3, 3, 3)
            assert torch.allclose(model[1].weight, alike[1].weight, rtol=0, atol=1e-12)


def drifted(split, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    return split.x_test * torch.exp(spread * torch.randn(64, generator=generator))


def test_corrupted_digits_are_recovered_and_better_than_by_statistics_alone():
    # The pain: each pixel's gain has drifted; PyTorch's layers in evaluation mode do not notice.
    accuracies = {"before": [], "statistics": [], "tent": []}
    for seed in range(4):
        model, split = trained_on_digits(seed)
        companion.convert(model, to="torch")
        x = drifted(split, seed, 0.8)
        accuracies["before"].append(accuracy(model, x, split.y_test))
        with adapted_statistics(model, x):
            accuracies["statistics"].append(accuracy(model, x, split.y_test))
        with tent(model, learning_rate=0.01) as adapt:
            for _ in range(60):
                logits = adapt(x)
        right = (logits.argmax(1) == split.y_test).double().mean().item()
        accuracies["tent"].append(right)
        assert right > accuracies["before"][-1] + 0.1
        assert right > 0.8
        assert accuracy(model, x, split.y_test) == accuracies["before"][-1]
    means = {name: sum(values) / len(values) for name, values in accuracies.items()}
    assert means["tent"] > means["statistics"] + 0.01
    assert means["statistics"] > means["before"] + 0.3


def test_where_many_predictions_are_wrong_it_does_harm():
    lost = []
    for seed in range(3):
        model, split = trained_on_digits(seed)
        x = drifted(split, seed, 1.2)
        with adapted_statistics(model, x):
            lost.append(accuracy(model, x, split.y_test))
        with tent(model, learning_rate=0.03) as adapt:
            for _ in range(60):
                logits = adapt(x)
        lost[-1] -= (logits.argmax(1) == split.y_test).double().mean().item()
    assert sum(lost) / len(lost) > 0.02


def test_a_parameter_that_layers_share_is_learned_once():
    first, second = (companion.BatchNorm1d(5, dtype=torch.float64) for _ in range(2))
    second.weight = first.weight
    model = nn.Sequential(first, second)
    with tent(model, learning_rate=0.1) as adapt:
        adapt(inputs(20))
        assert ((first.weight - 1).abs() < 0.1 + 1e-6).all()


@pytest.mark.parametrize(
    ("model", "rate", "message"),
    [
        (nn.Linear(5, 5), 0.1, "model: expected at least 1 batch normalization layer, got none"),
        (nn.BatchNorm1d(5, affine=False), 0.1, "model: expected .* with parameters, got none"),
        (nn.BatchNorm1d(5), 0.0, "learning_rate: expected a positive number, got 0.0"),
    ],
)
def test_errors_name_the_argument(model, rate, message):
    with pytest.raises(ValueError, match=message), tent(model, learning_rate=rate):
        pass


@PACKAGES
def test_a_batch_of_one_vector_is_refused(package):
    model = network(package)
    before = state_of(model)
    with pytest.raises(ValueError, match="more than 1 value per channel"), tent(model) as adapt:
        adapt(inputs(1))
    assert_same(before, state_of(model))
