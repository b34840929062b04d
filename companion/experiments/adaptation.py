"""Statistics of the test inputs instead of the training's: which shifts of the inputs they undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d
from companion.data import Split
from companion.variants import adapted_statistics

from .experiment import Experiment, Trial, by_seed
from .inputs import rows
from .networks import perceptron
from .tasks import Curves, Scalars, Task, Training, test_accuracy


@dataclass(frozen=True)
class Config:
    """Contrast: x·scale + shift for every pixel. Noise: N(0, std²) added to every pixel."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64, 64)
    contrast_scale: float = 0.3
    contrast_shift: float = 0.5
    noise_std: float = 0.3
    batch_size: int = 64
    steps: int = 1_000
    learning_rate: float = 0.1


def _shifted(config: Config, split: Split) -> dict[str, Split]:
    """The test set as it is, with less contrast, and with noise, the same at every look."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(split.x_test.shape, generator=generator).to(split.x_test)
    inputs: dict[str, Tensor] = {
        "clean": split.x_test,
        "contrast": split.x_test * config.contrast_scale + config.contrast_shift,
        "noise": split.x_test + config.noise_std * noise,
    }
    return {name: split._replace(x_test=x) for name, x in inputs.items()}


def _start(config: Config, _variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    shifted = _shifted(config, split)
    sizes = (split.x_train.shape[1], *config.hidden, 10)

    def look(model: nn.Module, _: dict[str, Tensor]) -> dict[str, float]:
        accuracies = {}
        for name, test in shifted.items():
            accuracies[f"{name}, training's statistics"] = test_accuracy(model, test)
            with adapted_statistics(model, test.x_test, source_size=0.0):
                accuracies[f"{name}, the test's"] = test_accuracy(model, test)
        return accuracies

    def scalars(curves: Curves) -> Scalars:
        return {name: values[-1] for name, values in curves.items() if name != "step"}

    return Training(
        perceptron(sizes, nn.ReLU, BatchNorm1d).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        probe=look,
        conclude=scalars,
    )


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The accuracies, for each seed."""
    records = by_seed(trials, "bn")
    return {name: [record.scalars[name] for record in records] for name in records[0].scalars}


EXPERIMENT = Experiment(
    name="test-time-adaptation",
    summary="accuracy on shifted inputs with the training's statistics and with the test's",
    source="Schneider et al. (2020), arXiv:2006.16971; Li et al. (2016), arXiv:1603.04779",
    config=Config(),
    quick=Config(steps=150),
    variants=lambda _: ("bn",),
    start=_start,
    conclude=_conclude,
)
