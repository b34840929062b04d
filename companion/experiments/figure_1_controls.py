"""Figure 1 with other initial weights and rates: what else makes its first network fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import figure_1
from .experiment import Experiment, Trial, by_seed
from .tasks import Task


@dataclass(frozen=True)
class Config:
    """Both networks of Figure 1, at each standard deviation of the weights and learning rate."""

    dataset: str = "mnist"
    steps: int = 10_000
    weight_stds: tuple[float, ...] = (0.1, 0.4)
    learning_rates: tuple[float, ...] = (0.1, 1.0)
    look_every: int = 100


def name(network: str, weight_std: float, learning_rate: float) -> str:
    """The name of a variant.

    Examples
    --------
    >>> name("bn", 0.1, 1.0)
    'bn, weights 0.1, rate 1'
    """
    return f"{network}, weights {weight_std:g}, rate {learning_rate:g}"


def _planned(config: Config) -> dict[str, tuple[str, float, float]]:
    return {
        name(network, std, rate): (network, std, rate)
        for network in ("plain", "bn")
        for std in config.weight_stds
        for rate in config.learning_rates
    }


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    network, std, rate = _planned(config)[variant]
    of_figure_1 = figure_1.Config(
        dataset=config.dataset,
        steps=config.steps,
        weight_std=std,
        learning_rate=rate,
        look_every=config.look_every,
    )
    return figure_1.EXPERIMENT.start(of_figure_1, network, seed, device)


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """For each seed: steps to the threshold, final accuracy, and widening."""
    return {
        f"{variant}: {scalar.replace('_', ' ')}": [
            record.scalars[scalar] for record in by_seed(trials, variant)
        ]
        for variant in _planned(config)
        for scalar in ("steps_to_threshold", "final_accuracy", "widening")
    }


EXPERIMENT = Experiment(
    name="figure-1-controls",
    summary="the networks of Figure 1 with other initial weights and learning rates",
    source="a control of Ioffe & Szegedy (2015), arXiv:1502.03167, Figure 1",
    config=Config(),
    quick=Config(dataset="digits", steps=600, look_every=20),
    variants=lambda config: tuple(_planned(config)),
    start=_start,
    conclude=_conclude,
)
