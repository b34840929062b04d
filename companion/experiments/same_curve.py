"""Figure 1's network with PyTorch's layer and with ours: the same training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import companion
from companion.data import Split

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Task, Training

LAYERS = {"companion": companion.BatchNorm1d, "torch": nn.BatchNorm1d}


@dataclass(frozen=True)
class Config:
    """In float64: rounding errors grow exponentially in training, and float32's are visible."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (100, 100, 100)
    batch_size: int = 60
    steps: int = 2_000
    learning_rate: float = 0.1
    weight_std: float = 0.1
    look_every: int = 50


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device, binary=True)
    exact = Split(split.x_train.double(), split.y_train, split.x_test.double(), split.y_test)
    sizes = (split.x_train.shape[1], *config.hidden, 10)

    def look(model: nn.Module, _: dict[str, Tensor]) -> dict[str, float]:
        logits = model(exact.x_test)
        return {"loss": nn.functional.cross_entropy(logits, exact.y_test).item()}

    return Training(
        perceptron(sizes, nn.Sigmoid, LAYERS[variant], config.weight_std).double().to(device),
        exact,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        look_every=config.look_every,
        probe=look,
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The largest difference of the test losses, in nats, and the accuracies, for each seed."""
    pairs = list(zip(by_seed(trials, "companion"), by_seed(trials, "torch"), strict=True))
    return {
        "largest difference of the losses": [
            max(abs(a - b) for a, b in zip(ours.curves["loss"], its.curves["loss"], strict=True))
            for ours, its in pairs
        ],
        "companion: accuracy": [ours.scalars["accuracy"] for ours, _ in pairs],
        "torch: accuracy": [its.scalars["accuracy"] for _, its in pairs],
    }


EXPERIMENT = Experiment(
    name="same-curve",
    summary="this package's layer and PyTorch's give the same curve",
    source="companion.BatchNorm1d against torch.nn.BatchNorm1d",
    config=Config(),
    quick=Config(steps=100),
    variants=lambda _: tuple(LAYERS),
    start=_start,
    conclude=_conclude,
)
