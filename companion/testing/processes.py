"""Statistics and gradients of a batch that several processes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion import reference
from companion.exercises.exercise import Case, Property
from companion.exercises.properties import (
    MERGED_SQUARES,
    MERGED_SUMS,
    NO_MOVE,
    NO_STRETCH,
    SHARES_ADD_UP,
)
from companion.kernels import eager
from companion.statistics import RunningMoments, merge

from .formulas import EPS, normal
from .operation import Operation

# --- statistics ----------------------------------------------------------------------------------


def _messages(*shares: Any) -> tuple[Any, Any, Any]:
    """Count, mean and sum of squared distances of each share."""
    counts = np.array([len(share) for share in shares])
    means, variances = zip(*map(reference.moments, shares), strict=True)
    return counts, np.array(means), counts[:, None] * np.array(variances)


def _merge_cases() -> Iterator[Case]:
    rows = normal(12, 3).numpy()
    yield Case("two shares of the same size", _messages(rows[:6], rows[6:] + 4))
    yield Case("three rows, and nine", _messages(rows[:3], rows[3:] + 4))
    counts = np.array([40_000, 30_000])
    many = counts, np.array([[1.0], [3.0]]), counts[:, None] * np.array([[1.0], [4.0]])
    yield Case("70,000 values", many)


def _merged(counts: Any, means: Any, m2s: Any) -> tuple[Any, Any, Any]:
    rows = zip(counts.tolist(), torch.tensor(means), torch.tensor(m2s), strict=True)
    whole = merge(*(RunningMoments(*row) for row in rows))
    return whole.count, whole.mean.numpy(), whole.m2.numpy()


MERGING = Operation(
    call="f(counts, means, m2s) -> (count, mean, m2)",
    cases=_merge_cases,
    properties=(MERGED_SUMS, MERGED_SQUARES),
    own=_merged,
)


# --- gradients -----------------------------------------------------------------------------------


def _shared_cases() -> Iterator[Case]:
    gamma = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    for what, sizes in (("two shares of the same size", (4, 4)), ("two rows, and six", (2, 6))):
        grads, xs = (list(normal(8, 3, seed=seed).split(sizes)) for seed in (1, 0))
        yield Case(what, (grads, xs, gamma, EPS))


def _of_all(law: Property) -> Property:
    """A property of the whole batch, of what the processes have of it."""

    def error(results: Any, grads: Any, xs: Any, gamma: Any, eps: float) -> float:
        return law.error(*(torch.cat([*each]) for each in (results[0], grads, xs)), gamma, eps)

    return replace(law, error=error)


def _shared(
    grads: Sequence[Tensor], xs: Sequence[Tensor], gamma: Tensor, eps: float
) -> tuple[list[Tensor], list[Tensor]]:
    whole = merge(*map(RunningMoments.of, xs))
    mean, var, count = whole.mean, whole.var, whole.count
    sums = [eager.gradient_sums(g, x, mean, var, eps) for g, x in zip(grads, xs, strict=True)]
    total, product = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
    grad_xs = [
        eager.project(g, x, mean, var, gamma, eps, (total, product), count)
        for g, x in zip(grads, xs, strict=True)
    ]
    return grad_xs, [own for _, own in sums]


SHARED_BACKWARD = Operation(
    call="f(grad_ys, xs, gamma, eps) -> (grad_xs, grad_gammas)",
    cases=_shared_cases,
    properties=(_of_all(NO_MOVE), _of_all(NO_STRETCH), SHARES_ADD_UP.of(1)),
    own=_shared,
)
