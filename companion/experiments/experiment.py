"""What a named experiment is: a frozen configuration, trials, and the conclusion from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch

from .tasks import Record, Task


class Trial(NamedTuple):
    """One finished task of an experiment."""

    variant: str
    seed: int
    seconds: float
    record: Record


@dataclass(frozen=True)
class Experiment:
    """An experiment that ``python -m companion run NAME`` runs.

    `config` and `quick` are instances of one frozen dataclass: the configuration whose results are
    recorded, and one that takes seconds. A trial is a variant with a seed. PyTorch's default
    generator is seeded with the seed before a trial's task is made.
    """

    name: str
    summary: str
    """One line: what is compared."""
    source: str
    """The paper, and the figure or table."""
    config: Any
    quick: Any
    variants: Callable[[Any], Sequence[str]]
    start: Callable[[Any, str, int, torch.device], Task]
    conclude: Callable[[Any, Sequence[Trial]], dict[str, Any]]
    """Numbers, and lists of numbers with one for each seed, by name."""
    seeds: int = 5
    """How many the recorded results have."""

    @property
    def has_steps(self) -> bool:
        """Whether a number of steps can be chosen."""
        return any(field.name == "steps" for field in fields(self.config))


def by_seed(trials: Sequence[Trial], variant: str) -> list[Record]:
    """The records of one variant, in the order of their seeds."""
    chosen = sorted((trial for trial in trials if trial.variant == variant), key=lambda t: t.seed)
    return [trial.record for trial in chosen]


def number(value: float | None) -> float:
    """A scalar that this experiment always has."""
    assert value is not None
    return value


def ratio(above: float | None, below: float | None) -> float | None:
    """above/below; None if either is, or nothing is below."""
    return above / below if above is not None and below else None


def steps_to_accuracy(
    steps: Sequence[float], accuracies: Sequence[float], threshold: float
) -> float | None:
    """The first of `steps` at which the accuracy is at least `threshold`; None if it never is.

    Examples
    --------
    >>> steps_to_accuracy([0, 100, 200], [0.1, 0.92, 0.91], 0.9)
    100
    """
    reached = (s for s, a in zip(steps, accuracies, strict=True) if a >= threshold)
    return next(reached, None)
