"""How high the learning rate can be, without and with batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from companion import BatchNorm1d

from .experiment import Experiment, Trial, number, ratio
from .inputs import rows
from .networks import perceptron
from .tasks import Task, Training


@dataclass(frozen=True)
class Config:
    """Five hidden layers on scikit-learn's digits; a network trains if it ends at `threshold`."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64,) * 5
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    batch_size: int = 64
    steps: int = 300
    threshold: float = 0.8


def _variants(config: Config) -> tuple[str, ...]:
    return tuple(f"{kind} at {rate:g}" for kind in ("plain", "bn") for rate in config.rates)


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    kind, _, rate = variant.partition(" at ")
    split = rows(config.dataset, device)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    model = perceptron(sizes, nn.ReLU, BatchNorm1d if kind == "bn" else None).to(device)
    return Training(
        model,
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=float(rate),
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """For each seed the largest rate that trains, and how many times larger it is with BN."""
    largest: dict[str, list[float | None]] = {"plain": [], "bn": [], "ratio": []}
    for seed in sorted({trial.seed for trial in trials}):
        for kind in ("plain", "bn"):
            rates = (
                float(trial.variant.partition(" at ")[2])
                for trial in trials
                if trial.seed == seed
                and trial.variant.startswith(f"{kind} ")
                and number(trial.record.scalars["accuracy"]) >= config.threshold
            )
            largest[kind].append(max(rates, default=None))
        largest["ratio"].append(ratio(largest["bn"][-1], largest["plain"][-1]))
    return {
        "largest rate, plain": largest["plain"],
        "largest rate, bn": largest["bn"],
        "times larger with bn": largest["ratio"],
    }


EXPERIMENT = Experiment(
    name="learning-rate-limit",
    summary="the largest learning rate that trains, without and with BN",
    source="Bjorck et al. (2018), arXiv:1806.02375, section 3",
    config=Config(),
    quick=Config(rates=(0.1, 1.0), steps=100),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
