"""Monte Carlo batch normalization: the noise of training, kept at test time, as an uncertainty.

Source: Teye, Azizpour & Smith (2018), arXiv:1802.06455, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from companion.kernels import eager

__all__ = ["monte_carlo_predict"]

_Layer = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def monte_carlo_predict(
    model: nn.Module,
    x: Tensor,
    training_inputs: Tensor,
    *,
    batch_size: int,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Predict `x` several times, each time with the statistics of another training mini-batch.

    For each sample a mini-batch is drawn without replacement and sent through the model, in which
    every batch normalization layer normalizes it with its own mean and biased variance, as in
    training; the layers keep these statistics for the prediction of `x`. Everything else, dropout
    for one, is in evaluation mode.

    Parameters
    ----------
    model : maps a batch to one tensor; its batch normalization layers, PyTorch's or this package's,
        keep running statistics
    x : inputs ``(N, ...)``
    training_inputs : what the mini-batches are drawn from, ``(M, ...)``
    batch_size : from 2 to M; that of training, to have the noise of training
    samples : number of mini-batches, at least 1
    generator : what the mini-batches are drawn with

    Returns
    -------
    the model's outputs, ``(samples, N, ...)``, without gradients. Their mean over axis 0 is the
    prediction, their variance the uncertainty.

    Raises
    ------
    ValueError : a number out of its range; a model without batch normalization layers, or with one
        that keeps no running statistics

    Notes
    -----
    The model is left as it was found, modes and running statistics included, also after an error.
    A layer that the model calls twice keeps the statistics of the second call. With ghost batch
    normalization, give the ghost batches' size as `batch_size`.

    Source: Teye, Azizpour & Smith (2018), arXiv:1802.06455;
    Eq. (19) regularization-noise/mc-prediction.
    """
    total = len(training_inputs)
    if not 2 <= batch_size <= total:
        raise ValueError(
            f"batch_size: expected 2 to {total}, the number of training inputs, got {batch_size}"
        )
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    layers = _layers(model)
    predictions = []
    with _evaluation_mode(model), _restored_statistics(layers):
        for _ in range(samples):
            order = torch.randperm(total, generator=generator, device=generator.device)
            picked = order[:batch_size].to(training_inputs.device)
            with _adopting_statistics(layers):
                model(training_inputs[picked])
            predictions.append(model(x))
    return torch.stack(predictions)


def _layers(model: nn.Module) -> list[_Layer]:
    """The model's batch normalization layers, each with running statistics."""
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, _Layer):
            if module.running_mean is None or module.running_var is None:
                raise ValueError(
                    f"model: expected batch normalization layers with running statistics, got "
                    f"none in {name or 'the model'!r}"
                )
            layers.append(module)
    if not layers:
        raise ValueError("model: expected at least 1 batch normalization layer, got none")
    return layers


def _adopt(layer: _Layer, args: tuple[Any, ...]) -> None:
    """Before a layer normalizes its input: make the input's statistics the ones it uses."""
    mean, var = eager.batch_stats(args[0])
    for name, value in (("running_mean", mean), ("running_var", var)):
        # A new tensor: the one that was there is the model's own.
        setattr(layer, name, value.to(getattr(layer, name).dtype))


@contextmanager
def _adopting_statistics(layers: list[_Layer]) -> Iterator[None]:
    hooks = [layer.register_forward_pre_hook(_adopt) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _restored_statistics(layers: list[_Layer]) -> Iterator[None]:
    own = [(layer, layer.running_mean, layer.running_var) for layer in layers]
    try:
        yield
    finally:
        for layer, mean, var in own:
            layer.running_mean, layer.running_var = mean, var


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
