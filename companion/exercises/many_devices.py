"""The exercises of the chapter `many-devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from companion import reference
from companion.kernels import eager
from companion.statistics import RunningMoments, merge

from .exercise import Case, Exercise
from .properties import MERGED_SQUARES, MERGED_SUMS

CHAPTER = "many-devices"
NO_ROWS = "A sum over no rows is 0; a mean over none is not a number."


def _column(*values: float) -> Any:
    return np.array([values], float).T


def _split(values: Any, rows: Sequence[int]) -> list[Any]:
    """The rows of each rank."""
    return np.split(values, np.cumsum(rows)[:-1])


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
    yield Case("two ranks, a value each", _triples(_split(_column(1, 3), [1, 1])))
    yield Case("one value, and three", _triples(_split(_column(0, 1, 4, 7), [1, 3])))
    rng = np.random.default_rng(0)
    yield Case("ranks as many as features", _triples(_split(rng.normal(size=(9, 3)), [2, 4, 3])))
    values = rng.normal(3, 1, size=(6, 2))
    yield Case("the second rank is empty", _triples(_split(values, [4, 0, 2]), 5.0))
    yield Case("the same, and its row is NaN", _triples(_split(values, [4, 0, 2])))
    yield Case("all ranks are empty", _triples([np.empty((0, 2))] * 2))
    far = rng.normal(1e8, 1, size=(40, 2))
    yield Case("means around 10⁸", _triples(_split(far, [20, 8, 12])), tolerance=1e-6)


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


# --- sync-backward -------------------------------------------------------------------------------


def of_rank(
    grad_y: Any, x: Any, gamma: Any, eps: float, rows: Sequence[int], rank: int
) -> tuple[Any, ...]:
    """What a rank has when the sums have arrived: the arguments of `sync_backward`."""
    batch = reference.forward(x, gamma, eps=eps)
    grads, x_hats = _split(grad_y, rows), _split(batch.x_hat, rows)
    sums = np.array([g.sum(axis=0) for g in grads])
    products = np.array([(g * x_hat).sum(axis=0) for g, x_hat in zip(grads, x_hats, strict=True)])
    scale = np.asarray(gamma) * batch.squeeze(batch.inv_std)
    return grads[rank], x_hats[rank], scale, np.array(rows), sums, products


def _sync_cases() -> Iterator[Case]:
    one = np.ones(1)
    x, grad_y = _column(-1, 1, -1, 1), _column(1, 0, 0, 3)
    yield Case("the first of two ranks", of_rank(grad_y, x, one, 0.0, [2, 2], 0))
    x, grad_y = _column(1, 1, 1, -3), _column(4, 0, 0, 8)
    yield Case("a rank with three of four rows", of_rank(grad_y, x, 4 * one, 1.0, [3, 1], 0))
    rng = np.random.default_rng(0)
    x, grad_y = rng.normal(2, 3, size=(2, 9, 3))
    gamma = np.array([2.0, -1.0, 0.5])
    rows = [3, 0, 5, 1]
    yield Case(
        "three features, and an empty rank",
        of_rank(grad_y, x, gamma, 0.1, rows, 0),
        advice="The sums go over ranks, a row each in G and H, and not over features.",
    )
    yield Case("the empty rank itself", of_rank(grad_y, x, gamma, 0.1, rows, 1), advice=NO_ROWS)
    yield Case("a rank with one row", of_rank(grad_y, x, gamma, 0.1, rows, 3))
    yield Case("one rank with all rows", of_rank(grad_y, x, gamma, 0.1, [9], 0))


def _synchronized(g: Any, x_hat: Any, scale: Any, counts: Any, G: Any, H: Any) -> Any:
    """By the package's kernel, for which x̂ is an x of mean 0 and variance 1."""
    tensors = [torch.from_numpy(np.asarray(each)) for each in (g, x_hat, scale, G, H)]
    grads, values, weight, sums, products = tensors
    zero, one = torch.zeros_like(weight), torch.ones_like(weight)
    everyone = sums.sum(dim=0), products.sum(dim=0)
    grad_x = eager.project(grads, values, zero, one, weight, 0.0, everyone, int(counts.sum()))
    own_beta, own_gamma = eager.gradient_sums(grads, values, zero, one, 0.0)
    return grad_x.numpy(), own_gamma.numpy(), own_beta.numpy()


class _Known(NamedTuple):
    """What `sync_backward` is called with."""

    g: Any
    x_hat: Any
    scale: Any
    counts: Any
    G: Any
    H: Any

    @property
    def n(self) -> Any:
        return self.counts.sum()

    @property
    def own(self) -> tuple[Any, Any]:
        return self.g.sum(axis=0), (self.g * self.x_hat).sum(axis=0)

    @property
    def all(self) -> tuple[Any, Any]:
        return self.G.sum(axis=0), self.H.sum(axis=0)

    @property
    def averages(self) -> tuple[Any, Any]:
        counts = np.maximum(self.counts, 1)[:, None]
        return (self.G / counts).mean(axis=0), (self.H / counts).mean(axis=0)


def _gradient(
    sums: Callable[[_Known], tuple[Any, Any]],
    divisor: Callable[[_Known], Any] = lambda rank: rank.n,
    parameters: Callable[[_Known], tuple[Any, Any]] = lambda rank: rank.own[::-1],
) -> Callable[..., Any]:
    """Eq. (3) many-devices/rank-backward with other sums, another n, other terms for γ and β."""

    def backward(*arguments: Any) -> Any:
        rank = _Known(*arguments)
        first, second = (each / divisor(rank) for each in sums(rank))
        return rank.scale * (rank.g - first - rank.x_hat * second), *parameters(rank)

    return backward


SYNC_BACKWARD = Exercise(
    "sync-backward",
    CHAPTER,
    "a rank's gradients, once all ranks' sums are known",
    _Known._fields,
    oracle=_synchronized,
    cases=_sync_cases,
    returns=("grad_x", "grad_gamma", "grad_beta"),
    slips={
        "These are this rank's sums alone; its rows entered the losses of all others, too.": (
            _gradient(lambda rank: rank.own)
        ),
        "The sums are over the rows of all ranks, and so is n.": (
            _gradient(lambda rank: rank.all, lambda rank: len(rank.g))
        ),
        "With its own sums and its own n the rank has not been synchronized.": (
            _gradient(lambda rank: rank.own, lambda rank: len(rank.g))
        ),
        "An average of the ranks' means is right for even shares only: add the sums up first.": (
            _gradient(lambda rank: rank.averages, lambda _rank: 1)
        ),
        "x moves σ as well: the term with x̂ and ΣH_r is missing.": (
            _gradient(lambda rank: (rank.all[0], 0.0))
        ),
        "For γ and β a rank returns its own terms: DDP puts those of all together.": (
            _gradient(lambda rank: rank.all, parameters=lambda rank: rank.all[::-1])
        ),
    },
)


# --- moved-bias ----------------------------------------------------------------------------------


def _bias_cases() -> Iterator[Case]:
    def case(what: str, x: Any, g: Any, rows: list[int], eps: float, advice: str = "") -> Case:
        return Case(what, (np.array(g, float), np.array(x, float), rows, eps), advice=advice)

    means_differ = "The ranks' means differ here: μ and s are those of all rows, and X_r is not 0."

    yield case("two ranks of equal means", [-1, 1, -1, 1], [1, 0, 0, 0], [2, 2], 0.0)
    yield case("three rows and one", [1, 1, 1, -3], [1, 0, 0, 2], [3, 1], 1.0, means_differ)
    yield case("an empty rank", [1, 2, 6, 3, 8], [1, -2, 0, 1, 3], [2, 0, 3], 1e-5, NO_ROWS)
    yield case("one rank", [-1, 1], [1, 0], [2], 0.0)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 24))
    yield case("24 rows on six ranks", 5 + 2 * x, g, [4, 4, 4, 4, 4, 4], 1e-5)


def _of_blocks(g: Any, x: Any, rows: Sequence[int], eps: float) -> float:
    """Rank r differentiates its own loss by its own rows: a block on the Jacobian's diagonal."""
    jacobian = reference.jacobian(x, eps=eps)
    ranks = _split(np.arange(len(x)), rows)
    return float(sum((jacobian[np.ix_(mine, mine)] @ g[mine]).sum() for mine in ranks))


class _Part(NamedTuple):
    """One of the p ranks: its sums of g, g·x̂ and x̂, its number of rows, and that of all."""

    G: float
    H: float
    X: float
    rows: int
    n: int
    p: int

    def total(self) -> float:
        return (1 - self.rows / self.n) * self.G - self.X * self.H / self.n


def _bias(
    part: Callable[[_Part], float] = _Part.total, scaled: bool = True, inside: bool = True
) -> Callable[..., float]:
    """The sum of `part` over the ranks, divided by s; without this division, or without ε."""

    def moved(g: Any, x: Any, rows: Sequence[int], eps: float) -> float:
        s = np.sqrt(x.var() + (eps if inside else 0.0))
        x_hat = (x - x.mean()) / s
        total = sum(
            part(_Part(own.sum(), (own * h).sum(), h.sum(), len(own), len(x), len(rows)))
            for own, h in zip(_split(g, rows), _split(x_hat, rows), strict=True)
        )
        return float(total / (s if scaled else 1.0))

    return moved


MOVED_BIAS = Exercise(
    "moved-bias",
    CHAPTER,
    "what own sums leave of a bias's gradient",
    ("g", "x", "rows", "eps"),
    oracle=_of_blocks,
    cases=_bias_cases,
    slips={
        "With the sums of all ranks nothing is left; here each rank has only its own.": (
            lambda *_arguments: 0.0
        ),
        "This holds for even shares of equal means; in general X_r and n_r enter.": (
            _bias(lambda rank: (1 - 1 / rank.p) * rank.G)
        ),
        "A rank's x̂ need not sum to 0: the term X_r·H_r/n is missing.": (
            _bias(lambda rank: (1 - rank.rows / rank.n) * rank.G)
        ),
        "The sums are divided by n, the number of all rows, and not by the rank's.": (
            _bias(lambda rank: -rank.X * rank.H / max(rank.rows, 1))
        ),
        "The factor 1/s, with s = √(σ² + ε), is missing.": _bias(scaled=False),
        "ε is missing under the root.": _bias(inside=False),
    },
)


# --- common-shift --------------------------------------------------------------------------------


def _shift_cases() -> Iterator[Case]:
    yield Case("two ranks, a value each", (_split(_column(1, 3), [1, 1]), np.array([1.0])))
    values = _column(0, 3, 3, 6)
    yield Case("one value, and three", (_split(values, [1, 3]), np.array([2.0])))
    rng = np.random.default_rng(0)
    values = rng.normal(4, 1, size=(9, 3)) * np.array([1.0, 2.0, 4.0])
    shift = np.array([3.0, 8.0, 20.0])
    shares = _split(values, [2, 0, 7])
    yield Case("three features, and an empty rank", (shares, shift), advice=NO_ROWS)
    for what, offset in (("an offset of 10⁴", 1e4), ("an offset of 10⁸", 1e8)):
        far = rng.normal(offset, 1, size=(60, 2))
        arguments = _split(far, [10, 20, 30]), far[:4].mean(axis=0)
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
    },
)

EXERCISES = (MERGE_RANKS, SYNC_BACKWARD, MOVED_BIAS, COMMON_SHIFT)
