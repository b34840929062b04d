"""Weight decay turns weights in front of batch normalization by an angle that ηλ alone sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d, closed_forms

from .experiment import Experiment, Trial, by_seed, number
from .inputs import rows
from .networks import perceptron
from .tasks import Curves, Scalars, Task, Training


@dataclass(frozen=True)
class Config:
    """γ and β are left out, and the output layer is not trained: all that decays is normalized."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64, 64)
    # Learning rate and weight decay.
    pairs: tuple[tuple[float, float], ...] = ((0.1, 0.04), (0.4, 0.01), (0.4, 0.02))
    batch_size: int = 64
    steps: int = 3_000


def _look(model: nn.Module, kept: dict[str, Tensor]) -> dict[str, float]:
    """Root mean square, over the first layer's units, of the angle since the last look."""
    weight = next(model.parameters()).detach().to(torch.float64)
    before = kept.get("weight", weight)
    kept["weight"] = weight.clone()
    cosines = nn.functional.cosine_similarity(weight, before, dim=1).clamp(-1.0, 1.0)
    return {
        "angle": cosines.acos().square().mean().sqrt().item(),
        "norm": weight.norm(dim=1).mean().item(),
    }


def _scalars(curves: Curves) -> Scalars:
    late = curves["angle"][len(curves["angle"]) // 2 :]
    return {"angle": math.sqrt(sum(angle**2 for angle in late) / len(late))}


def _name(pair: tuple[float, float]) -> str:
    return f"rate {pair[0]:g}, decay {pair[1]:g}"


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    rate, decay = next(pair for pair in config.pairs if _name(pair) == variant)
    split = rows(config.dataset, device)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    model = perceptron(sizes, nn.ReLU, partial(BatchNorm1d, affine=False)).to(device)
    model[-1].requires_grad_(False)
    return Training(
        model,
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=rate,
        weight_decay=decay,
        look_every=1,
        probe=_look,
        conclude=_scalars,
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Measured over predicted angle, for each seed."""
    return {
        f"{_name(pair)}: measured over predicted angle": [
            number(record.scalars["angle"]) / closed_forms.equilibrium_angle(*pair)
            for record in by_seed(trials, _name(pair))
        ]
        for pair in config.pairs
    }


EXPERIMENT = Experiment(
    name="weight-decay-equilibrium",
    summary="the angle between successive weights in equilibrium, against √(2ηλ)",
    source="van Laarhoven (2017), arXiv:1706.05350; Wan et al. (2020), arXiv:2006.08419",
    config=Config(),
    quick=Config(pairs=((0.4, 0.1),), steps=400),
    variants=lambda config: tuple(_name(pair) for pair in config.pairs),
    start=_start,
    conclude=_conclude,
)
