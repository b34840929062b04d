"""Folding copies the model: what of that PyTorch refuses is served, what nobody can is named."""

import copy
import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from companion.inference import FoldingError, fold, fold_into_next, fold_into_previous


class Biased(nn.Module):
    """A linear map, normalized, with a bias that training computes and evaluation finds there."""

    def __init__(self, kept):
        super().__init__()
        self.linear, self.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.table = nn.Parameter(torch.randn(4))
        self.kept = kept

    def forward(self, x):
        if self.training:
            self.bias = self.kept(self.table.exp())
        bias = self.bias
        while not isinstance(bias, torch.Tensor):
            bias = bias.tensor if isinstance(bias, Cache) else next(iter(bias.values()))
        return torch.relu(self.bn(self.linear(x))) + bias


class Cache:
    def __init__(self, tensor):
        self.tensor = tensor


HOLDERS = {
    "attribute": lambda tensor: tensor,
    "dictionary": lambda tensor: {"bias": tensor},
    "object": Cache,
    "object in a dictionary": lambda tensor: {"bias": Cache(tensor)},
}


@pytest.mark.parametrize("kept", HOLDERS.values(), ids=HOLDERS)
def test_a_tensor_of_a_graph_is_detached_in_the_copy(kept):
    model, x = Biased(kept), torch.randn(8, 3)
    model(x)
    model.eval()
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    expected, held = model(x), model.bias
    folded, report = fold(model, x)
    assert [str(f) for f in report.folded] == ["bn: folded into the previous layer, linear"]
    assert torch.allclose(folded(x), expected, rtol=0, atol=1e-5)
    assert model.bias is held
    assert expected.requires_grad  # The model is what it was, and still learns.
    copy.deepcopy(folded)


def former_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


@pytest.mark.parametrize(
    "reparametrize",
    [former_weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm],
)
def test_reparametrized_layers_right_after_training(reparametrize):
    model = nn.Sequential(reparametrize(nn.Linear(3, 4)), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(8, 3)
    model(x).sum().backward()
    model.eval()
    folded, report = fold(model, x)
    assert len(report.folded) == 1
    assert torch.allclose(folded(x), model(x), rtol=0, atol=1e-5)


def test_an_example_that_was_computed():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    x = torch.randn(8, 3, requires_grad=True) * 2
    folded, _ = fold(model, x)
    assert torch.allclose(folded(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("function", [fold_into_previous, fold_into_next])
def test_a_layer_that_holds_a_tensor_of_a_graph(function):
    linear, bn = nn.Linear(4, 4).eval(), nn.BatchNorm1d(4).eval()
    linear.penalty = linear.weight.square().sum()
    pair = (linear, bn) if function is fold_into_previous else (bn, linear)
    folded, x = function(*pair), torch.randn(8, 4)
    assert torch.allclose(folded(x), pair[1](pair[0](x)), rtol=0, atol=1e-5)
    assert linear.penalty.requires_grad
    assert not folded.penalty.requires_grad


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise NotImplementedError("there can be only one")


def test_what_cannot_be_copied_is_named():
    x = torch.randn(8, 3)

    def model():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()

    locked = model()
    locked[1].lock = threading.Lock()
    with pytest.raises(
        FoldingError, match=r"^model: expected what can be copied, got 'lock' of '1'"
    ) as caught:
        fold(locked, x)
    assert "a lock, which cannot: " in str(caught.value)
    at_the_top = model()
    at_the_top.log = open(__file__)  # noqa: SIM115
    with pytest.raises(FoldingError, match=r"got 'log' of the model, a TextIOWrapper, which"):
        fold(at_the_top, x)
    at_the_top.log.close()
    inside = nn.Sequential(model(), model())
    inside[1][2].register_forward_hook(partial(print, threading.Lock()))
    with pytest.raises(FoldingError, match=r"got '_forward_hooks' of '1\.2', ReLU, a OrderedDict"):
        fold(inside, x)
    stubborn = nn.Sequential(Uncopied(3, 4), nn.BatchNorm1d(4)).eval()
    with pytest.raises(FoldingError, match=r"got '0', Uncopied, which cannot: there can be only"):
        fold(stubborn, x)
    layer = nn.Linear(3, 4)
    layer.iterator = iter(x for x in "ab")
    with pytest.raises(FoldingError, match=r"^layer: expected what can be copied, got 'iterator'"):
        fold_into_previous(layer, nn.BatchNorm1d(4).eval())
