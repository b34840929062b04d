"""Ghost batches: what a large batch loses, and whether small statistics win it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from companion import BatchNorm1d
from companion.variants import GhostBatchNorm1d

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Task, Training

VARIANTS = ("small batches", "large batches", "large batches, ghosts")


@dataclass(frozen=True)
class Config:
    """The same epochs for all; a large batch's rate grows with the root of its size (Hoffer)."""

    dataset: str = "mnist"
    hidden: tuple[int, ...] = (256, 256)
    small: int = 128
    large: int = 4096
    ghost: int = 128
    epochs: int = 10
    learning_rate: float = 0.1
    momentum: float = 0.9


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    size = config.small if variant == VARIANTS[0] else config.large
    ghosts = partial(GhostBatchNorm1d, ghost_size=config.ghost)
    normalization: Callable[[int], nn.Module] = ghosts if variant == VARIANTS[2] else BatchNorm1d
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    per_epoch = len(split.x_train) // size
    return Training(
        perceptron(sizes, nn.ReLU, normalization).to(device),
        split,
        seed,
        steps=config.epochs * per_epoch,
        batch_size=size,
        learning_rate=config.learning_rate * (size / config.small) ** 0.5,
        momentum=config.momentum,
        look_every=per_epoch,
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The final test accuracies, for each seed."""
    return {
        variant: [record.scalars["accuracy"] for record in by_seed(trials, variant)]
        for variant in VARIANTS
    }


EXPERIMENT = Experiment(
    name="ghost",
    summary="large batches with the statistics of small ones",
    source="Hoffer, Hubara & Soudry (2017), arXiv:1705.08741, Table 1",
    config=Config(),
    quick=Config(dataset="digits", hidden=(64,), small=32, large=512, ghost=32, epochs=5),
    variants=lambda _: VARIANTS,
    start=_start,
    conclude=_conclude,
)
