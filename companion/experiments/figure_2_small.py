"""Figures 2 and 3 of Ioffe & Szegedy (2015) in small: five networks, three learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from companion import BatchNorm2d

from .experiment import Experiment, Trial, by_seed, number, steps_to_accuracy
from .inputs import pictures
from .networks import Activation, convolutional
from .tasks import Task, Training


class Variant(NamedTuple):
    """What the networks differ in."""

    rate_factor: float
    normalized: bool
    activation: Activation = nn.ReLU


VARIANTS = {
    "plain": Variant(1.0, normalized=False),
    "bn-baseline": Variant(1.0, normalized=True),
    "bn-x5": Variant(5.0, normalized=True),
    "bn-x30": Variant(30.0, normalized=True),
    "bn-x5-sigmoid": Variant(5.0, normalized=True, activation=nn.Sigmoid),
}


@dataclass(frozen=True)
class Config:
    """Momentum SGD with batches of 32, as in the paper; the base rate is the plain network's."""

    dataset: str = "mnist"
    widths: tuple[int, ...] = (8, 16, 16)
    batch_size: int = 32
    steps: int = 6_000
    learning_rate: float = 0.005
    momentum: float = 0.9
    look_every: int = 100


def training(config: Config, variant: Variant, seed: int, device: torch.device) -> Task:
    """The training of one network."""
    split = pictures(config.dataset, device)
    channels, side = split.x_train.shape[1:3]
    normalization = BatchNorm2d if variant.normalized else None
    model = convolutional(channels, side, variant.activation, normalization, config.widths)
    return Training(
        model.to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=variant.rate_factor * config.learning_rate,
        momentum=config.momentum,
        look_every=config.look_every,
        conclude=lambda curves: {"max_accuracy": max(curves["accuracy"])},
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The paper's table: steps to the plain network's maximum, and the maximum, for each seed."""
    aims = [number(record.scalars["max_accuracy"]) for record in by_seed(trials, "plain")]
    conclusion: dict[str, Any] = {}
    for variant in VARIANTS:
        records = by_seed(trials, variant)
        conclusion[f"{variant}: steps to the plain network's maximum"] = [
            steps_to_accuracy(record.curves["step"], record.curves["accuracy"], aim)
            for record, aim in zip(records, aims, strict=True)
        ]
        conclusion[f"{variant}: maximum accuracy"] = [r.scalars["max_accuracy"] for r in records]
    return conclusion


EXPERIMENT = Experiment(
    name="figure-2-small",
    summary="a convolutional network without BN, and with BN at 1, 5 and 30 times its rate",
    source="Ioffe & Szegedy (2015), arXiv:1502.03167, Figures 2 and 3",
    config=Config(),
    quick=Config(dataset="digits", steps=150, look_every=25),
    variants=lambda _: tuple(VARIANTS),
    start=lambda config, name, seed, device: training(config, VARIANTS[name], seed, device),
    conclude=_conclude,
)
