"""TENT: test-time adaptation by making predictions more certain.

Batch normalization uses the statistics of each test batch, and its weights and biases take one
gradient step per batch down the entropy of the model's predictions. No labels, no training data.

Source: Wang, Shelhamer, Liu, Olshausen & Darrell (2021), arXiv:2006.10726.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from companion.statistics.layers import Layer, evaluation_mode, restored_statistics

from ._model import batch_norm_layers

__all__ = ["tent"]


@contextmanager
def tent(model: nn.Module, *, learning_rate: float = 1e-3) -> Iterator[Callable[[Tensor], Tensor]]:
    """Adapt `model` batch by batch, for as long as the context is.

    What the context yields maps a batch ``(N, ...)`` to the model's logits ``(N, K, *)``, without
    gradients, and then takes a step of Adam on the weights and biases of all batch normalization
    layers, down the mean over the batch of the entropy

        H = -Σ_k p_k log p_k,  p = softmax(logits), in nats.

    Parameters
    ----------
    model
        a classifier with batch normalization layers, PyTorch's or this package's, at least one of
        them with a weight or a bias
    learning_rate
        of Adam, positive; the paper's for small images is the default

    Raises
    ------
    ValueError
        a model without batch normalization layers, or none with parameters; a learning rate that is
        not positive. In a call: 1 value per channel, as in training

    Notes
    -----
    Within the context the statistics are those of each batch: feed it batches, not single examples,
    of all classes mixed. Everything else is in evaluation mode.

    *What it cannot repair.* It strengthens what the model believes: where most predictions are
    wrong, or steps are many and large, accuracy falls below that of the batch statistics alone.

    Afterwards the model is what it was: modes, statistics, values, gradients and ``requires_grad``
    of its parameters, also after an error. To keep what it is now, copy its state dictionary.

    References
    ----------
    Wang et al. (2021), arXiv:2006.10726.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    >>> x = torch.randn(20, 3, generator=generator)
    >>> with tent(model, learning_rate=0.01) as adapt:
    ...     logits = [adapt(x) for _ in range(20)]
    >>> entropies = [torch.distributions.Categorical(logits=z).entropy().mean() for z in logits]
    >>> bool(entropies[-1] < entropies[0])
    True
    """
    if not learning_rate > 0.0:
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate}")
    layers = list(batch_norm_layers(model).values())
    # Each once, also where layers share them.
    learned = list({value: None for layer in layers for value in layer.parameters(recurse=False)})
    if not learned:
        raise ValueError("model: expected a batch normalization layer with parameters, got none")
    with (
        evaluation_mode(model),
        _restored_parameters(model, learned),
        restored_statistics(layers),
    ):
        _use_batch_statistics(layers)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(learned, lr=learning_rate)

        def adapt(x: Tensor) -> Tensor:
            with torch.enable_grad():
                logits = model(x)
                scores = torch.distributions.Categorical(
                    logits=logits.movedim(1, -1), validate_args=False
                )
                optimizer.zero_grad()
                scores.entropy().mean().backward()
            optimizer.step()
            return logits.detach()

        yield adapt


def _use_batch_statistics(layers: list[Layer]) -> None:
    """In evaluation mode a layer without running statistics uses the batch's."""
    for layer in layers:
        layer.running_mean = layer.running_var = None


@contextmanager
def _restored_parameters(model: nn.Module, learned: list[nn.Parameter]) -> Iterator[None]:
    """Give all parameters their gradients and flags back, and the learned ones their values."""
    own = [(value, value.requires_grad, value.grad) for value in model.parameters()]
    values = [value.detach().clone() for value in learned]
    for value, _, _ in own:
        value.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, former in zip(learned, values, strict=True):
                parameter.copy_(former)
        for parameter, requires_grad, grad in own:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
