"""Normalizations that are not folded into their neighbours, and the reasons given."""

import re

import pytest
import torch
from _frozen import checked, images, norms, sequence, settle
from torch import nn
from torch.nn import functional as F

import companion
from companion.inference import Folded


class Shared(nn.Module):
    """One convolution called twice; `normalized` says which results the one norm takes."""

    def __init__(self, normalized):
        super().__init__()
        self.conv, self.normalized = nn.Conv2d(3, 4, 3), normalized
        self.bn, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        parts = []
        for kind in self.normalized:
            y = self.conv(x)
            parts.append(y if kind is None else getattr(self, kind)(y))
        return torch.cat(parts, 1)


def test_a_shared_layer_with_one_normalization_is_folded_once():
    folded, report = checked(settle(Shared(["bn", "bn"]).double()), images())
    assert report.folded == (Folded("bn", "conv", "previous"),) * 2
    assert len(list(folded.parameters())) == 2


@pytest.mark.parametrize("normalized", [["bn", None], [None, "bn"], ["bn", "other"]])
def test_a_shared_layer_with_different_neighbours_is_kept(normalized):
    _, report = checked(settle(Shared(normalized).double()), images())
    assert report.folded == ()
    for kept in report.kept:
        assert f"before it: conv is also called where {kept.bn} is not next" in kept.reason


class SharedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv1(x)) + self.bn(self.conv2(x)) + self.bn(self.conv1(x).relu())


def test_a_shared_normalization_is_folded_where_it_can_be():
    folded, report = checked(settle(SharedNorm().double()), images())
    assert report.folded == (Folded("bn", "conv2", "previous"),)
    assert [kept.bn for kept in report.kept] == ["bn", "bn"]
    assert "conv1 is also called where bn is not next" in report.kept[0].reason
    assert norms(folded) != []


class SharedNext(nn.Module):
    def __init__(self, same):
        super().__init__()
        self.same = same
        self.bn, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.bn(x)) + self.linear(self.bn(x.relu()) if self.same else x)


@pytest.mark.parametrize("same", [True, False])
def test_a_shared_layer_after(same):
    _, report = checked(settle(SharedNext(same).double()), torch.randn(5, 4).double())
    assert report.folded == ((Folded("bn", "linear", "next"),) * 2 if same else ())
    if not same:
        assert "linear is also called where bn is not before" in report.kept[0].reason


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function, self.bn = nn.Conv2d(3, 3, 3), function, nn.BatchNorm2d(3)
        self.after = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.function(self, x)


def training_norm():
    model = settle(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    model[1].train()
    return model


def functional_norm(m, x):
    y = m.conv(x)
    y = F.batch_norm(y, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias)
    return companion.functional.batch_norm(
        y, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias
    )


def both(m, x):
    y = m.conv(x)
    return m.bn(y) + y


def in_place_between(m, x):
    y = m.conv(x)
    y.mul_(2)
    return m.bn(y)


def fused(residual, relu=False):
    def function(m, x):
        y = m.conv(x)
        return m.bn(y, y) if residual == "itself" else m.after(m.bn(x.relu(), x))

    model = Function(function)
    model.bn = companion.BatchNormAct2d(3, relu=relu)
    return settle(model)


def without_statistics():
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)).eval()


def hooked():
    model = settle(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    model[0].register_forward_hook(lambda *values: values[-1] * 2)
    return model


def plain(function):
    return settle(Function(function))


KEPT = [
    (training_norm, "^bn: expected evaluation mode, got training mode"),
    (without_statistics, "^bn: expected running statistics"),
    (lambda: plain(both), "before it: the output of conv is also used elsewhere; after it: exp"),
    (lambda: plain(in_place_between), "before it: the output of conv is also used elsewhere"),
    (lambda: plain(functional_norm), "a call of a function; only layers are folded"),
    (lambda: plain(lambda m, x: m.bn(x.relu())), "before it: expected a layer, got relu"),
    (lambda: plain(lambda m, x: m.bn(x)), "got an argument; after it: .* got the result"),
    (lambda: plain(lambda m, x: m.after(m.bn(x).relu())), "after it: expected one layer, got relu"),
    (lambda: fused("itself"), "before it: the output of conv is also used elsewhere"),
    (lambda: fused("other"), "after it: expected the normalization alone, got one with a residual"),
    (lambda: sequence(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), "got ReLU"),
    (
        lambda: sequence(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)),
        "after it: layer: expected no zero padding",
    ),
    (
        lambda: sequence(companion.BatchNormAct2d(3), nn.Conv2d(3, 3, 3)),
        "after it: bn: expected a layer without ReLU",
    ),
    (
        lambda: sequence(nn.Flatten(2), nn.Linear(64, 3), nn.BatchNorm1d(3)),
        "before it: Linear and batch normalization share their channels in 2 axes, got 3",
    ),
    (hooked, "before it: layer: expected no hooks"),
]


@pytest.mark.parametrize(("make", "reason"), KEPT)
def test_what_is_kept_has_a_reason(make, reason):
    model = make().double()
    _, report = checked(model, images())
    assert report.folded == ()
    assert report.kept
    for kept in report.kept:
        assert re.search(reason, kept.reason)
        assert str(kept) == f"{kept.bn}: kept: {kept.reason}"
