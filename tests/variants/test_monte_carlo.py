import copy

import pytest
import torch
from torch import nn

import companion
from companion.variants import monte_carlo_predict

LAYERS = pytest.mark.parametrize("layer", [companion.BatchNorm1d, nn.BatchNorm1d])


def network(layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), layer(8), nn.ReLU(), nn.Linear(8, 8), layer(8))
    model(torch.randn(20, 5))
    return model.double()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(size, seed=1):
    return torch.randn(size, 5, dtype=torch.float64, generator=seeded(seed))


@LAYERS
def test_a_sample_is_the_training_output_of_its_own_batch(layer):
    # Predicting the batch that gave the statistics is training mode.
    model, data = network(layer), inputs(6)
    predicted = monte_carlo_predict(model, data, data, batch_size=6, samples=1, generator=seeded())
    expected = copy.deepcopy(model).train()(data)
    assert torch.allclose(predicted[0], expected, rtol=0, atol=1e-12)


@LAYERS
def test_statistics_come_from_the_batch_not_from_x(layer):
    model, data, x = network(layer), inputs(50), inputs(7, seed=2)
    options = {"batch_size": 10, "samples": 4}
    together = monte_carlo_predict(model, x, data, **options, generator=seeded())
    alone = monte_carlo_predict(model, x[2:3], data, **options, generator=seeded())
    assert together.shape == (4, 7, 8)
    assert torch.allclose(together[:, 2:3], alone, rtol=0, atol=1e-12)
    assert together.std(dim=0).min() > 1e-3


@LAYERS
def test_one_batch_of_all_data_leaves_no_uncertainty(layer):
    predicted = monte_carlo_predict(
        network(layer), inputs(7, seed=2), inputs(50), batch_size=50, samples=5, generator=seeded()
    )
    assert predicted.std(dim=0).max() < 1e-12


def test_more_data_behind_the_statistics_means_less_variance():
    model, x, data = network(nn.BatchNorm1d), inputs(7, seed=2), inputs(2000)
    variances = [
        monte_carlo_predict(model, x, data, batch_size=m, samples=400, generator=seeded())
        .var(dim=0)
        .mean()
        for m in (40, 160)
    ]
    assert 3 < variances[0] / variances[1] < 6


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
        "objects": [id(buffer) for buffer in model.buffers()],
        "values": copy.deepcopy(model.state_dict()),
    }


def assert_same(before, after):
    for key in ("modes", "hooks", "objects"):
        assert before[key] == after[key], key
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name


@LAYERS
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(layer, training):
    model = network(layer).train(training)
    model[1].train(not training)
    before = state_of(model)
    predicted = monte_carlo_predict(
        model, inputs(3), inputs(20), batch_size=5, samples=2, generator=seeded()
    )
    assert_same(before, state_of(model))
    assert not predicted.requires_grad


class Fails(nn.Module):
    """Raises at the given call."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("stopped")
        return x


@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_model_is_left_as_it_was_after_an_error(call):
    model = network(nn.BatchNorm1d).append(Fails(call)).train()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="stopped"):
        monte_carlo_predict(
            model, inputs(3), inputs(20), batch_size=5, samples=2, generator=seeded()
        )
    assert_same(before, state_of(model))


def test_dropout_adds_nothing():
    model, x, data = network(nn.BatchNorm1d), inputs(3), inputs(20)
    options = {"batch_size": 5, "samples": 2}
    without = monte_carlo_predict(model, x, data, **options, generator=seeded())
    model.insert(3, nn.Dropout(0.5))
    with_dropout = monte_carlo_predict(model, x, data, **options, generator=seeded())
    assert torch.equal(without, with_dropout)


def test_images_and_statistics_in_half_precision():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(torch.bfloat16)
    data = torch.randn(10, 2, 5, 5, generator=seeded()).to(torch.bfloat16)
    predicted = monte_carlo_predict(
        model, data[:4], data, batch_size=2, samples=3, generator=seeded()
    )
    assert predicted.shape == (3, 4, 3, 3, 3)
    assert predicted.dtype == torch.bfloat16


@pytest.mark.parametrize("size", [1, 21])
def test_a_batch_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=f"batch_size: expected 2 to 20, .* got {size}"):
        monte_carlo_predict(
            network(nn.BatchNorm1d),
            inputs(3),
            inputs(20),
            batch_size=size,
            samples=1,
            generator=seeded(),
        )


@pytest.mark.parametrize(
    ("model", "samples", "message"),
    [
        (nn.Linear(5, 5).double(), 1, "model: expected at least 1 batch normalization layer"),
        (
            nn.Sequential(nn.BatchNorm1d(5, track_running_stats=False)).double(),
            1,
            "model: expected batch normalization layers with running statistics, got none in '0'",
        ),
        (nn.BatchNorm1d(5).double(), 0, "samples: expected at least 1, got 0"),
    ],
)
def test_errors_name_the_argument(model, samples, message):
    with pytest.raises(ValueError, match=message):
        monte_carlo_predict(
            model, inputs(3), inputs(20), batch_size=5, samples=samples, generator=seeded()
        )
