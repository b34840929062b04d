"""Folding layers of other libraries: the normalization goes, what they do after it stays."""

import copy

import pytest
import torch
from _foreign import Doubled, Frozen, FrozenAct, NormAct, Renamed, perturbed
from _frozen import checked, images
from torch import nn

import companion
from companion.inference import FoldingError, fold_into_next, fold_into_previous

LAYERS = {
    "relu": lambda: NormAct(4),
    "silu": lambda: NormAct(4, nn.SiLU(inplace=True), nn.Dropout(0.5)),
    "nothing": lambda: NormAct(4, nn.Identity()),
    "renamed": lambda: Renamed(4),
    "frozen": lambda: Frozen(4),
    "frozen act": lambda: FrozenAct(4),
}


@pytest.mark.parametrize("converted", [False, True], ids=["as it was", "converted"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_normalization_is_folded_and_the_rest_stays(name, converted):
    bn = perturbed(LAYERS[name]())
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), bn, nn.Conv2d(4, 2, 3)).eval().double()
    if converted:
        companion.convert(model)
    # A frozen layer is one in training mode, too.
    model[1].train("frozen" in name)
    folded, report = checked(model, images())
    assert [str(entry) for entry in report.folded] == ["1: folded into the previous layer, 0"]
    assert report.kept == ()
    kinds = {type(module) for module in folded.modules()}
    assert not any("running_mean" in key for key in folded.state_dict())
    after = {"relu": {nn.ReLU}, "silu": {nn.SiLU, nn.Dropout}, "frozen act": {nn.SiLU}}
    assert kinds - {type(folded), nn.Module, nn.Conv2d} == after.get(name, set())


def test_what_comes_after_is_in_the_way_of_the_next_layer():
    conv = nn.Conv2d(3, 4, 1).double()
    for after in (nn.Identity(), nn.SiLU()):
        model = nn.Sequential(nn.ReLU(), perturbed(NormAct(3, after)), conv).eval().double()
        folded, report = checked(model, images())
        assert len(report.folded) == isinstance(after, nn.Identity)
    assert "expected the normalization alone, got NormAct, which calls act" in report.kept[0].reason
    assert folded.get_submodule("1") is not None


def test_layer_by_layer_only_the_normalization_alone_is_folded():
    conv, x = nn.Conv2d(4, 4, 1).double(), torch.randn(2, 4, 3, 3).double()
    for make in (LAYERS["nothing"], LAYERS["frozen"]):
        bn = perturbed(make()).double().eval()
        torch.testing.assert_close(fold_into_previous(conv, bn)(x), bn(conv(x)))
        torch.testing.assert_close(fold_into_next(bn, conv)(x), conv(bn(x)))
    with pytest.raises(FoldingError, match=r"^bn: expected the normalization alone, .* calls act"):
        fold_into_previous(conv, LAYERS["relu"]().eval())
    with pytest.raises(FoldingError, match=r"^bn: .* that register_batch_norm knows, got Doubled"):
        fold_into_previous(conv, Doubled(4).eval())
    with pytest.raises(FoldingError, match=r"^bn: .* that register_batch_norm knows, got Doubled"):
        fold_into_previous(conv, companion.convert(Doubled(4)).eval())


def test_an_identity_between_two_layers_is_seen_through():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.BatchNorm2d(4)).eval().double()
    assert len(checked(model, images())[1].folded) == 1
    hooked = copy.deepcopy(model)
    hooked[1].register_forward_hook(lambda *values: 2 * values[-1])
    assert len(checked(hooked, images())[1].folded) == 0
