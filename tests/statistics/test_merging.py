"""Statistics of several clients, merged, against those of all their data together."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion import merge_statistics, reference, update_precise
from companion.variants import DecorrelatedBatchNorm2d, freeze

SIZES = (7, 40, 3)


def network(layers=nn):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3), layers.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(54, 4), layers.BatchNorm1d(4)),
    ).double()


def data_of(client, size):
    """Images; each client's have another mean and another variance."""
    generator = torch.Generator().manual_seed(client)
    x = torch.randn(size, 2, 5, 5, dtype=torch.float64, generator=generator)
    return (1.0 + client) * x + 10.0 * client


def counts_of(size):
    return {"1": size * 9, "5": size}


def inputs(model, x):
    """What goes into the two normalizations at inference."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return {"1": model[:1](x), "5": model[:5](x)}


@pytest.fixture
def clients():
    """One model, recalibrated on the data of each client."""
    models = [network() for _ in SIZES]
    for client, (model, size) in enumerate(zip(models, SIZES, strict=True)):
        update_precise(model, [data_of(client, size)], passes=2, progress=False)
    return models


@pytest.mark.parametrize("layers", [nn, companion])
@pytest.mark.parametrize("form", [lambda model: model, nn.Module.state_dict])
def test_merged_statistics_are_those_of_all_data_together(clients, layers, form):
    together = torch.cat([data_of(client, size) for client, size in enumerate(SIZES)])
    model = network(layers)
    before = copy.deepcopy(model.state_dict())
    buffers = [id(buffer) for buffer in model.buffers()]
    merge_statistics(model, [form(client) for client in clients], [counts_of(m) for m in SIZES])
    # The first layers saw the data, the second ones what each client's first one made of its own.
    behind = [
        inputs(client, data_of(k, size))["5"]
        for k, (client, size) in enumerate(zip(clients, SIZES, strict=True))
    ]
    for name, values in {"1": inputs(model, together)["1"], "5": torch.cat(behind)}.items():
        layer, m = model.get_submodule(name), values.numel() // values.shape[1]
        mean, var = reference.moments(values.numpy())
        np.testing.assert_allclose(layer.running_mean, mean, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.running_var, var * m / (m - 1), rtol=1e-12)
        assert layer.num_batches_tracked == len(SIZES)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    assert [id(buffer) for buffer in model.buffers()] == buffers


def test_an_average_of_variances_is_not_enough(clients):
    """The pain: federated averaging leaves out the variance between the clients."""
    model = network()
    merge_statistics(model, clients, [counts_of(size) for size in SIZES])
    weights = torch.tensor(SIZES).double() / sum(SIZES)
    averaged = sum(w * client[1].running_var for w, client in zip(weights, clients, strict=True))
    assert (model[1].running_var > averaged).all()
    assert model[1].running_var.mean() > 2.0 * averaged.mean()


@pytest.mark.parametrize("cls", [nn.BatchNorm1d, companion.BatchNorm1d, nn.SyncBatchNorm])
def test_a_layer_by_itself_and_one_number_for_all(cls):
    parts = torch.randn(30, 3, dtype=torch.float64).split([5, 24, 1])
    layers = [nn.BatchNorm1d(3, dtype=torch.float64) for _ in parts]
    for layer, part in zip(layers, parts, strict=True):
        layer.running_mean.copy_(part.mean(0))
        # Of one value there is no variance: whatever is there has no weight.
        layer.running_var.copy_(part.var(0) if len(part) > 1 else part.new_full((3,), 1e300))
    unused = nn.BatchNorm1d(3)
    unused.running_var.fill_(float("nan"))
    target = cls(3, dtype=torch.float64)
    merge_statistics(target, [*layers, unused], [5, 24, torch.tensor(1), 0])
    together = torch.cat(parts)
    assert torch.allclose(target.running_mean, together.mean(0), rtol=0, atol=1e-15)
    assert torch.allclose(target.running_var, together.var(0), rtol=1e-14, atol=0)


def test_the_target_may_be_a_source_and_types_may_differ():
    target, other = nn.BatchNorm1d(1, dtype=torch.float32), nn.BatchNorm1d(1, dtype=torch.float64)
    other.running_mean.fill_(2.0)
    merge_statistics(target, [target, other], [100, 100])
    assert target.running_mean.dtype == torch.float32
    assert target.running_mean.item() == 1.0
    assert target.running_var.item() == np.float32((99 + 99 + 200) / 199)


def test_a_state_dictionary_of_old_has_no_count():
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    del state["num_batches_tracked"]
    merge_statistics(layer, [state, state], [4, 4])
    assert layer.num_batches_tracked == 0


def test_frozen_layers_are_left_alone():
    model = nn.Sequential(freeze(nn.BatchNorm1d(2)), nn.BatchNorm1d(2))
    other = copy.deepcopy(model)
    for layer in other:
        layer.running_mean.fill_(1.0)
    merge_statistics(model, [other], [10])
    assert model[0].running_mean.tolist() == [0.0, 0.0]
    assert model[1].running_mean.tolist() == [1.0, 1.0]


LAYER, STATE = nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()
NAN = STATE | {"running_var": torch.tensor([1.0, float("nan")])}
ERRORS = [
    ((7, [], []), TypeError, "model: expected a torch.nn.Module, got int"),
    ((nn.Linear(2, 2), [STATE], [1]), ValueError, "model: expected a layer with running statistic"),
    ((LAYER, [], []), ValueError, "sources: expected at least one model or state dictionary"),
    ((LAYER, [STATE], [1, 2]), ValueError, "counts: expected 1, one for each source, got 2"),
    ((LAYER, [3], [1]), TypeError, "sources: expected models or state dictionaries, got int"),
    ((LAYER, [STATE], [1]), ValueError, "counts: expected at least 2 values for 'the model', got"),
    ((LAYER, [STATE], [-1]), ValueError, "counts: expected numbers not below 0, got -1"),
    ((LAYER, [STATE], [2.0]), TypeError, "counts: expected integers, got float"),
    ((LAYER, [STATE], [{"1": 3}]), ValueError, r"counts: expected a number for '', got \['1'\]"),
    ((LAYER, [{}], [3]), ValueError, "sources: expected 'running_mean' in each, got one without"),
    ((nn.BatchNorm1d(3), [STATE], [3]), ValueError, r"'running_mean' of shape \(3,\), got \(2,\)"),
    ((LAYER, [NAN], [3]), ValueError, "got 1 of 2 channels of 'running_var' where they are not"),
    (
        (nn.Sequential(LAYER, DecorrelatedBatchNorm2d(2)), [{}], [3]),
        TypeError,
        "running variance of all values, got DecorrelatedBatchNorm2d in '1'",
    ),
    (
        (nn.Sequential(LAYER, nn.InstanceNorm1d(2, track_running_stats=True)), [{}], [3]),
        TypeError,
        "running variance of all values, got InstanceNorm1d in '1'",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), ERRORS)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        merge_statistics(*arguments)


def test_nothing_changes_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    good = {f"0.{key}": value + 1.0 for key, value in STATE.items()}
    with pytest.raises(ValueError, match=r"expected '1\.running_mean' in each"):
        merge_statistics(model, [good], [3])
    assert model[0].running_mean.tolist() == [0.0, 0.0]
