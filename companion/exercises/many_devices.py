"""The exercises of the chapter `many-devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from companion import reference
from companion.statistics import RunningMoments, merge

from .exercise import Case, Exercise
from .many_devices_backward import CHAPTER, MOVED_BIAS, NO_ROWS, SYNC_BACKWARD, column, split
from .properties import MERGED_SQUARES, MERGED_SUMS

# --- merge-ranks ---------------------------------------------------------------------------------


def _triples(shares: Sequence[Any], empty: float = np.nan) -> tuple[Any, Any, Any]:
    """Count, mean and M of every share; what an empty one has in its place is arbitrary."""
    counts = np.array([len(share) for share in shares])
    means = np.full((len(shares), shares[0].shape[1]), empty)
    m2s = means.copy()
    for rank, share in enumerate(shares):
        if len(share):
            mean, var = reference.moments(share)
            means[rank], m2s[rank] = mean, var * len(share)
    return counts, means, m2s


def _merged(counts: Any, means: Any, m2s: Any) -> tuple[int, Any, Any]:
    parts = [
        RunningMoments(int(n), torch.from_numpy(mean), torch.from_numpy(m2))
        for n, mean, m2 in zip(counts, means, m2s, strict=True)
        if n
    ]
    whole = merge(RunningMoments.empty(means.shape[1]), *parts)
    return whole.count, whole.mean.numpy(), whole.m2.numpy()


def _merge_cases() -> Iterator[Case]:
    yield Case("two ranks, a value each", _triples(split(column(1, 3), [1, 1])))
    yield Case("one value, and three", _triples(split(column(0, 1, 4, 7), [1, 3])))
    rng = np.random.default_rng(0)
    yield Case("ranks as many as features", _triples(split(rng.normal(size=(9, 3)), [2, 4, 3])))
    values = rng.normal(3, 1, size=(6, 2))
    yield Case("the second rank is empty", _triples(split(values, [4, 0, 2]), 5.0))
    yield Case("the same, and its row is NaN", _triples(split(values, [4, 0, 2])))
    yield Case("all ranks are empty", _triples([np.empty((0, 2))] * 2))
    far = rng.normal(1e8, 1, size=(40, 2))
    yield Case("means around 10⁸", _triples(split(far, [20, 8, 12])), tolerance=1e-6)


def _merging(
    counts: Any,
    means: Any,
    m2s: Any,
    *,
    drop: bool = True,  # rows of empty ranks
    plain: bool = False,  # a mean of means
    weigh: bool = True,  # distances by n_r
    keep: bool = True,  # distances
    least: int = 1,  # for n, where it divides
) -> Any:
    """Eq. (1) many-devices/rank-merge, or not quite."""
    filled = counts > 0 if drop else slice(None)
    counts, means, m2s = counts[filled, None], means[filled], m2s[filled]
    n = counts.sum()
    weights = np.ones_like(counts) if plain else counts
    mean = (weights * means).sum(axis=0) / max(weights.sum(), least)
    between = (counts if weigh else 1) * (means - mean) ** 2
    return n, mean, (m2s + (between if keep else 0)).sum(axis=0)


def _by_squares(counts: Any, means: Any, m2s: Any) -> Any:
    n, mean, _ = _merging(counts, means, m2s)
    filled = counts > 0
    squares = m2s[filled] + counts[filled, None] * means[filled] ** 2
    return n, mean, squares.sum(axis=0) - n * mean**2


def _divided(counts: Any, means: Any, m2s: Any) -> Any:
    n, mean, m2 = _merging(counts, means, m2s)
    return n, mean, m2 / max(n, 1)


MERGE_RANKS = Exercise(
    "merge-ranks",
    CHAPTER,
    "count, mean and M of any number of ranks",
    ("counts", "means", "m2s"),
    oracle=_merged,
    cases=_merge_cases,
    properties=(MERGED_SUMS, MERGED_SQUARES),
    returns=("n", "mean", "m2"),
    slips={
        "The M_r alone leave out how far apart the ranks' means lie.": partial(
            _merging, keep=False
        ),
        "A rank's mean counts n_r times: it stands for n_r values.": partial(_merging, plain=True),
        "Each distance (μ_r − μ)² counts n_r times.": partial(_merging, weigh=False),
        "This is the variance M/n; what can be merged further is M.": _divided,
        "Leave the rows of empty ranks out: what stands there is arbitrary, and 0 · NaN is NaN.": (
            partial(_merging, drop=False)
        ),
        "Without any value this divides 0 by 0; n, μ and M are to be 0.": (
            partial(_merging, least=0)
        ),
        "Sums of squares lose their digits where the means are large; add M and distances.": (
            _by_squares
        ),
    },
)


# --- common-shift --------------------------------------------------------------------------------


def _shift_cases() -> Iterator[Case]:
    yield Case("two ranks, a value each", (split(column(1, 3), [1, 1]), np.array([1.0])))
    values = column(0, 3, 3, 6)
    yield Case("one value, and three", (split(values, [1, 3]), np.array([2.0])))
    rng = np.random.default_rng(0)
    values = rng.normal(4, 1, size=(9, 3)) * np.array([1.0, 2.0, 4.0])
    shift = np.array([3.0, 8.0, 20.0])
    shares = split(values, [2, 0, 7])
    yield Case("three features, and an empty rank", (shares, shift), advice=NO_ROWS)
    for what, offset in (("an offset of 10⁴", 1e4), ("an offset of 10⁸", 1e8)):
        far = rng.normal(offset, 1, size=(60, 2))
        arguments = split(far, [10, 20, 30]), far[:4].mean(axis=0)
        yield Case(what, arguments, advice="Take K off first, in float64; then square and round.")


def _means(shares: Sequence[Any], K: Any) -> Any:
    """Means of x − K and of its square, from messages in float32."""
    moved = [share - K for share in shares]
    sums = np.array([[each.sum(axis=0), (each**2).sum(axis=0)] for each in moved])
    return sums.astype(np.float32).astype(float).sum(axis=0) / sum(map(len, shares))


def _not_put_back(shares: Sequence[Any], K: Any) -> Any:
    delta, square = _means(shares, K)
    return delta, square - delta**2


def _about_shift(shares: Sequence[Any], K: Any) -> Any:
    delta, square = _means(shares, K)
    return K + delta, square


def _averaged(shares: Sequence[Any], K: Any) -> Any:
    delta, square = np.mean([_means([share], K) for share in shares if len(share)], axis=0)
    return K + delta, square - delta**2


def _unshifted(shares: Sequence[Any], K: Any) -> Any:
    mean, square = _means(shares, 0 * K)
    return mean, square - mean**2


def _less_one(delta_too: bool, square_too: bool, after: bool = False) -> Callable[..., Any]:
    """Divided by n − 1: Δ, the squares, or the variance after all else."""

    def moments(shares: Sequence[Any], K: Any) -> Any:
        (delta, square), n = _means(shares, K), sum(map(len, shares))
        more = n / (n - 1)
        delta, square = delta * more**delta_too, square * more**square_too
        return K + delta, (square - delta**2) * more**after

    return moments


COMMON_SHIFT = Exercise(
    "common-shift",
    CHAPTER,
    "mean and variance from sums that are only added up",
    ("shares", "K"),
    oracle=lambda shares, _K: reference.moments(np.concatenate(shares)),
    cases=_shift_cases,
    returns=("mean", "var"),
    tolerance=1e-5,
    slips={
        "The mean is K + Δ: what was taken off has to be put back.": _not_put_back,
        "K need not be the mean: the squares are about K, and Δ² has to be taken off.": (
            _about_shift
        ),
        "The messages are added up, and divided by the number of all rows at the end.": _averaged,
        "Take K off the values before they are squared and summed.": _unshifted,
        "σ² is the biased variance, divided by n and not by n − 1.": _less_one(
            False, False, after=True
        ),
        "The sum of squares is divided by n, not by n − 1, and then Δ² is taken off.": _less_one(
            False, True
        ),
        "Both sums are divided by n, not by n − 1.": _less_one(True, True),
    },
)

EXERCISES = (MERGE_RANKS, SYNC_BACKWARD, MOVED_BIAS, COMMON_SHIFT)
