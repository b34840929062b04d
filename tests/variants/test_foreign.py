"""Other libraries' layers synchronized and frozen, and what the reports say."""

import copy
import pickle

import pytest
import torch
from _foreign import Doubled, Frozen, NormAct, Renamed, Unknown, perturbed
from torch import nn

import companion
from companion import convert_sync, freeze, unfreeze


def model(converted=False):
    layers = NormAct(3, nn.PReLU(3)), Renamed(3), NormAct(3, drop=nn.Dropout(0.2))
    result = nn.Sequential(*map(perturbed, layers))
    return companion.convert(result) if converted else result


def seeded(function, x):
    torch.manual_seed(1)
    return function(x)


@pytest.mark.parametrize("converted", [False, True], ids=["as it was", "converted"])
def test_synchronized_and_local_again(converted):
    layers, x = model(converted), torch.randn(4, 3, 5, 5)
    twin, classes = copy.deepcopy(layers), [type(layer) for layer in layers]
    _, report = convert_sync(layers, report=True)
    assert [type(layer) for layer in layers] == [companion.SyncBatchNorm] * 3
    assert len(report.changed) == 3
    assert str(report.changed[0]).endswith("NormAct is now companion.SyncBatchNorm") != converted
    layers = pickle.loads(pickle.dumps(copy.deepcopy(layers)))
    for mode in (True, False):
        layers.train(mode), twin.train(mode)
        torch.testing.assert_close(seeded(layers, x), seeded(twin, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layers.state_dict(), twin.state_dict())
    _, report = companion.fold(nn.Sequential(nn.Conv2d(3, 3, 1), *layers).eval(), x)
    assert len(report.folded) == 1
    for layer, cls in zip(layers, classes, strict=True):
        assert type(layer.to_local()) is cls
    assert vars(layers[0]).keys() == vars(twin[0]).keys()
    companion.convert(convert_sync(layers), to="torch")
    assert [type(layer) for layer in layers] == [NormAct, Renamed, NormAct]


@pytest.mark.parametrize("converted", [False, True], ids=["as it was", "converted"])
def test_frozen_and_free_again(converted):
    layers, x = model(converted).eval(), torch.randn(4, 3, 5, 5)
    twin, classes = copy.deepcopy(layers), [type(layer) for layer in layers]
    expected = twin(x)
    _, report = freeze(layers, report=True)
    assert [change.after for change in report.changed] == [
        "companion.variants.FrozenBatchNorm2d"
    ] * 3
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    # What comes after the normalization may go on learning.
    assert [name for name, _ in layers.named_parameters()] == ["0.act.weight"]
    layers = pickle.loads(pickle.dumps(copy.deepcopy(layers)))
    torch.testing.assert_close(layers.train()[:2](x), twin[:2](x))
    torch.testing.assert_close(layers.eval()(x), expected)
    layers[2].train()
    assert seeded(layers, x).ne(expected).any(), "no dropout"
    _, report = unfreeze(layers, report=True)
    assert len(report.changed) == 3
    assert [type(layer) for layer in layers] == classes
    assert vars(layers[0]).keys() == vars(twin[0]).keys()
    torch.testing.assert_close(layers.eval()(x), expected)


def test_a_synchronized_layer_that_was_frozen_still_acts():
    layer, x = perturbed(NormAct(3)).eval(), torch.randn(4, 3, 5, 5)
    expected = layer(x)
    torch.testing.assert_close(freeze(convert_sync(layer))(x), expected)
    torch.testing.assert_close(unfreeze(layer)(x), expected)
    assert type(companion.convert(layer, to="torch")) is NormAct


def test_what_is_left_alone_is_said_with_the_reason():
    layers = nn.Sequential(
        *(Doubled(3), Unknown(3), nn.LazyBatchNorm2d(), Frozen(3), companion.BatchNorm2d(3)),
        companion.variants.GhostBatchNorm2d(3, ghost_size=2),
        nn.InstanceNorm2d(3, track_running_stats=True),
    )
    _, report = convert_sync(layers, report=True)
    assert [change.layer for change in report.changed] == ["4"]
    assert {left.layer: left.reason.partition(":")[0] for left in report.left} == {
        "0": "what its own forward does around the normalization would be lost",
        "1": "_foreign.Unknown.forward is not known to be batch normalization, see "
        "register_batch_norm",
        "2": "lazy",
        "5": "no synchronized layer does what it does",
        "6": "instance normalization",
    }
    for refused in (0, 1, 2):
        with pytest.raises(TypeError, match=f"got {type(layers[refused]).__name__} in '0'"):
            freeze(nn.Sequential(layers[refused]))
    made = companion.variants.FrozenBatchNorm2d(3)
    _, report = freeze(nn.Sequential(*layers[3:], made), report=True)
    assert [change.layer for change in report.changed] == ["1", "2"]
    assert [(left.layer, left.reason) for left in report.left] == [
        ("0", "frozen already"),
        ("3", "instance normalization"),
    ]
    _, report = unfreeze(nn.Sequential(*layers[3:], made), report=True)
    assert [change.layer for change in report.changed] == ["1", "2"]
    assert [left.layer for left in report.left] == ["0", "4"]
    assert "made as a frozen layer" in report.left[0].reason
