"""The exercises of the chapter `many-devices` on the backward pass, and what others need, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from companion import reference
from companion.kernels import eager

from .exercise import Case, Exercise

CHAPTER = "many-devices"
NO_ROWS = "A sum over no rows is 0; a mean over none is not a number."


def column(*values: float) -> Any:
    """Values of one feature."""
    return np.array([values], float).T


def split(values: Any, rows: Sequence[int]) -> list[Any]:
    """The rows of each rank."""
    return np.split(values, np.cumsum(rows)[:-1])


# --- sync-backward -------------------------------------------------------------------------------


def of_rank(
    grad_y: Any, x: Any, gamma: Any, eps: float, rows: Sequence[int], rank: int
) -> tuple[Any, ...]:
    """What a rank has when the sums have arrived: the arguments of `sync_backward`."""
    batch = reference.forward(x, gamma, eps=eps)
    grads, x_hats = split(grad_y, rows), split(batch.x_hat, rows)
    sums = np.array([g.sum(axis=0) for g in grads])
    products = np.array([(g * x_hat).sum(axis=0) for g, x_hat in zip(grads, x_hats, strict=True)])
    scale = np.asarray(gamma) * batch.squeeze(batch.inv_std)
    return grads[rank], x_hats[rank], scale, np.array(rows), sums, products


def _sync_cases() -> Iterator[Case]:
    one = np.ones(1)
    x, grad_y = column(-1, 1, -1, 1), column(1, 0, 0, 3)
    yield Case("the first of two ranks", of_rank(grad_y, x, one, 0.0, [2, 2], 0))
    x, grad_y = column(1, 1, 1, -3), column(4, 0, 0, 8)
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
    def over_features(self) -> tuple[Any, Any]:
        return self.g.sum(), (self.g * self.x_hat).sum()

    @property
    def averages(self) -> tuple[Any, Any]:
        counts = np.maximum(self.counts, 1)[:, None]
        return (self.G / counts).mean(axis=0), (self.H / counts).mean(axis=0)


def _gradient(
    sums: Callable[[_Known], tuple[Any, Any]],
    divisor: Callable[[_Known], Any] = lambda rank: rank.n,
    parameters: Callable[[_Known], tuple[Any, ...]] = lambda rank: rank.own[::-1],
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
        "The gradients of γ and β are sums: only in the gradient of x are they divided by n.": (
            _gradient(
                lambda rank: rank.all,
                parameters=lambda rank: tuple(each / rank.n for each in rank.own[::-1]),
            )
        ),
        "The gradients of γ and β are sums over the rank's rows, not averages.": (
            _gradient(
                lambda rank: rank.all,
                parameters=lambda rank: tuple(
                    each / max(len(rank.g), 1) for each in rank.own[::-1]
                ),
            )
        ),
        "Features are not added up: the sums for γ and β go over rows, axis 0.": (
            _gradient(lambda rank: rank.all, parameters=lambda rank: rank.over_features[::-1])
        ),
        "Features are not added up: every sum goes over axis 0, over rows or over ranks.": (
            _gradient(
                lambda rank: (rank.G.sum(), rank.H.sum()),
                parameters=lambda rank: rank.over_features[::-1],
            )
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
    ranks = split(np.arange(len(x)), rows)
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
            for own, h in zip(split(g, rows), split(x_hat, rows), strict=True)
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
