"""Moments of everything a loader yields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from companion.statistics.feeding import first_tensor
from companion.statistics.moments import RunningMoments, merge

__all__ = ["population_moments"]


def population_moments(loader: Iterable[Any]) -> RunningMoments:
    """Count, mean and M₂ of all values together, per channel, whatever the batches' sizes.

    The result's ``var`` obeys the law of total variance: it is the mean of the batches' variances
    plus the variance of their means, each batch weighing as many values as it has.

    Parameters
    ----------
    loader
        of batches ``(m, C)`` or ``(N, C, *spatial)``, or of tuples that begin with one; read once,
        and one batch is held at a time

    Raises
    ------
    TypeError
        an item that is neither
    ValueError
        nothing in `loader`; batches of different numbers of channels

    References
    ----------
    Eq. (1) inference/total-variance; Eq. (11) mini-batch-algorithm/chan-merge.

    Examples
    --------
    >>> import torch
    >>> batches = [torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[4.0]])]
    >>> population = population_moments(batches)
    >>> population.mean.item(), population.var.item()
    (1.0, 3.0)
    """
    together: RunningMoments | None = None
    for item in loader:
        moments = RunningMoments.of(first_tensor(item))
        together = moments if together is None else merge(together, moments)
    if together is None:
        raise ValueError("loader: expected at least one batch, got none")
    return together
