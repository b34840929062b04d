"""Layers that are not folded into one another, and what the error says."""

import pytest
import torch
from _frozen import settled
from torch import nn
from torch.nn.utils import weight_norm

import companion
from companion.inference import FoldingError, fold_into_next, fold_into_previous
from companion.variants import FrozenBatchNorm2d


class Doubling(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Standardized(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class OtherNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def patched(layer):
    layer.forward = lambda x: x
    return layer


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


def without_statistics():
    return nn.BatchNorm2d(4, track_running_stats=False).eval()


def not_finite():
    bn = settled(nn.BatchNorm2d(4))
    bn.running_var[1] = torch.nan
    return bn


def half(scale):
    layer = nn.Conv2d(4, 4, 1).half()
    layer.weight.data.fill_(scale)
    return layer


REFUSED = [
    (lambda: nn.ReLU(), None, "layer: expected Linear, .* got ReLU"),
    (lambda: Doubling(4, 4, 1), None, "layer: expected Linear, .* got Doubling"),
    (lambda: Standardized(4, 4, 1), None, "layer: expected Linear, .* got Standardized"),
    (lambda: patched(nn.Conv2d(4, 4, 1)), None, "layer: expected Linear, .* got Conv2d"),
    (lambda: hooked(nn.Conv2d(4, 4, 1)), None, "layer: expected no hooks, got Conv2d"),
    (lambda: weight_norm(nn.Conv2d(4, 4, 1)), None, "layer: expected no hooks, got Conv2d"),
    (lambda: nn.LazyConv2d(4, 1), None, "layer: expected real weights, got LazyConv2d"),
    (lambda: nn.Conv2d(4, 4, 1, dtype=torch.complex64), None, "layer: expected real weights"),
    (lambda: nn.Linear(4, 4), None, "bn: expected a layer for 0 spatial axes.*got BatchNorm2d"),
    (
        lambda: nn.Conv1d(4, 4, 1),
        lambda: FrozenBatchNorm2d(4),
        "bn: expected a layer for 1 spatial axes.*got FrozenBatchNorm2d",
    ),
    (lambda: nn.Conv1d(4, 4, 1), None, "bn: expected a layer for 1 spatial axes.*got BatchNorm2d"),
    (lambda: nn.Conv2d(5, 5, 1), None, "bn: expected 5 channels.*got 4"),
    (lambda: nn.Conv2d(4, 4, 1, device="meta"), None, "bn: expected the layer's device, meta"),
    (lambda: half(6e4), None, "layer: expected a folded weight within the range of torch.float16"),
    (None, lambda: nn.BatchNorm2d(4), "bn: expected evaluation mode, got training mode"),
    (None, without_statistics, "bn: expected running statistics, got a layer without"),
    (None, lambda: companion.BatchNormAct2d(4).eval(), "bn: expected a layer without ReLU"),
    (None, lambda: nn.InstanceNorm2d(4).eval(), "bn: expected a batch norm.*got InstanceNorm2d"),
    (None, lambda: OtherNorm(4).eval(), "bn: expected a batch norm.*got OtherNorm"),
    (None, lambda: patched(nn.BatchNorm2d(4)).eval(), "bn: expected a batch norm.*BatchNorm2d"),
    (None, lambda: hooked(nn.BatchNorm2d(4)).eval(), "bn: expected no hooks, got BatchNorm2d"),
    (None, not_finite, "bn: expected finite statistics"),
]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize(("layer", "bn", "message"), REFUSED)
@pytest.mark.parametrize("place", ["previous", "next"])
def test_what_is_refused_says_why_and_changes_nothing(layer, bn, message, place):
    layer = nn.Conv2d(4, 4, 1) if layer is None else layer()
    if bn is None:
        bn = settled(nn.BatchNorm2d(4))
        bn.weight.data.fill_(9.0)
    else:
        bn = bn()
    before = {id(m): dict(vars(m)) for m in (layer, bn)}
    fold, order = (fold_into_next, (bn, layer))
    if place == "previous":
        fold, order = (fold_into_previous, (layer, bn))
    with pytest.raises(FoldingError, match=f"^{message}"):
        fold(*order)
    assert before == {id(m): dict(vars(m)) for m in (layer, bn)}
