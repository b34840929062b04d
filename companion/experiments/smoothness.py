"""How much the loss varies along its gradient, without and with batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d, preserved_statistics
from companion.data import Split

from .experiment import Experiment, Trial, by_seed, number, ratio
from .inputs import rows
from .networks import perceptron
from .tasks import Probe, Task, Training


@dataclass(frozen=True)
class Config:
    """Eight hidden layers; both networks take the same small steps, and are probed with larger."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64,) * 8
    probed: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    batch_size: int = 64
    steps: int = 300
    learning_rate: float = 0.03
    look_every: int = 10


def along_gradient(
    model: nn.Module, x: Tensor, y: Tensor, rates: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The loss on a batch, and the change of its gradient, after steps along the negative gradient.

    The model is in training mode then; afterwards it is what it was.

    Parameters
    ----------
    model
        a classifier
    x, y
        inputs ``(m, ...)`` and classes ``(m,)``
    rates
        learning rates: the steps start from the same weights

    Returns
    -------
    list, list
        at each rate the loss, in nats, and the length of the gradient's change as a fraction of
        the length of the gradient at the start
    """
    parameters = list(model.parameters())
    losses, changes = [], []
    with preserved_statistics(model), torch.enable_grad():
        model.train()
        first = nn.functional.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(first, parameters)
        before = [value.detach().clone() for value in parameters]
        for rate in rates:
            _place(parameters, before, gradients, rate)
            loss = nn.functional.cross_entropy(model(x), y)
            now = torch.autograd.grad(loss, parameters)
            losses.append(loss.item())
            changed = [b - a for a, b in zip(gradients, now, strict=True)]
            changes.append(_length(changed) / _length(gradients))
        _place(parameters, before, gradients, 0.0)
    return losses, changes


@torch.no_grad()
def _place(
    parameters: Sequence[Tensor], before: Sequence[Tensor], along: Sequence[Tensor], rate: float
) -> None:
    for value, start, direction in zip(parameters, before, along, strict=True):
        value.copy_(start - rate * direction if rate else start)


def _length(tensors: Sequence[Tensor]) -> float:
    return torch.stack([each.square().sum() for each in tensors]).sum().sqrt().item()


def loss_range(model: nn.Module, x: Tensor, y: Tensor, rates: Sequence[float]) -> float:
    """Largest less smallest loss on a batch, over steps of `rates` along its negative gradient.

    The model is in training mode then; afterwards it is what it was.
    """
    losses, _ = along_gradient(model, x, y, rates)
    return max(losses) - min(losses)


def _probe(config: Config, split: Split) -> Probe:
    x, y = split.x_train[:256], split.y_train[:256]

    def look(model: nn.Module, _: dict[str, Tensor]) -> dict[str, float]:
        return {"loss_range": loss_range(model, x, y, config.probed)}

    return look


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    return Training(
        perceptron(sizes, nn.ReLU, BatchNorm1d if variant == "bn" else None).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        look_every=config.look_every,
        probe=_probe(config, split),
        conclude=lambda curves: {"loss_range": fmean(curves["loss_range"])},
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The mean range over training, and how many times smaller it is with BN, for each seed."""
    plain, bn = (
        [number(record.scalars["loss_range"]) for record in by_seed(trials, variant)]
        for variant in ("plain", "bn")
    )
    return {
        "loss range, plain": plain,
        "loss range, bn": bn,
        "times smaller with bn": [ratio(p, b) for p, b in zip(plain, bn, strict=True)],
    }


EXPERIMENT = Experiment(
    name="smoothness",
    summary="the range of the loss along its gradient, without and with BN",
    source="Santurkar et al. (2018), arXiv:1805.11604, Figure 4",
    config=Config(),
    quick=Config(steps=60),
    variants=lambda _: ("plain", "bn"),
    start=_start,
    conclude=_conclude,
)
