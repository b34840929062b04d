"""The exercises of the chapter `reproducing-the-paper`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from companion.experiments import experiment, figure_1

from .exercise import Case, Exercise, Property

CHAPTER = "reproducing-the-paper"


def _column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _bands_cases() -> Iterator[Case]:
    yield Case("three values", (_column(0, 10, 20), [0.3]))
    yield Case("three values, not in order", (_column(3, 1, 2), [0.5]))
    yield Case("five values, four shares", (_column(0, 1, 10, 100, 1000), [0.1, 0.3, 0.5, 0.85]))
    yield Case("the smallest and the largest", (_column(4, -1, 7), [0.0, 1.0]))
    yield Case("one value", (_column(4), [0.15, 0.85]))
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    yield Case("three units", (values, [0.15, 0.5, 0.85]))
    square = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    yield Case("as many images as units", (square, [0.15, 0.5, 0.85]))
    yield Case("float32", (values.float(), [0.15, 0.5, 0.85]), tolerance=1e-6)


def _quantiles(values: torch.Tensor, shares: list[float]) -> torch.Tensor:
    bands = np.quantile(values.numpy().astype(float), shares, axis=0)
    return torch.from_numpy(bands).to(values.dtype)


def _read(place: Any, order: Any = lambda values: values.sort(dim=0).values) -> Any:
    """Percentiles read at another place of the values, or in another order."""

    def bands(values: torch.Tensor, shares: list[float]) -> torch.Tensor:
        rows, last = order(values), len(values) - 1
        found = []
        for tau in shares:
            at = min(place(tau, len(values)), last)
            first = int(at)
            found.append(torch.lerp(rows[first], rows[min(first + 1, last)], at - first))
        return torch.stack(found)

    return bands


def _place(tau: float, m: int) -> float:
    return tau * (m - 1)


def _outside(bands: Any, values: Any, shares: Any) -> float:
    """How far percentiles lie beyond the bound of the theorem, in standard deviations."""
    values, tau = np.asarray(values, float), np.asarray(shares)[:, None]
    std = values.std(axis=0)
    away = np.asarray(bands, float) - values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = away - std * np.sqrt(tau / (1 - tau))
        below = -away - std * np.sqrt((1 - tau) / tau)
    return float(np.nanmax([above, below]) / (std.max() or 1.0))


PERCENTILE_BOUND = Property(
    "Q_τ lies at most √(τ/(1 − τ)) standard deviations above the mean, √((1 − τ)/τ) below",
    _outside,
    1e-6,
)

PERCENTILE_BANDS = Exercise(
    "percentile-bands",
    CHAPTER,
    "percentiles of each column, interpolated",
    ("values", "shares"),
    oracle=_quantiles,
    cases=_bands_cases,
    properties=(PERCENTILE_BOUND,),
    slips={
        "The places run from 0 to m − 1, so the share τ is at τ(m − 1), not at τm.": _read(
            lambda tau, m: tau * m
        ),
        "Between two values, interpolate; do not round the place down.": _read(
            lambda tau, m: int(tau * (m - 1))
        ),
        "Between two values, interpolate; do not take the nearest.": _read(
            lambda tau, m: round(tau * (m - 1))
        ),
        "The values have to be sorted first.": _read(_place, lambda values: values),
        "Sort each column, down the images (dim 0), not each row.": _read(
            _place, lambda values: values.sort(dim=1).values
        ),
        "A row of the result belongs to a share, a column to a unit.": (
            lambda values, shares: _quantiles(values, shares).T
        ),
    },
)


def _band(*looks: tuple[float, float, float]) -> Any:
    return np.array(looks, float)[:, :, None]


def _drift_cases() -> Iterator[Case]:
    yield Case("two looks at one unit", (_band((0, 1, 2), (0, 2, 4)),))
    yield Case("a median that falls", (_band((0, 4, 8), (0, 3, 5)),))
    two = np.concatenate([_band((0, 1, 2), (0, 2, 4)), _band((0, 1, 2), (-15, 6, 25))], axis=2)
    yield Case("two units, one ten times as wide", (two,))
    yield Case("a band that only widens", (_band((-1, 0, 1), (-2, 0, 2), (-4, 0, 4)),))
    rng = np.random.default_rng(0)
    yield Case("five looks at four units", (np.sort(rng.normal(size=(5, 3, 4)), axis=1),))
    yield Case("three looks at three units", (np.sort(rng.normal(size=(3, 3, 3)), axis=1),))


def _drift(bands: Any) -> Any:
    looks = torch.from_numpy(bands)
    found = [figure_1.band_drift(old[1], new) for old, new in itertools.pairwise(looks)]
    return torch.stack(found).numpy()


def _moved(width: Any, combine: Any = lambda moved, width: (moved / width).mean(axis=1)) -> Any:
    """A drift in another width, or averaged another way."""

    def drift(bands: Any) -> Any:
        return combine(np.abs(np.diff(bands[:, 1], axis=0)), width(bands[:, 2] - bands[:, 0]))

    return drift


BAND_DRIFT = Exercise(
    "band-drift",
    CHAPTER,
    "how far bands move from look to look, in their own widths",
    ("bands",),
    oracle=_drift,
    cases=_drift_cases,
    slips={
        "The unit is the width at the later of the two looks.": _moved(lambda width: width[:-1]),
        "The drift has no sign: take the absolute value of the change.": lambda bands: (
            np.diff(bands[:, 1], axis=0) / (bands[1:, 2] - bands[1:, 0])
        ).mean(axis=1),
        "Divide for each unit by its own width, and average afterwards.": _moved(
            lambda width: width[1:], lambda moved, width: moved.mean(axis=1) / width.mean(axis=1)
        ),
        "Divide the change by the width of the band.": _moved(
            lambda width: np.ones_like(width[1:])
        ),
        "Average over the units, not over the looks: one number for each look after the first.": (
            _moved(lambda width: width[1:], lambda moved, width: (moved / width).mean(axis=0))
        ),
        "Average over the units: one number for each look after the first.": _moved(
            lambda width: width[1:], np.divide
        ),
    },
)


def _look_cases() -> Iterator[Case]:
    yield Case("two looks, and the last reaches the threshold", ([0, 20], [0.5, 0.95], 0.9, 1))
    yield Case("just the threshold", ([0, 20, 40], [0.5, 0.9, 0.95], 0.9, 1))
    yield Case("never", ([0, 20], [0.5, 0.6], 0.9, 1))
    steps = [0, 20, 40, 60, 80, 100]
    yield Case(
        "a lucky look, then two in a row", (steps, [0.5, 0.93, 0.8, 0.9, 0.92, 0.91], 0.9, 2)
    )
    yield Case("three in all, but not in a row", (steps, [0.5, 0.9, 0.8, 0.9, 0.8, 0.9], 0.9, 2))
    yield Case("a row that the run cuts off", (steps, [0.5, 0.6, 0.7, 0.8, 0.9, 0.92], 0.9, 3))
    yield Case("a row at the very end", (steps, [0.5, 0.6, 0.7, 0.9, 0.9, 0.92], 0.9, 3))
    yield Case("fewer looks than asked for", ([0, 20], [0.95, 0.95], 0.9, 5))
    rng = np.random.default_rng(0)
    noisy = np.linspace(0.8, 1.0, 200) + 0.05 * rng.standard_normal(200)
    yield Case("a noisy rise", (list(range(0, 4000, 20)), noisy.tolist(), 0.9, 5))


def _least(accuracies: Any, in_a_row: int) -> Any:
    """The smallest accuracy of each row of looks."""
    return [
        min(accuracies[k : k + in_a_row]) for k in range(max(len(accuracies) - in_a_row + 1, 0))
    ]


def _steps_to(steps: Any, accuracies: Any, threshold: float, in_a_row: int) -> float | None:
    least = _least(accuracies, in_a_row)
    return experiment.steps_to_accuracy(steps[: len(least)], least, threshold)


def _last_of_the_row(steps: Any, accuracies: Any, threshold: float, in_a_row: int) -> float | None:
    return _steps_to(steps[in_a_row - 1 :], accuracies, threshold, in_a_row)


def _cut_off(steps: Any, accuracies: Any, threshold: float, in_a_row: int) -> float | None:
    least = [min(accuracies[k : k + in_a_row]) for k in range(len(accuracies))]
    return experiment.steps_to_accuracy(steps, least, threshold)


def _in_all(steps: Any, accuracies: Any, threshold: float, in_a_row: int) -> float | None:
    reached = [look for look, accuracy in enumerate(accuracies) if accuracy >= threshold]
    return steps[reached[in_a_row - 1] - in_a_row + 1] if len(reached) >= in_a_row else None


LUCKY_LOOK = Exercise(
    "lucky-look",
    CHAPTER,
    "the first step from which looks in a row reach a threshold",
    ("steps", "accuracies", "threshold", "in_a_row"),
    oracle=_steps_to,
    cases=_look_cases,
    slips={
        "Return the step of the first look of the row, not of the last.": _last_of_the_row,
        "Return the step, not the number of the look.": lambda steps, *given: _steps_to(
            range(len(steps)), *given
        ),
        "A look at the threshold reaches it: ≥, not >.": (
            lambda steps, accuracies, threshold, in_a_row: _steps_to(
                steps, accuracies, np.nextafter(threshold, 1), in_a_row
            )
        ),
        "A row has to be whole: one that the end of the run cuts off does not count.": _cut_off,
        "A look below the threshold ends the row; the count begins anew.": _in_all,
        "One look is not enough: in_a_row of them, one after the other, have to reach it.": (
            lambda steps, accuracies, threshold, _in_a_row: experiment.steps_to_accuracy(
                steps, accuracies, threshold
            )
        ),
    },
    called="steps_to_accuracy",
)

EXERCISES = (PERCENTILE_BANDS, BAND_DRIFT, LUCKY_LOOK)
