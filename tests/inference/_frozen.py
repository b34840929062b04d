"""Layers with settled statistics, and the oracle's answer, for the tests of folding."""

import copy

import numpy as np
import torch
from torch import nn

from companion import reference
from companion.inference import fold
from companion.statistics.layers import Layer


def settled(bn, seed=0):
    """`bn` in evaluation mode, with parameters and statistics that are all in use."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, like):
        values = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        like.data.copy_(low + (high - low) * values)

    if bn.weight is not None:
        uniform(-2.0, 2.0, bn.weight)
    if bn.bias is not None:
        uniform(-1.0, 1.0, bn.bias)
    if bn.running_mean is not None:
        uniform(-1.0, 1.0, bn.running_mean)
        uniform(0.1, 3.0, bn.running_var)
    return bn.eval()


def settle(model):
    """:func:`settled` for every normalization of a model, which goes to evaluation mode."""
    for seed, module in enumerate(model.modules()):
        if isinstance(module, Layer):
            settled(module, seed)
    return model.eval()


def values(tensor):
    return None if tensor is None else tensor.detach().double().numpy()


def oracle(bn, x):
    """What `bn` computes in evaluation mode, by the float64 oracle."""
    state = (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    return reference.inference(values(x), *map(values, state), bn.eps)


def line(bn):
    """Slope and shift of each channel, by the float64 oracle."""
    state = (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    return reference.inference_affine(*map(values, state), bn.eps)


def difference(outputs, expected):
    """Largest difference over the largest expected value."""
    expected = np.asarray(expected)
    return np.abs(values(outputs) - expected).max() / np.abs(expected).max()


def sequence(*layers):
    return settle(nn.Sequential(*layers))


def norms(model):
    return [m for m in model.modules() if isinstance(m, Layer)]


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def checked(model, *arguments):
    """Fold; check other arguments of the same shape, and that the model is as it was."""
    before, modules = state(model), [(id(m), m.training, set(vars(m))) for m in model.modules()]
    folded, report = fold(model, arguments)
    torch.manual_seed(5)
    other = [torch.randn_like(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    limit = 1e-12 if arguments[0].dtype == torch.float64 else 1e-5
    with torch.no_grad():
        expected, outputs = copy.deepcopy(model)(*other), copy.deepcopy(folded)(*other)
    assert difference(outputs, values(expected)) <= limit
    assert report.relative_error <= report.tolerance == limit
    assert len(norms(folded)) <= len(norms(model))
    assert modules == [(id(m), m.training, set(vars(m))) for m in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return folded, report


def images(dtype=torch.float64, channels=3):
    torch.manual_seed(1)
    return torch.randn(2, channels, 8, 8, dtype=dtype)
