"""PyTorch's own operator, lent to our layers, runs whatever types they hold."""

import copy

import pytest
import torch
from torch import nn

import companion
from companion.inference import torch_operators

HALVES = [torch.float16, torch.bfloat16]
LAYERS = [companion.BatchNorm2d, companion.BatchNormAct2d, companion.SyncBatchNorm]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_in_half_precision(layer, options, dtype, training):
    model, x = layer(4, **options).to(dtype).train(training), torch.randn(6, 4, 3, 3).to(dtype)
    alike, seen = copy.deepcopy(model), []
    with torch_operators(model):
        for each in (model, alike):
            argument = x.clone().requires_grad_()
            y = each(argument)
            (y.float() * torch.arange(3.0)).sum().backward()
            seen.append([y, argument.grad, *(p.grad for p in each.parameters())])
    torch.testing.assert_close(*seen, rtol=0.03, atol=0.05)
    torch.testing.assert_close(model.state_dict(), alike.state_dict(), rtol=1e-5, atol=1e-5)


def test_statistics_of_lower_precision_than_the_parameters_move_in_place():
    layer = companion.convert(nn.BatchNorm1d(3).half())
    layer.weight.data, layer.bias.data = layer.weight.data.float(), layer.bias.data.float()
    mean, x = layer.running_mean, torch.randn(20, 3).half() + 5
    with torch_operators(layer):
        layer(x)
    assert layer.running_mean is mean
    assert mean.dtype is torch.float16
    torch.testing.assert_close(mean, 0.1 * x.mean(0), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", HALVES)
def test_exported_in_half_precision(dtype):
    model, x = nn.Sequential(companion.BatchNormAct2d(4)).to(dtype).eval(), torch.randn(6, 4, 3, 3)
    expected = model(x.to(dtype))
    with torch_operators(model):
        program = torch.export.export(model, (x.to(dtype),))
    targets = [n.target.__name__ for n in program.graph.nodes if n.op == "call_function"]
    assert targets.count("batch_norm.default") == 1
    torch.testing.assert_close(program.module()(x.to(dtype)), expected, rtol=0.03, atol=0.05)
