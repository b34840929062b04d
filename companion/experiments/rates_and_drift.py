"""Plain, normalized and noisily normalized networks at many learning rates: accuracy and drift.

"Equal rates" means little where the loss does not depend on the weights' scale: a normalized
network from smaller hidden weights is one of the four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from companion.variants import NoisyBatchNorm1d

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .noisy_bn import NORMALIZATIONS, drift_probe
from .tasks import Curves, Scalars, Task, Training


@dataclass(frozen=True)
class Config:
    """Eight hidden layers on scikit-learn's digits, as in `noisy-bn`."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64,) * 8
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    batch_size: int = 64
    steps: int = 300
    look_every: int = 10
    small: float = 10.0
    """By the root of this the hidden weights of "small bn" are divided."""
    limits: tuple[float, ...] = (1.0, 2.0, 3.0)
    limits_rate: float = 1.0
    """The rate for shifts of the noise that reach so far, and not 0.5 as in "noisy bn"."""


KINDS = {**NORMALIZATIONS, "small bn": NORMALIZATIONS["bn"]}


def _variants(config: Config) -> tuple[str, ...]:
    swept = (f"{kind} at {rate:g}" for kind in KINDS for rate in config.rates)
    noisier = (f"noise {limit:g} at {config.limits_rate:g}" for limit in config.limits)
    return (*swept, *noisier)


def _model(config: Config, kind: str, features: int) -> nn.Sequential:
    name, _, limit = kind.partition(" ")
    normalization = (
        partial(NoisyBatchNorm1d, shift_limit=float(limit)) if name == "noise" else KINDS[kind]
    )
    model = perceptron((features, *config.hidden, 10), nn.ReLU, normalization)
    if kind == "small bn":
        with torch.no_grad():
            for layer in list(model)[:-1]:
                if isinstance(layer, nn.Linear):
                    layer.weight.div_(math.sqrt(config.small))
    return model


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    kind, _, rate = variant.partition(" at ")
    split = rows(config.dataset, device)
    task: Training

    def conclude(curves: Curves) -> Scalars:
        drift, losses = curves["drift"][1:], task.losses[-config.look_every :]
        return {
            "accuracy": curves["accuracy"][-1],
            "drift": fmean(drift) if all(map(math.isfinite, drift)) else None,
            "loss": fmean(losses) if all(map(math.isfinite, losses)) else None,
        }

    task = Training(
        _model(config, kind, split.x_train.shape[1]).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=float(rate),
        look_every=config.look_every,
        probe=drift_probe(split.x_train[:512]),
        conclude=conclude,
    )
    return task


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Final test accuracy, final training loss and mean drift, for each seed; None: not finite."""
    variants = dict.fromkeys(trial.variant for trial in trials)
    return {
        f"{variant}: {name}": [record.scalars[name] for record in by_seed(trials, variant)]
        for variant in variants
        for name in ("accuracy", "loss", "drift")
    }


EXPERIMENT = Experiment(
    name="rates-and-drift",
    summary="accuracy and drift of plain, BN and noisy-BN networks over learning rates",
    source="Santurkar et al. (2018), arXiv:1805.11604, Figures 1 and 2; Bjorck et al. (2018), "
    "arXiv:1806.02375, section 3",
    config=Config(),
    quick=Config(rates=(0.03, 1.0), limits=(), steps=100),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
