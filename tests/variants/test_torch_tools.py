"""What PyTorch's tools take for batch normalization: only what is that, and does nothing more."""

import copy
import inspect

import pytest
import torch
from _family import batch, randomized
from torch import nn
from torch.func import replace_all_batch_norm_modules_
from torch.optim.swa_utils import update_bn

import companion
from companion import update_precise, variants
from companion.statistics.layers import Layer, tracking_layers

PLAIN = (
    *(companion.BatchNorm1d, companion.BatchNorm2d, companion.BatchNorm3d),
    companion.SyncBatchNorm,
)
OWN = {"ghost_size": 3, "alpha": 0.3, "groups": 1}


def per_channel_layers():
    """All exported layers for a number of channels, but those that hold several plain ones."""
    exported = {
        name: getattr(home, name) for home in (companion, variants) for name in home.__all__
    }
    classes = {name: cls for name, cls in exported.items() if isinstance(cls, type)}
    modules = {name: cls for name, cls in classes.items() if issubclass(cls, nn.Module)}
    parameters = {name: inspect.signature(cls).parameters for name, cls in modules.items()}
    return {
        name: cls
        for name, cls in modules.items()
        if "num_features" in parameters[name]
        and not {"domains", "max_length"} & set(parameters[name])
    }


LAYERS = per_channel_layers()
ALL = pytest.mark.parametrize("cls", LAYERS.values(), ids=LAYERS.keys())
MORE = {name: cls for name, cls in LAYERS.items() if cls not in PLAIN}
KEEPING = {name: cls for name, cls in LAYERS.items() if issubclass(cls, Layer)}


def made(cls):
    """A layer, and a batch for it."""
    parameters = inspect.signature(cls).parameters.values()
    required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    layer = cls(3, dtype=torch.float64, **{name: OWN[name] for name in required})
    rank = max(getattr(layer, "_layouts", None) or {4: ""})
    return randomized(layer), batch((8, 3, 4, 2, 5)[:rank])


@ALL
def test_isinstance_says_what_the_layer_is(cls):
    assert isinstance(made(cls)[0], nn.modules.batchnorm._BatchNorm) is (cls in PLAIN)


def test_all_of_the_family_is_looked_at():
    keeping = {
        *("BatchNorm", "SyncBatchNorm", "BatchNormAct", "SyncBatchNormAct", "GhostBatchNorm"),
        *("BatchRenorm", "NoisyBatchNorm", "MaskedBatchNorm", "ExampleWeightedBatchNorm"),
    }
    assert {name.rstrip("123d") for name in KEEPING} >= keeping
    others = {"DecorrelatedBatchNorm", "IterNorm", "FrozenBatchNorm", "InstanceNorm"}
    assert {name.rstrip("123d") for name in LAYERS} >= keeping | others


@pytest.mark.parametrize("cls", MORE.values(), ids=MORE.keys())
@pytest.mark.parametrize("training", [True, False])
def test_pytorchs_tools_leave_layers_that_do_more_as_they_are(cls, training):
    layer, x = made(cls)
    model = nn.Sequential(layer).train(training)
    torch.manual_seed(0)
    expected = copy.deepcopy(model)(x)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    replace_all_batch_norm_modules_(synchronized)
    assert synchronized[0] is layer
    torch.manual_seed(0)
    assert torch.equal(synchronized(x), expected)


@pytest.mark.parametrize("cls", PLAIN)
def test_pytorchs_tools_find_plain_layers(cls):
    layer, x = made(cls)
    update_bn([x + 5.0], layer)
    assert (layer.running_mean - layer.running_mean.new_tensor(6.0)).abs().max() < 1.0
    model = nn.Sequential(layer).eval()
    expected = model(x)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(synchronized[0]) is nn.SyncBatchNorm
    assert torch.allclose(synchronized(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", KEEPING.values(), ids=KEEPING.keys())
def test_our_own_tools_find_both(cls):
    layer, x = made(cls)
    model = nn.Sequential(layer)
    assert tracking_layers(model) == {"0": layer}
    mean = x.transpose(0, 1).flatten(1).mean(1)
    update_precise(model, [x[:3], x[3:]], progress=False)
    assert torch.allclose(layer.running_mean, mean, rtol=0, atol=1e-12)
    with companion.accumulated_statistics(model):
        model(x[:4]), model(x[4:])
    assert layer.num_batches_tracked == 2 + 1
    former = copy.deepcopy(model.state_dict())
    with companion.preserved_statistics(model):
        model(x)
    with companion.finite_statistics(model):
        model(x / 0.0)
    with variants.adapted_statistics(model, x - 2.0):
        assert torch.allclose(layer.running_mean, mean - 2.0, rtol=0, atol=1e-12)
    with variants.tent(model, learning_rate=0.1) as adapt:
        adapt(x)
        assert not torch.equal(layer.weight, former["0.weight"])
    drawn = {"batch_size": 4, "samples": 3, "generator": torch.Generator().manual_seed(0)}
    assert (variants.monte_carlo_predict(model, x, x, **drawn).var(dim=0) > 0.0).any()
    assert all(torch.equal(value, former[name]) for name, value in model.state_dict().items())
