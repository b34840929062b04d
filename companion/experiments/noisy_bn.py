"""Does batch normalization help by keeping distributions still? Noise that moves them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d, preserved_statistics
from companion.variants import NoisyBatchNorm1d

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Probe, Task, Training

NORMALIZATIONS: dict[str, Callable[[int], nn.Module] | None] = {
    "plain": None,
    "bn": BatchNorm1d,
    "noisy bn": NoisyBatchNorm1d,
}


@dataclass(frozen=True)
class Config:
    """Eight hidden layers on scikit-learn's digits."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64,) * 8
    batch_size: int = 64
    steps: int = 1_000
    learning_rate: float = 0.03
    look_every: int = 10


def activation_inputs(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What each ReLU of `model` receives, ``(m, units)``."""
    inputs = []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            inputs.append(x)
        x = layer(x)
    return inputs


def drift_probe(x: Tensor) -> Probe:
    """How far the units' means have moved since the last look, in standard deviations.

    In training mode, where there is noise, on the same images at every look.
    """

    def look(model: nn.Module, kept: dict[str, Tensor]) -> dict[str, float]:
        assert isinstance(model, nn.Sequential)
        with preserved_statistics(model):
            inputs = torch.stack(activation_inputs(model.train(), x))
        mean, std = inputs.mean(1), inputs.std(1)
        moved = (mean - kept.get("mean", mean)).abs() / (kept.get("std", std) + 1e-6)
        kept.update(mean=mean, std=std)
        return {"drift": moved.mean().item()}

    return look


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    return Training(
        perceptron(sizes, nn.ReLU, NORMALIZATIONS[variant]).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        look_every=config.look_every,
        probe=drift_probe(split.x_train[:512]),
        conclude=lambda curves: {
            "accuracy": curves["accuracy"][-1],
            "drift": fmean(curves["drift"][1:]),
        },
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Final accuracy and mean drift, for each seed."""
    return {
        f"{variant}: {name}": [record.scalars[name] for record in by_seed(trials, variant)]
        for variant in NORMALIZATIONS
        for name in ("accuracy", "drift")
    }


EXPERIMENT = Experiment(
    name="noisy-bn",
    summary="noise after BN puts the drift of distributions back; accuracy with and without it",
    source="Santurkar et al. (2018), arXiv:1805.11604, Figure 2",
    config=Config(),
    quick=Config(steps=100),
    variants=lambda _: tuple(NORMALIZATIONS),
    start=_start,
    conclude=_conclude,
)
