"""Figure 1 of Ioffe & Szegedy (2015): a network of sigmoids on MNIST, without and with BN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import companion

from .experiment import Experiment, Trial, by_seed, number, ratio, steps_to_accuracy
from .inputs import rows
from .networks import perceptron
from .tasks import Curves, Probe, Record, Scalars, Task, Training

PERCENTILES = (0.15, 0.5, 0.85)
_LAST = 10  # looks whose mean is the final accuracy
_SETTLED = 100  # steps after which running statistics have forgotten their start


@dataclass(frozen=True)
class Config:
    """The paper says all but the learning rate and the standard deviation of the weights."""

    dataset: str = "mnist"
    hidden: tuple[int, ...] = (100, 100, 100)
    batch_size: int = 60
    steps: int = 50_000
    learning_rate: float = 0.1
    weight_std: float = 0.1
    look_every: int = 100
    threshold: float = 0.9


def percentile_bands(values: Tensor) -> Tensor:
    """The {15, 50, 85}th percentiles of each column of ``(m, units)``: ``(3, units)``.

    Between two values they are interpolated: the share τ is read at the place τ(m−1) of the
    sorted values, counted from 0.

    Examples
    --------
    >>> percentile_bands(torch.arange(101.0)[:, None])[:, 0]
    tensor([15., 50., 85.])
    """
    return torch.quantile(values, values.new_tensor(PERCENTILES), dim=0)


def band_drift(median_before: Tensor, bands: Tensor) -> Tensor:
    """How far medians ``(units,)`` have moved to `bands`, in widths of these; mean over the units.

    Examples
    --------
    >>> band_drift(torch.tensor([1.0]), torch.tensor([[0.0], [2.0], [4.0]]))
    tensor(0.2500)
    """
    low, median, high = bands
    return ((median - median_before).abs() / (high - low)).mean()


def _probe(x: Tensor) -> Probe:
    """How, given the images `x`, the inputs of the last hidden layer's sigmoids are distributed.

    The bands are those of the first unit, which is as typical as any. Averaged over all units are
    the width of the band, and the drift: how far the median has moved since the last look, in
    widths of the band.
    """

    def look(model: nn.Module, kept: dict[str, Tensor]) -> dict[str, float]:
        assert isinstance(model, nn.Sequential)
        bands = percentile_bands(model[:-2](x))
        low, median, high = bands
        drift = band_drift(kept.get("median", median), bands)
        kept["median"] = median
        return {
            "low": low[0].item(),
            "median": median[0].item(),
            "high": high[0].item(),
            "width": (high - low).mean().item(),
            "drift": drift.item(),
        }

    return look


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device, binary=True)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    normalization = companion.BatchNorm1d if variant == "bn" else None
    return Training(
        perceptron(sizes, nn.Sigmoid, normalization, config.weight_std).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        look_every=config.look_every,
        probe=_probe(split.x_test[:1000]),
        conclude=lambda curves: scalars(config, curves),
    )


def scalars(config: Config, curves: Curves) -> Scalars:
    """Steps to the threshold, the mean of the last accuracies, and how much the bands widen."""
    steps, accuracies = curves["step"], curves["accuracy"]
    widths = curves["width"][_settled(steps) :]
    return {
        "steps_to_threshold": steps_to_accuracy(steps, accuracies, config.threshold),
        "final_accuracy": fmean(accuracies[-_LAST:]),
        "widening": max(widths) / min(widths),
    }


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """For each seed: how many times sooner BN is, by how much it ends higher, drifts less.

    Drift is compared up to where the plain network reaches the threshold, and from there on.
    """
    conclusion: dict[str, list[float | None]] = {
        "times_sooner_at_threshold": [],
        "times_sooner_at_plains_final_accuracy": [],
        "final_accuracy_gain": [],
        "drift_ratio_until_plains_threshold": [],
        "drift_ratio_after": [],
        "widening_ratio": [],
    }
    for plain, bn in zip(by_seed(trials, "plain"), by_seed(trials, "bn"), strict=True):
        end = number(plain.scalars["final_accuracy"])
        split = _looks_until(plain.scalars["steps_to_threshold"], plain)
        values = (
            ratio(plain.scalars["steps_to_threshold"], bn.scalars["steps_to_threshold"]),
            ratio(_steps_to(end, plain), _steps_to(end, bn)),
            number(bn.scalars["final_accuracy"]) - end,
            ratio(_drift(plain, 0, split), _drift(bn, 0, split)),
            ratio(_drift(plain, split, None), _drift(bn, split, None)),
            ratio(plain.scalars["widening"], bn.scalars["widening"]),
        )
        for values_of_seeds, value in zip(conclusion.values(), values, strict=True):
            values_of_seeds.append(value)
    return conclusion


def _settled(steps: Sequence[float]) -> int:
    """The first look at settled statistics; the last one if the run is too short to have any."""
    return next((look for look, step in enumerate(steps) if step >= _SETTLED), -1)


def _looks_until(step: float | None, record: Record) -> int | None:
    return None if step is None else record.curves["step"].index(step)


def _drift(record: Record, first: int | None, last: int | None) -> float | None:
    """The mean drift between looks at settled statistics, from `first` on; None without any."""
    if first is None:
        return None
    earliest = _settled(record.curves["step"]) + 1
    chosen = record.curves["drift"][max(first, earliest) : last]
    return fmean(chosen) if chosen else None


def _steps_to(accuracy: float, record: Record) -> float | None:
    return steps_to_accuracy(record.curves["step"], record.curves["accuracy"], accuracy)


EXPERIMENT = Experiment(
    name="figure-1",
    summary="accuracy and percentile bands of a sigmoid network, without and with BN",
    source="Ioffe & Szegedy (2015), arXiv:1502.03167, Figure 1",
    config=Config(),
    quick=Config(dataset="digits", steps=600, look_every=20),
    variants=lambda _: ("plain", "bn"),
    start=_start,
    conclude=_conclude,
)
