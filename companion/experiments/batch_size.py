"""Batch, group and re-normalization from batches of 2 to batches of 128."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from companion import BatchNorm1d
from companion.variants import BatchRenorm1d, GroupNorm, LinearSchedule

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Task, Training


@dataclass(frozen=True)
class Config:
    """Every batch size sees the same number of examples, at a rate in proportion to it."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64, 64)
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    examples: int = 16_000
    rate_per_example: float = 0.1 / 32
    groups: int = 8


def _normalizations(config: Config, steps: int) -> dict[str, Callable[[int], nn.Module]]:
    # The paper relaxes r over the first quarter of its training, d over an eighth.
    return {
        "bn": BatchNorm1d,
        "renorm": lambda features: BatchRenorm1d(
            features,
            r_max=LinearSchedule(1.0, 3.0, steps // 32, steps // 4 + 1),
            d_max=LinearSchedule(0.0, 5.0, steps // 32, steps // 8 + 1),
        ),
        "gn": lambda features: GroupNorm(config.groups, features),
    }


def _variants(config: Config) -> tuple[str, ...]:
    return tuple(f"{kind}, m = {m}" for m in config.sizes for kind in ("bn", "renorm", "gn"))


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    kind, _, size = variant.partition(", m = ")
    m = int(size)
    steps = config.examples // m
    split = rows(config.dataset, device)
    normalization = _normalizations(config, steps)[kind]
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    return Training(
        perceptron(sizes, nn.ReLU, normalization).to(device),
        split,
        seed,
        steps=steps,
        batch_size=m,
        learning_rate=config.rate_per_example * m,
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The final accuracies, for each seed."""
    return {
        variant: [record.scalars["accuracy"] for record in by_seed(trials, variant)]
        for variant in _variants(config)
    }


EXPERIMENT = Experiment(
    name="batch-size",
    summary="BN, group normalization and batch renormalization from m = 2 to 128",
    source="Wu & He (2018), arXiv:1803.08494, Figure 5; Ioffe (2017), arXiv:1702.03275, section 4",
    config=Config(),
    quick=Config(sizes=(2, 32), examples=1_600),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
