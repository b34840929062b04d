"""Shared by the tests of recalibration and accumulation: batches that differ, a network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion import reference
from companion.statistics.layers import Layer

LAYERS = pytest.mark.parametrize("layer", [nn.BatchNorm1d, companion.BatchNorm1d, nn.SyncBatchNorm])


def batches_of(sizes, shape=(5,), seed=1, offset=0.0):
    """Sorted values, so that batches differ."""
    values = np.random.default_rng(seed).normal(offset, 1.0, size=(sum(sizes), *shape))
    return torch.from_numpy(np.sort(values, axis=0)).split(sizes)


def network(layer, dropout=0.0, **options):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(5, 8), layer(8, **options), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 8)),
        *(layer(8, **options), nn.ReLU(), nn.Linear(8, 8), layer(8, **options)),
    ).double()


def assert_holds(layer, values, rtol=1e-12):
    """The layer holds the moments of `values`, by the oracle."""
    mean, var = reference.moments(values.detach().double().numpy())
    m = values.numel() // values.shape[1]
    np.testing.assert_allclose(layer.running_mean, mean, rtol=rtol, atol=1e-14)
    np.testing.assert_allclose(layer.running_var, var * m / (m - 1), rtol=rtol)


def inputs_at_inference(model, batches):
    """What goes into each normalization in evaluation mode."""
    inputs = {}
    model = copy.deepcopy(model).eval()
    for name, module in model.named_modules():
        if isinstance(module, Layer):
            module.register_forward_pre_hook(
                lambda _, args, name=name: inputs.setdefault(name, []).append(args[0])
            )
    for x in batches:
        model(x)
    return {name: torch.cat(values) for name, values in inputs.items()}
