"""Normalization, residual and ReLU in one pass: equal to the three, one after the other."""

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import companion
from companion import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d, operators
from companion.functional import batch_norm, batch_norm_act
from companion.kernels.interface import Gradients

LAYERS = [
    (BatchNormAct1d, companion.BatchNorm1d, (8, 3)),
    (BatchNormAct1d, companion.BatchNorm1d, (8, 3, 5)),
    (BatchNormAct2d, companion.BatchNorm2d, (4, 3, 5, 6)),
    (BatchNormAct3d, companion.BatchNorm3d, (2, 3, 2, 3, 4)),
]


def composed(layer, x, residual, relu):
    y = layer(x)
    y = y if residual is None else y + residual
    return y.relu() if relu else y


@pytest.mark.parametrize(("fused", "plain", "shape"), LAYERS)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("backend", ["auto", "eager", "torch"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_composition(fused, plain, shape, relu, with_residual, backend, training):
    one = fused(3, relu=relu, backend=backend, dtype=torch.float64)
    torch.nn.init.uniform_(one.weight, -1.0, 1.0)
    torch.nn.init.uniform_(one.bias)
    other = plain(3, dtype=torch.float64)
    other.load_state_dict(one.state_dict())
    one.train(training), other.train(training)
    x = torch.randn(shape, dtype=torch.float64)
    residual = torch.randn(shape, dtype=torch.float64) if with_residual else None
    results = []
    for layer, call in ((one, one), (other, lambda z, r: composed(other, z, r, relu))):
        z = x.clone().requires_grad_()
        r = None if residual is None else residual.clone().requires_grad_()
        y = call(z, r)
        y.pow(3).sum().backward()
        grads = [z.grad, layer.weight.grad, layer.bias.grad, *([] if r is None else [r.grad])]
        results.append([y.detach(), *grads, *layer.buffers()])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_derivatives(training, with_residual):
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    state = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)

    def function(x, weight, bias, residual):
        used = None if training else state[0], None if training else state[1]
        extra = residual if with_residual else None
        return batch_norm_act(x, *used, weight, bias, training, residual=extra)

    inputs = (x, weight, bias, residual)
    assert gradcheck(function, inputs, check_batched_grad=True)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("training", [True, False])
def test_compiled(training, backend):
    torch.manual_seed(0)
    layer = BatchNormAct2d(3, backend=backend).train(training)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, residual = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    results = []
    for call, owner in ((compiled, layer), (plain, plain)):
        z, r = x.clone().requires_grad_(), residual.clone().requires_grad_()
        y = call(z, r)
        y.square().sum().backward()
        results.append([y.detach(), z.grad, r.grad, owner.weight.grad, *owner.buffers()])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_operators_are_registered_properly():
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    weight, bias = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    residual = torch.randn(4, 3, 5, 5, requires_grad=True)
    statistics = torch.zeros(3).double(), torch.ones(3).double()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for relu, extra in ((True, residual), (False, None), (False, residual)):
        for fixed in ((None, None), statistics):
            arguments = (x, weight, bias, extra, *fixed, 1e-5, relu, "cpu")
            torch.library.opcheck(torch.ops.companion.normalize, arguments, test_utils=tests)


def test_an_operator_does_not_return_what_it_was_given(monkeypatch):
    """Without a ReLU some kernels hand the residual the gradient itself."""

    class Kernels:
        @staticmethod
        def differentiate(grad_y, x, *_rest):
            return Gradients(x.clone(), None, None, grad_y)

    monkeypatch.setattr(operators.select, "load", lambda _backend: Kernels)
    grad_y, statistics = torch.randn(4, 3), torch.ones(2, 3).double()
    others = (statistics, None, None, 1e-5, False, "cpu", True, True)
    grad_residual = operators.differentiate(grad_y, grad_y.clone(), None, *others)[3]
    assert torch.equal(grad_residual, grad_y)
    assert grad_residual.data_ptr() != grad_y.data_ptr()


def test_residual_must_match():
    x = torch.randn(4, 3)
    for residual, error, message in (
        (torch.randn(4, 2), RuntimeError, r"residual: expected the input's shape"),
        (torch.randn(4, 3).double(), RuntimeError, r"residual: expected the input's dtype"),
        (3.0, TypeError, "residual: expected a tensor or None, got float"),
    ):
        layer = BatchNormAct1d(3)
        with pytest.raises(error, match=message):
            layer(x, residual)
        assert layer.num_batches_tracked.item() == 0


def test_nan_is_not_hidden_by_the_relu():
    x = torch.randn(4, 2)
    x[0, 0] = float("nan")
    y = batch_norm_act(x, None, None, training=True)
    assert y[:, 0].isnan().all()
    assert torch.equal(y[:, 1], batch_norm(x, None, None, training=True)[:, 1].relu())


def test_representation():
    assert "relu" not in repr(BatchNormAct2d(3))
    assert repr(BatchNormAct2d(3, relu=False)).endswith("relu=False)")
