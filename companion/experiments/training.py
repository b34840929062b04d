"""Mini-batch gradient descent on a classifier, small enough to read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def minibatches(
    x: Tensor, y: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless mini-batches of one size: each epoch in a new random order, its remainder left out.

    Parameters
    ----------
    x, y
        inputs ``(m, ...)`` and targets ``(m, ...)``
    batch_size
        from 1 to m
    generator
        what the order is drawn from

    Raises
    ------
    ValueError
        `batch_size` is out of its range
    """
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size: expected 1 to {len(x)}, got {batch_size}")
    while True:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for batch in order.split(batch_size):
            if len(batch) == batch_size:
                yield x[batch], y[batch]


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    momentum: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Minimize the cross-entropy of `model` by stochastic gradient descent.

    Parameters
    ----------
    model
        is trained in place
    x, y
        inputs ``(m, ...)`` and classes ``(m,)``
    steps, batch_size
        how many steps, of how many examples
    learning_rate, momentum
        of PyTorch's SGD
    seed
        of the order of the mini-batches

    Returns
    -------
    list[float]
        the loss of every step, in nats
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    batches = minibatches(x, y, batch_size, torch.Generator().manual_seed(seed))
    losses = []
    model.train()
    for _, (inputs, targets) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Fraction of `x` that `model` classifies as `y`, in evaluation mode; restores the mode."""
    was_training = model.training
    model.eval()
    correct = (model(x).argmax(dim=1) == y).double().mean().item()
    model.train(was_training)
    return correct
