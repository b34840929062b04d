"""Monte Carlo batch normalization: the noise of training, kept at test time, as an uncertainty.

Source: Teye, Azizpour & Smith (2018), arXiv:1802.06455, Algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from companion.statistics.layers import evaluation_mode, restored_statistics

from ._model import adopting_statistics, layers_that_all_track

__all__ = ["monte_carlo_predict"]


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
    model
        maps a batch to one tensor; its batch normalization layers, PyTorch's or this package's,
        keep running statistics
    x
        inputs ``(N, ...)``
    training_inputs
        what the mini-batches are drawn from, ``(M, ...)``
    batch_size
        from 2 to M; that of training, to have the noise of training
    samples
        number of mini-batches, at least 1
    generator
        what the mini-batches are drawn with

    Returns
    -------
    Tensor
        the model's outputs, ``(samples, N, ...)``, without gradients. Their mean over axis 0 is the
        prediction, their variance the uncertainty.

    Raises
    ------
    ValueError
        a number out of its range; a model without batch normalization layers, or with one that
        keeps no running statistics
    RuntimeError
        no layer was called (as of a model that was traced or exported, whose layers are its own)

    Notes
    -----
    The model is left as it was found, modes and running statistics included, also after an error.
    A layer that the model calls twice keeps the statistics of the second call. With ghost batch
    normalization, give the ghost batches' size as `batch_size`.

    References
    ----------
    Teye, Azizpour & Smith (2018), arXiv:1802.06455; Eq. (19) regularization-noise/mc-prediction.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(50, 3, generator=generator)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> options = {"batch_size": 10, "samples": 20, "generator": generator}
    >>> predicted = monte_carlo_predict(model, x[:2], x, **options)
    >>> predicted.shape
    torch.Size([20, 2, 4])
    >>> uncertainty = predicted.var(dim=0)
    """
    total = len(training_inputs)
    if not 2 <= batch_size <= total:
        raise ValueError(
            f"batch_size: expected 2 to {total}, the number of training inputs, got {batch_size}"
        )
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    layers = layers_that_all_track(model)
    predictions = []
    with evaluation_mode(model), restored_statistics(layers):
        for _ in range(samples):
            order = torch.randperm(total, generator=generator, device=generator.device)
            picked = order[:batch_size].to(training_inputs.device)
            with adopting_statistics(layers):
                model(training_inputs[picked])
            predictions.append(model(x))
    return torch.stack(predictions)
