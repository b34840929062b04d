import copy

import pytest
import torch
from _family import assert_same, state_of, trained_on_digits
from torch import nn

import companion
from companion.experiments import accuracy
from companion.variants import ExampleWeightedBatchNorm1d, adapted_statistics

PACKAGES = pytest.mark.parametrize("package", [nn, companion])
SEEDS = pytest.mark.parametrize("seed", range(4))


def network(package):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), package.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(8, 8), package.BatchNorm1d(8)).double()
    for _ in range(3):
        model(inputs(20))
    return model


def inputs(size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 5, dtype=torch.float64, generator=generator) * 2 + 1


@PACKAGES
@pytest.mark.parametrize("source_size", [0.0, 4.0, 60.0])
def test_every_layer_has_the_mixture(package, source_size):
    model, x = network(package), inputs(20)
    first, relu, second = model[0], model[2], model[4]
    share = 20 / (source_size + 20)
    h, expected = first(x), []
    for layer, after in ((model[1], lambda y: second(relu(y))), (model[5], lambda y: y)):
        mean = (1 - share) * layer.running_mean + share * h.mean(0)
        var = (1 - share) * layer.running_var + share * h.var(0, unbiased=False)
        expected.append((mean, var))
        h = (h - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias
        output, h = h, after(h)
    with adapted_statistics(model, x, source_size=source_size) as adapted:
        assert adapted is model
        assert not any(module.training for module in model.modules())
        for layer, (mean, var) in zip((model[1], model[5]), expected, strict=True):
            assert torch.allclose(layer.running_mean, mean, rtol=0, atol=1e-12)
            assert torch.allclose(layer.running_var, var, rtol=0, atol=1e-12)
        assert torch.allclose(model(x), output, rtol=0, atol=1e-12)


@PACKAGES
def test_replaced_statistics_are_training_mode_and_infinitely_many_are_inference(package):
    model, x = network(package), inputs(20)
    model[3].p = 0.0
    expected = {0.0: copy.deepcopy(model).train()(x), float("inf"): copy.deepcopy(model).eval()(x)}
    for size, y in expected.items():
        with adapted_statistics(model, x, source_size=size):
            assert torch.allclose(model(x), y, rtol=0, atol=1e-12)


@PACKAGES
def test_the_model_is_left_as_it_was_after_an_error_too(package):
    model = network(package).train()
    model[1].eval()
    before = state_of(model)
    with adapted_statistics(model, inputs(20)):
        kept = copy.deepcopy(model)
        output = model(inputs(3))
    assert_same(before, state_of(model))
    assert torch.equal(kept(inputs(3)), output)
    with pytest.raises(KeyError), adapted_statistics(model, inputs(20)):
        raise KeyError
    assert_same(before, state_of(model))
    with pytest.raises(RuntimeError), adapted_statistics(model, torch.ones(3, 4)):
        pass
    assert_same(before, state_of(model))


@SEEDS
def test_a_change_of_contrast_is_repaired(seed):
    # The pain: PyTorch's layers in evaluation mode meet dim, bright images.
    model, split = trained_on_digits(seed)
    companion.convert(model, to="torch")
    x, y = split.x_test, split.y_test
    dim, clean = 0.3 * x + 0.5, accuracy(model, x, y)
    assert clean > 0.96
    assert accuracy(model, dim, y) < 0.4
    with adapted_statistics(model, dim):
        assert accuracy(model, dim, y) > clean - 0.02
    # Few examples, and what the running statistics know.
    with adapted_statistics(model, dim[:16], source_size=16):
        assert accuracy(model, dim, y) > 0.5
    assert accuracy(model, x, y) == clean


@SEEDS
def test_uneven_pixels_are_repaired_in_part_and_noise_is_not(seed):
    model, split = trained_on_digits(seed)
    generator = torch.Generator().manual_seed(seed)
    gains = torch.exp(0.8 * torch.randn(64, generator=generator))
    noise = 0.3 * torch.randn(split.x_test.shape, generator=generator)
    gained = {}
    for name, x in {"gains": split.x_test * gains, "noise": split.x_test + noise}.items():
        before = accuracy(model, x, split.y_test)
        with adapted_statistics(model, x):
            gained[name] = accuracy(model, x, split.y_test) - before
    assert gained["gains"] > 0.08
    assert abs(gained["noise"]) < 0.06


def test_other_proportions_of_the_classes_are_no_shift_to_adapt_to():
    model, split = trained_on_digits(0)
    ones = split.y_test == 1
    x, y = split.x_test[ones], split.y_test[ones]
    assert accuracy(model, x, y) > 0.9
    with adapted_statistics(model, x):
        assert accuracy(model, x, y) < 0.5


def test_one_example_is_enough_for_a_mixture():
    model, x = network(nn), inputs(1)
    with adapted_statistics(model, x, source_size=16):
        assert torch.isfinite(model(x)).all()


def test_a_layer_called_twice_mixes_with_its_own_statistics():
    layer = companion.BatchNorm1d(5, dtype=torch.float64)
    x = inputs(20)
    with adapted_statistics(nn.Sequential(layer, layer), x, source_size=20):
        second = (x - x.mean(0) / 2) / ((1 + x.var(0, unbiased=False)) / 2 + 1e-5).sqrt()
        assert torch.allclose(layer.running_mean, second.mean(0) / 2, rtol=0, atol=1e-12)


def test_layers_of_the_family_are_adapted():
    layer = ExampleWeightedBatchNorm1d(5, alpha=0.0, dtype=torch.float64)
    x = inputs(20)
    with adapted_statistics(layer, x):
        assert torch.allclose(layer.running_mean, x.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (nn.BatchNorm1d(5), torch.ones(0, 5), {}, "x: expected at least 1 example"),
        (
            nn.BatchNorm1d(5),
            torch.ones(2, 5),
            {"source_size": -1.0},
            "source_size: expected a number not below 0, got -1.0",
        ),
        (nn.Linear(5, 5), torch.ones(2, 5), {}, "model: expected at least 1 batch normalization"),
        (
            nn.BatchNorm1d(5, track_running_stats=False),
            torch.ones(2, 5),
            {},
            "with running statistics, got none in 'the model'",
        ),
    ],
)
def test_errors_name_the_argument(model, x, options, message):
    with pytest.raises(ValueError, match=message), adapted_statistics(model, x, **options):
        pass
