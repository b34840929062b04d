"""Adaptive batch normalization: the running statistics replaced, or mixed, with the test domain's.

When a deployed model meets a shift that scales and offsets activations (contrast, brightness,
another scanner), the statistics of its batch normalization layers are those of another domain. Test
inputs without labels suffice to measure the right ones.

Source: Li, Wang, Shi, Liu & Hou (2016), "AdaBN", arXiv:1603.04779; Schneider, Rusak, Eck,
Bringmann, Brendel & Bethge (2020), arXiv:2006.16971, for the mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from companion.statistics.layers import evaluation_mode, restored_statistics

from ._model import adopting_statistics, layers_that_all_track

__all__ = ["adapted_statistics"]


@contextmanager
def adapted_statistics(
    model: nn.Module, x: Tensor, *, source_size: float = 0.0
) -> Iterator[nn.Module]:
    """Let `model` predict with statistics adapted to the inputs `x`, for as long as the context is.

    With n examples in `x` and N = `source_size`, every batch normalization layer uses

        N/(N + n)·running + n/(N + n)·test

    for its mean and its variance. The test statistics are the mean and biased variance that the
    layer meets when `x` passes through the model, the layers before it adapted already.

    Parameters
    ----------
    model
        its batch normalization layers, PyTorch's or this package's, keep running statistics
    x
        inputs of the test domain, ``(n, ...)``, at least one; no labels
    source_size
        N, how many test examples the running statistics are worth, at least 0. 0 replaces them
        (AdaBN); infinity keeps them; for few examples 8 to 128 are good in the paper

    Yields
    ------
    nn.Module
        the model, in evaluation mode. To keep what it is now, copy it, or its state dictionary

    Raises
    ------
    ValueError
        no example; `source_size` below 0; a model without batch normalization layers, or with one
        that keeps no running statistics
    RuntimeError
        no layer was called (as of a model that was traced or exported, whose layers are its own)

    Notes
    -----
    Afterwards the model is what it was, modes and running statistics included, also after an error.
    At N = 0 the output for `x` itself is that of training mode. Frozen layers are not adapted.

    *What it can repair.* A first layer that normalizes cancels x → ax + b exactly (for ε = 0). A
    shift that moves the classes' proportions in `x` is not a shift to adapt to: adapted statistics
    then do harm.

    References
    ----------
    Schneider et al. (2020), arXiv:2006.16971; Li et al. (2016), arXiv:1603.04779.

    Examples
    --------
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> clean = model(x)  # training mode: the statistics of x
    >>> dim = 0.3 * x + 0.5
    >>> with adapted_statistics(model, dim):
    ...     torch.allclose(model(dim), clean, atol=1e-2)
    True
    """
    if len(x) == 0:
        raise ValueError(f"x: expected at least 1 example, got shape {tuple(x.shape)}")
    if not source_size >= 0.0:
        raise ValueError(f"source_size: expected a number not below 0, got {source_size}")
    layers = layers_that_all_track(model)
    share = len(x) / (source_size + len(x))
    with evaluation_mode(model), restored_statistics(layers):
        with torch.no_grad(), adopting_statistics(layers, share):
            model(x)
        yield model
