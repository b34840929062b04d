"""Weight normalization and weight standardization."""

import copy
import pickle

import numpy as np
import pytest
import torch
from _family import batch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from companion import reference
from companion.variants import WeightNorm, WeightStandardization, weight_norm, weight_standardize

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "conv": (lambda: nn.Conv2d(4, 3, 2), (2, 4, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 3, 2), (2, 4, 3)),
}
LAYER = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())


def lengths(v, dim):
    axes = tuple(axis for axis in range(v.ndim) if dim is None or axis != dim)
    return np.sqrt((v.double().numpy() ** 2).sum(axes, keepdims=True))


@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_weight_norm_against_the_formula_and_pytorch(dim):
    v = batch((3, 4, 2))
    norm = lengths(v, dim)
    g = batch(norm.shape, seed=2)
    w = weight_norm(v, g, dim)
    assert np.abs(w.numpy() - g.numpy() * v.numpy() / norm).max() < 1e-14
    assert torch.allclose(
        w, torch._weight_norm(v, g, -1 if dim is None else dim), rtol=0, atol=1e-14
    )
    norms = torch.from_numpy(lengths(w, dim))
    assert torch.allclose(norms, g.abs(), rtol=0, atol=1e-14)


@LAYER
@pytest.mark.parametrize("dim", [0, 1, None])
def test_the_parametrization_is_pytorchs(make, shape, dim):
    torch.manual_seed(0)
    plain = make().double()
    ours, theirs = copy.deepcopy(plain), copy.deepcopy(plain)
    register_parametrization(ours, "weight", WeightNorm(dim))
    parametrizations.weight_norm(theirs, dim=dim)
    assert torch.allclose(ours.weight, plain.weight, rtol=0, atol=1e-15)
    x = batch(shape)
    for _ in range(2):
        grads = []
        for layer in (ours, theirs):
            y = layer(x)
            grads.append((y, *torch.autograd.grad(y.pow(3).sum(), list(layer.parameters()))))
        for a, b in zip(*grads, strict=True):
            assert torch.allclose(a, b.view_as(a), rtol=1e-11, atol=1e-11)
        if dim is not None:
            assert ours.state_dict().keys() == theirs.state_dict().keys()
            theirs.load_state_dict(ours.state_dict())
            with torch.no_grad():
                for value in ours.parameters():
                    value.mul_(1.5)
            theirs.load_state_dict(ours.state_dict())
        else:
            break


def test_weight_norm_does_not_overflow_or_vanish():
    # The pain: float32 squares of 1e25 are infinite, those of 1e-30 are 0.
    for scale in (1e25, 1e-30):
        v = torch.tensor([[3.0, 4.0]]) * scale
        g = torch.tensor([[10.0]])
        assert not torch.allclose(torch._weight_norm(v, g, 0), torch.tensor([[6.0, 8.0]]))
        assert torch.allclose(weight_norm(v, g), torch.tensor([[6.0, 8.0]]))


def test_the_gradient_is_orthogonal_to_the_direction():
    v, g = batch((3, 4)).requires_grad_(), batch((3, 1), seed=2).requires_grad_()
    upstream = batch((3, 4), seed=3)
    grad_v, grad_g = torch.autograd.grad(weight_norm(v, g), (v, g), upstream)
    direction = v / v.norm(dim=1, keepdim=True)
    assert (grad_v * v).sum(1).abs().max() < 1e-13
    along = (upstream * direction).sum(1, keepdim=True)
    assert torch.allclose(grad_g, along, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(weight_norm, (v, g))
    assert torch.autograd.gradgradcheck(weight_norm, (v, g), fast_mode=True)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 2)])
def test_weight_standardization_against_the_oracle(shape):
    weight = batch(shape)
    exact = reference.forward(weight.numpy(), eps=1e-3, axes=range(1, len(shape))).x_hat
    assert np.abs(weight_standardize(weight, 1e-3).numpy() - exact).max() < 1e-13
    rows = weight_standardize(weight).flatten(1)
    var = weight.flatten(1).var(1, unbiased=False)
    assert rows.mean(1).abs().max() < 1e-14
    assert torch.allclose(rows.var(1, unbiased=False), var / (var + 1e-5), rtol=0, atol=1e-13)


def test_weight_standardization_ignores_scale_and_offset():
    weight = batch((3, 4, 2, 2))
    moved = weight_standardize(1e3 * weight + 7.0, eps=1e-5 * 1e6)
    assert torch.allclose(moved, weight_standardize(weight), rtol=0, atol=1e-12)


def test_its_gradient_is_centred_and_orthogonal_to_the_weight():
    weight = batch((3, 4)).requires_grad_()
    (grad,) = torch.autograd.grad(weight_standardize(weight, 1e-12), weight, batch((3, 4), seed=2))
    assert grad.abs().max() > 0.01
    assert grad.sum(1).abs().max() < 1e-13
    assert (grad * weight).sum(1).abs().max() < 1e-10
    assert torch.autograd.gradcheck(weight_standardize, weight)


@LAYER
def test_a_layer_with_standardized_weights(make, shape):
    torch.manual_seed(0)
    layer = make()
    value = weight_standardize(layer.weight).detach()
    register_parametrization(layer, "weight", WeightStandardization())
    assert torch.equal(layer.weight, value)
    x = batch(shape, torch.float32)
    layer(x).square().sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().max() > 0
    for copied in (copy.deepcopy, lambda module: module.to(torch.bfloat16)):
        other = copied(layer)
        assert other(x.to(other.weight.dtype)).dtype == other.weight.dtype
    other.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("parametrization", [WeightNorm(1), WeightStandardization(1e-3)])
def test_the_parametrization_survives_a_pickle_and_can_be_removed(parametrization):
    layer = nn.Linear(4, 3)
    register_parametrization(layer, "weight", pickle.loads(pickle.dumps(parametrization)))
    value = layer.weight.detach().clone()
    remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: weight_norm(torch.ones(3, 4), torch.ones(3)),
            ValueError,
            r"g: expected shape \(3, 1\), got \(3,\)",
        ),
        (
            lambda: weight_norm(torch.ones(3, 4, dtype=torch.int64), torch.ones(3, 1)),
            TypeError,
            "v: expected a floating-point tensor, got torch.int64",
        ),
        (
            lambda: weight_norm(torch.ones(3, 4), torch.ones(3, 1), 2),
            IndexError,
            r"dim: expected an axis of v, of shape \(3, 4\), got 2",
        ),
        (lambda: weight_standardize(torch.ones(3)), ValueError, "expected at least 2 dimensions"),
        (lambda: weight_standardize(torch.ones(3, 1)), ValueError, "expected more than 1 value"),
        (lambda: weight_standardize(torch.ones(3, 2), 0.0), ValueError, "eps: expected a positive"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
