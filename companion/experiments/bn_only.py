"""What γ and β can do alone: all other parameters stay as they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from companion import BatchNorm1d

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Task, Training


@dataclass(frozen=True)
class Config:
    """Two hidden layers of each width on scikit-learn's digits."""

    dataset: str = "digits"
    widths: tuple[int, ...] = (32, 128, 512)
    depth: int = 2
    batch_size: int = 64
    steps: int = 2_000
    learning_rate: float = 0.1
    momentum: float = 0.9


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    width = int(variant.removeprefix("width "))
    sizes = (split.x_train.shape[1], *(width,) * config.depth, 10)
    model = perceptron(sizes, nn.ReLU, BatchNorm1d)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.requires_grad_(False)
    return Training(
        model.to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        look_every=max(1, config.steps // 50),
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The final accuracies, for each seed."""
    return {
        f"width {width}": [r.scalars["accuracy"] for r in by_seed(trials, f"width {width}")]
        for width in config.widths
    }


EXPERIMENT = Experiment(
    name="bn-only",
    summary="accuracy when γ and β alone are trained, by width",
    source="Frankle, Schwab & Morcos (2021), arXiv:2003.00152",
    config=Config(),
    quick=Config(widths=(32, 128), steps=200),
    variants=lambda config: tuple(f"width {width}" for width in config.widths),
    start=_start,
    conclude=_conclude,
)
