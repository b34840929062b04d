"""Folding whole models: what is folded, that the outputs stay, and why the rest is kept."""

import copy
import pickle

import pytest
import torch
from _frozen import checked, images, norms, sequence, settle, settled
from torch import nn

import companion
from companion.inference import Folded, FoldingError, fold
from companion.variants import freeze


class Block(nn.Module):
    def __init__(self, library, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = library.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = library.BatchNorm2d(channels)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


class FusedBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = companion.BatchNormAct2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = companion.BatchNormAct2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn3 = companion.BatchNormAct2d(channels, relu=False)

    def forward(self, x):
        y = self.bn1(self.conv1(x))
        y = self.bn2(self.conv2(y), x)
        return self.bn3(self.conv3(y), residual=y)


def network(library, *blocks):
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, stride=2),
        library.BatchNorm2d(4),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        library.BatchNorm1d(4),
        nn.Linear(4, 5),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("library", [nn, companion])
def test_a_residual_network(library, dtype):
    model = settle(network(library, Block(library, 4), Block(library, 4)).to(dtype))
    folded, report = checked(model, images(dtype))
    assert norms(folded) == []
    assert report.kept == ()
    assert report.folded == (
        Folded("1", "0", "previous"),
        Folded("2.bn1", "2.conv1", "previous"),
        Folded("2.bn2", "2.conv2", "previous"),
        Folded("3.bn1", "3.conv1", "previous"),
        Folded("3.bn2", "3.conv2", "previous"),
        Folded("6", "7", "next"),
    )
    assert str(report).splitlines()[0] == "1: folded into the previous layer, 0"
    assert "relative error on the example" in str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_layers_leave_their_residual_and_relu(dtype):
    model = settle(network(companion, FusedBlock(4)).to(dtype))
    folded, report = checked(model, images(dtype))
    assert norms(folded) == []
    assert len(report.folded) == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = settle(network(companion, Block(companion, 4)).to(dtype))
    folded, report = fold(model, images(dtype))
    assert len(report.folded) == 4
    assert (
        report.relative_error
        <= report.tolerance
        == {"float16": 1e-2, "bfloat16": 5e-2}[str(dtype)[6:]]
    )
    assert {value.dtype for value in folded.parameters()} == {dtype}


def test_the_folded_model_copies_pickles_exports_and_folds_again():
    model = settle(network(nn, Block(nn, 4)).double())
    x = images()
    folded, _ = fold(model, x)
    assert isinstance(folded, torch.fx.GraphModule)
    y = folded(x)
    again, report = fold(folded, x)
    program = torch.export.export(folded, (x,)).module()
    for other in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded)), again, program):
        assert torch.equal(other(x), y)
    assert (report.folded, report.kept) == ((), ())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in folded.parameters())


def test_the_folded_model_is_named_and_set_as_the_model():
    body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sigmoid())
    model = settle(nn.Sequential(body).double())
    # A name that the folded layer would take.
    model.add_module("0_0_folded", nn.Linear(4, 2).double().eval())
    folded, report = checked(model, torch.randn(5, 3).double())
    assert report.folded == (Folded("0.1", "0.0", "previous"),)
    assert type(folded).__name__ == "Sequential"
    assert folded.get_submodule("0.2") is not None
    assert not any(module.training for module in folded.modules())


def test_one_after_the_other_into_one_layer():
    bn = [nn.BatchNorm1d(4), companion.BatchNorm1d(4), nn.BatchNorm1d(4)]
    _, report = checked(
        settle(nn.Sequential(nn.Linear(3, 4), *bn).double()), torch.randn(5, 3).double()
    )
    assert report.folded == tuple(Folded(f"{i}", "0", "previous") for i in (1, 2, 3))
    _, report = checked(
        settle(nn.Sequential(*bn, nn.Linear(4, 2)).double()), torch.randn(5, 4).double()
    )
    assert [entry.layer for entry in report.folded] == ["3"]
    assert [entry.bn for entry in report.kept] == ["0", "1"]


def test_frozen_layers_of_a_model_that_trains():
    model = freeze(settle(network(companion, Block(companion, 4)).double())).train()
    folded, report = checked(model, images())
    assert len(report.folded) == 4
    assert report.kept == ()
    assert not any("running_mean" in name for name in folded.state_dict())


def test_frozen_normalizations_of_a_model_that_trains():
    """Some frozen, some not, with dropout: the same random numbers, and nothing moves."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 6))
    model = nn.Sequential(*model, nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()
    settled(model[1])
    folded, report = fold(model, torch.randn(9, 6).double())
    assert report.folded == (Folded("1", "0", "previous"),)
    assert [kept.bn for kept in report.kept] == ["4"]
    assert report.relative_error < 1e-12
    assert folded.training
    assert folded.get_submodule("4").num_batches_tracked == model[4].num_batches_tracked == 0


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x, mask=None, scale=2, *, offset=0.0):
        y = self.bn(self.linear(x)) * scale + offset
        return y if mask is None else y * mask


def test_arguments_are_those_of_the_example():
    model, x = settle(Masked().double()), torch.randn(5, 3).double()
    mask = torch.rand(5, 4).double()
    folded, _ = checked(model, x)
    with pytest.raises(TypeError):
        folded(x, mask)
    folded, _ = checked(model, x, mask)
    torch.testing.assert_close(folded(x, mask), model(x, mask))
    folded, _ = checked(model, x, None, 3)
    torch.testing.assert_close(folded(x, None, 3), model(x, None, 3))
    with pytest.raises(AssertionError):
        folded(x, None, 4)


class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    def forward(self, pair):
        first = self.body(pair["a"])
        return {"values": (first, [pair["b"]]), "classes": first.argmax(1)}


def test_nested_arguments_and_outputs():
    model = settle(Outputs().double())
    pair = {"a": torch.randn(5, 3).double(), "b": torch.randn(5, 3).double()}
    folded, report = fold(model, (pair,))
    assert len(report.folded) == 1
    outputs, expected = folded(pair), model(pair)
    torch.testing.assert_close(outputs["values"][0], expected["values"][0])
    assert torch.equal(outputs["classes"], expected["classes"])


class Classes(nn.Module):
    def forward(self, x):
        return x.argmax(1)


@pytest.mark.parametrize("wrong", [1e-2, float("nan"), float("inf")])
def test_a_difference_is_an_error(wrong, monkeypatch):
    from companion.inference import graph

    honest = graph.fold_normalization

    def spoiled(layer, bn):
        folded = honest(layer, bn)
        folded.weight.data[0, 0] *= 1 + wrong
        return folded

    monkeypatch.setattr(graph, "fold_normalization", spoiled)
    model, x = sequence(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(5, 3)
    with pytest.raises(
        FoldingError, match=r"^example: expected outputs equal to 1e-05 of the largest"
    ):
        fold(model, x)
    if wrong == 1e-2:
        _, report = fold(model, x, tolerance=0.1)
        assert 1e-5 < report.relative_error < report.tolerance == 0.1


def test_bad_arguments():
    model = sequence(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got dict"):
        fold({}, torch.randn(5, 3))
    for wrong, x in (
        (nn.Sequential(model, Classes()), torch.randn(5, 3)),
        (model, torch.ones(0, 3)),
    ):
        with pytest.raises(FoldingError, match=r"^example: expected an output with floating-point"):
            fold(wrong, x)


@pytest.mark.cuda
def test_a_model_on_a_gpu():
    model = settle(network(companion, FusedBlock(4)).double().cuda())
    folded, report = fold(model, images().cuda())
    assert len(report.folded) == 5
    assert all(value.is_cuda for value in folded.parameters())
