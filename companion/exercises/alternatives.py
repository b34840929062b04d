"""The exercises of the chapter `alternatives`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from companion import reference, variants
from companion.whitening import covariance, whitening_matrix

from .exercise import Case, Exercise
from .properties import CENTRED

CHAPTER = "alternatives"
Array = NDArray[np.float64]
Places = NDArray[np.intp]


def _column(values: Array) -> Array:
    return np.reshape(values, (-1, 1, 1))


def _group_cases() -> Iterator[Case]:
    one, zero = np.ones(2), np.zeros(2)
    pair = np.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    rows = np.array([0.0, 2.0, 5.0, 9.0]).reshape(1, 2, 1, 2)
    yield Case("two channels of one position, one group", (pair, 1, one, zero, 0.0))
    yield Case("two channels of two positions, one group", (rows, 1, one, zero, 0.0))
    yield Case("a group for each of two channels", (rows, 2, one, zero, 0.0))
    yield Case("a γ, a β, and an ε that counts", (pair, 1, np.array([2.0, -1.0]), one, 3.0))
    rng = np.random.default_rng(0)
    gamma, beta = rng.normal(size=(2, 6))
    yield Case("six channels, two groups", (rng.normal(size=(1, 6, 1, 2)), 2, gamma, beta, 0.0))
    yield Case("four images", (rng.normal(size=(4, 6, 2, 3)), 3, gamma, beta, 1e-3))


def _over(table: Callable[[Places, int], Places]) -> Callable[..., Array]:
    """Group normalization by sets that are a table's columns; the table's entries are places."""

    def normalized(x: Array, groups: int, gamma: Array, beta: Array, eps: float) -> Array:
        places = table(np.arange(x.size).reshape(x.shape), groups)
        x_hat = np.empty(x.size)
        x_hat[places] = reference.forward(x.ravel()[places], eps=eps).x_hat
        return _column(gamma) * x_hat.reshape(x.shape) + _column(beta)

    return normalized


def _neighbours(places: Places, groups: int) -> Places:
    return places.reshape(len(places) * groups, -1).T


_group_norm = _over(_neighbours)


def _unbiased(x: Array, groups: int, gamma: Array, beta: Array, eps: float) -> Array:
    count = x[0].size // groups
    smaller = (count - 1) / count
    return _group_norm(x, groups, gamma * np.sqrt(smaller), beta, eps * smaller)


def _outside(x: Array, groups: int, gamma: Array, beta: Array, eps: float) -> Array:
    sets = x.reshape(len(x), groups, -1)
    std = sets.std(axis=2, keepdims=True)
    centred = sets - sets.mean(axis=2, keepdims=True)
    return _column(gamma) * np.reshape(centred / (std + eps), x.shape) + _column(beta)


GROUP_NORM = Exercise(
    "group-norm",
    CHAPTER,
    "group normalization of (N, C, H, W)",
    ("x", "groups", "gamma", "beta", "eps"),
    oracle=_group_norm,
    cases=_group_cases,
    slips={
        "Channels of a group are neighbours: of four in two groups, 0 and 1, then 2 and 3.": _over(
            lambda places, groups: (
                np.concatenate(
                    [places[:, k::groups].reshape(len(places), -1) for k in range(groups)]
                ).T
            )
        ),
        "A mean has values of one image, and no other image's.": _over(
            lambda places, groups: np.swapaxes(
                places.reshape(len(places), groups, -1), 1, 2
            ).reshape(-1, groups)
        ),
        "`groups` says how many there are, not how many channels each has.": _over(
            lambda places, groups: _neighbours(places, places.shape[1] // groups)
        ),
        "All positions of a group share its mean.": _over(
            lambda places, groups: np.moveaxis(
                places.reshape(len(places), groups, -1, *places.shape[2:]), 2, 0
            ).reshape(places.shape[1] // groups, -1)
        ),
        "The variance is biased: divided by the number of values.": _unbiased,
        "ε is added to the variance, inside the root.": _outside,
        "β is added behind γ: γ·x̂ + β, not γ·(x̂ + β).": lambda x, groups, gamma, beta, eps: (
            _group_norm(x, groups, gamma, gamma * beta, eps)
        ),
    },
)


def _renorm_cases() -> Iterator[Case]:
    one, zero, g = np.ones(1), np.zeros(1), np.array([[1.0], [0.0], [0.0]])
    x = np.array([[0.0], [0.0], [3.0]])  # mean 1, variance 2
    wide = (np.inf, np.inf)
    root = np.sqrt(2.0) * one
    yield Case("running statistics that are the batch's", (x, g, one, root, one, zero, *wide, 0.0))
    yield Case("a running σ twice the batch's", (x, g, one, 2 * root, one, zero, *wide, 0.0))
    yield Case("a running mean of 0", (x, g, zero, 2 * root, one, zero, *wide, 0.0))
    yield Case("limits 1 and 0", (x, g, zero, 4 * root, 2 * one, one, 1.0, 0.0, 2.0))
    yield Case("r at its lower limit", (x, g, one, 9 * one, one, zero, 2.0, np.inf, 0.0))
    yield Case("r at its upper limit", (x, g, one, 0.1 * one, one, zero, 2.0, np.inf, 0.0))
    yield Case("d at its lower limit", (x, g, 9 * one, root, one, zero, np.inf, 3.0, 0.0))
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 5, 8))
    mean, gamma, beta = rng.normal(size=(3, 8))
    std = rng.uniform(0.2, 4.0, size=8)
    yield Case("eight channels", (x, g, mean, std, gamma, beta, 1.5, 0.5, 1e-3))


Renorm = Callable[..., tuple[Array, Array]]


def _renormalized(
    correct: Callable[[Array, Array, Array, Array, float, float], tuple[Array, Array]],
    gradient: Callable[[Array, Array, Array, Array], Array] | None = None,
) -> Renorm:
    """Renormalization with r and d from μ_B, s, μ, σ and the limits; another gradient if given."""

    def renorm(
        x: Array,
        grad_y: Array,
        mean: Array,
        std: Array,
        gamma: Array,
        beta: Array,
        r_max: float,
        d_max: float,
        eps: float,
    ) -> tuple[Array, Array]:
        batch_mean, batch_var = reference.moments(x)
        s = np.sqrt(batch_var + eps).ravel()
        r, d = correct(batch_mean.ravel(), s, mean, std, r_max, d_max)
        batch = reference.forward(x, gamma * r, gamma * d + beta, eps)
        grad_x = reference.backward(grad_y, batch).x
        if gradient is not None:
            grad_x = gradient(grad_x, grad_y, gamma * r / s, r)
        return batch.y, grad_x

    return renorm


def _limited(
    batch_mean: Array, s: Array, mean: Array, std: Array, r_max: float, d_max: float
) -> tuple[Array, Array]:
    r, d = s / std, (batch_mean - mean) / std
    return np.clip(r, 1 / r_max, r_max), np.clip(d, -d_max, d_max)


BATCH_RENORM = Exercise(
    "batch-renorm",
    CHAPTER,
    "batch renormalization, its output and the gradient of its input",
    ("x", "grad_y", "mean", "std", "gamma", "beta", "r_max", "d_max", "eps"),
    oracle=_renormalized(_limited),
    cases=_renorm_cases,
    returns=("y", "grad_x"),
    slips={
        "r and d are constants to the gradient; the batch's mean and width are not.": (
            _renormalized(_limited, lambda _grad, grad_y, slope, _r: slope * grad_y)
        ),
        "γr stands in the place of γ, in the gradient as well.": _renormalized(
            _limited, lambda grad, _grad_y, _slope, r: grad / r
        ),
        "r is s/σ: the batch's width over the running one.": _renormalized(
            lambda batch_mean, s, mean, std, r_max, d_max: (
                np.clip(std / s, 1 / r_max, r_max),
                np.clip((batch_mean - mean) / std, -d_max, d_max),
            )
        ),
        "d is the batch's mean less the running one.": _renormalized(
            lambda batch_mean, s, mean, std, r_max, d_max: _limited(
                2 * mean - batch_mean, s, mean, std, r_max, d_max
            )
        ),
        "d is measured in the running σ.": _renormalized(
            lambda batch_mean, s, mean, std, r_max, d_max: (
                np.clip(s / std, 1 / r_max, r_max),
                np.clip((batch_mean - mean) / s, -d_max, d_max),
            )
        ),
        "r is not above r_max, and not below 1/r_max.": _renormalized(
            lambda batch_mean, s, mean, std, r_max, d_max: (
                np.minimum(s / std, r_max),
                np.clip((batch_mean - mean) / std, -d_max, d_max),
            )
        ),
        "d has a limit on both sides, −d_max and d_max.": _renormalized(
            lambda batch_mean, s, mean, std, r_max, d_max: (
                np.clip(s / std, 1 / r_max, r_max),
                np.minimum((batch_mean - mean) / std, d_max),
            )
        ),
    },
)


def _weight_cases() -> Iterator[Case]:
    v, first = np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])
    yield Case("one unit, γ = 1, a gradient along the first weight", (v, np.ones(1), first))
    yield Case("γ = −10", (v, np.array([-10.0]), first))
    up = np.array([[0.0, 2.0]])
    yield Case("a gradient along v", (up, np.ones(1), 2 * up))
    rng = np.random.default_rng(0)
    v, grad = rng.normal(size=(2, 3, 5))
    yield Case("three units", (v, np.array([2.0, -1.0, 0.5]), grad))
    yield Case("as many units as inputs", (v[:, :3], np.array([1.0, 0.0, 3.0]), grad[:, :3]))


def _weight_norm(v: Array, gamma: Array, grad_w: Array) -> tuple[Array, Array, Array]:
    """By automatic differentiation of the package's."""
    leaves = torch.tensor(v).requires_grad_(), torch.tensor(gamma[:, None]).requires_grad_()
    w = variants.weight_norm(*leaves)
    grad_v, grad_gamma = torch.autograd.grad(w, leaves, torch.tensor(grad_w))
    return w.detach().numpy(), grad_v.numpy(), grad_gamma[:, 0].numpy()


def _of_parts(
    change: Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]],
) -> Callable[..., tuple[Array, Array, Array]]:
    """A mistake, of the directions, their lengths, γ as a column, and the gradient of w."""

    def mistaken(v: Array, gamma: Array, grad_w: Array) -> tuple[Array, Array, Array]:
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        return change(v / norm, norm, gamma[:, None], grad_w)

    return mistaken


def _dot(a: Array, b: Array) -> Array:
    return np.sum(a * b, axis=1, keepdims=True)


def _by_one_length(v: Array, gamma: Array, grad_w: Array) -> tuple[Array, Array, Array]:
    norm = np.linalg.norm(v)
    unit, scale = v / norm, gamma[:, None]
    grad_v = scale / norm * (grad_w - np.sum(unit * grad_w) * unit)
    return scale * unit, grad_v, _dot(unit, grad_w)[:, 0]


WEIGHT_NORM = Exercise(
    "weight-norm",
    CHAPTER,
    "weights by lengths and directions, and the gradients of both",
    ("v", "gamma", "grad_w"),
    oracle=_weight_norm,
    cases=_weight_cases,
    returns=("w", "grad_v", "grad_gamma"),
    slips={
        "In the gradient of v the part along v is taken off.": _of_parts(
            lambda unit, norm, gamma, g: (gamma * unit, gamma / norm * g, _dot(unit, g)[:, 0])
        ),
        "The gradient of v has the factor γ/‖v‖; γ is missing.": _of_parts(
            lambda unit, norm, gamma, g: (
                gamma * unit,
                (g - _dot(unit, g) * unit) / norm,
                _dot(unit, g)[:, 0],
            )
        ),
        "The gradient of v has the factor γ/‖v‖; the length is missing.": _of_parts(
            lambda unit, _norm, gamma, g: (
                gamma * unit,
                gamma * (g - _dot(unit, g) * unit),
                _dot(unit, g)[:, 0],
            )
        ),
        "The gradient of γ is that of w along the direction v/‖v‖, of length 1.": _of_parts(
            lambda unit, norm, gamma, g: (
                gamma * unit,
                gamma / norm * (g - _dot(unit, g) * unit),
                (norm * _dot(unit, g))[:, 0],
            )
        ),
        "γ is missing in w: its length is |γ|, not 1.": _of_parts(
            lambda unit, norm, gamma, g: (
                unit,
                gamma / norm * (g - _dot(unit, g) * unit),
                _dot(unit, g)[:, 0],
            )
        ),
        "Each unit has a length of its own: one norm for each row of v.": (_by_one_length),
    },
)


COUPLED = (
    "With so many steps the iteration as it stands magnifies rounding errors; the coupled form of "
    "the chapter does not."
)


def _iternorm_cases() -> Iterator[Case]:
    cross = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    yield Case("two values of one feature", (np.array([[1.0], [3.0]]), 1, 0.0))
    yield Case("two features, of variances 4 and 1, one step", (cross, 1, 0.0))
    yield Case("two steps", (cross, 2, 0.0))
    yield Case("an ε that counts", (cross, 3, 2.0))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)) @ rng.normal(size=(3, 3)) + 5.0
    yield Case("twenty examples of three features, five steps", (x, 5, 0.0))
    thin = rng.normal(size=(20, 3)) @ np.diag([1.0, 0.1, 0.05]) @ rng.normal(size=(3, 3))
    yield Case("forty steps", (thin, 40, 0.0), 1e-7, COUPLED)


def _whitened(x: Array, steps: int, eps: float) -> Array:
    """The centred batch times the package's matrix."""
    matrix = whitening_matrix(covariance(torch.tensor(x)), "newton-schulz", eps, steps=steps)
    return np.asarray((x - x.mean(axis=0)) @ matrix.numpy())


def _iterated(
    start: Callable[[Array], float] = np.trace,
    end: Callable[[Array], float] = lambda sigma: float(np.sqrt(np.trace(sigma))),
    *,
    correction: int = 0,
    eps_counts: bool = True,
    centre: bool = True,
) -> Callable[..., Array]:
    """The iteration with a mistake in what divides before, what divides after, or in Σ."""

    def mistaken(x: Array, steps: int, eps: float) -> Array:
        centred = x - x.mean(axis=0)
        identity = np.eye(x.shape[1])
        sigma = centred.T @ centred / (len(x) - correction) + eps * identity * eps_counts
        y, z = sigma / start(sigma), identity
        with np.errstate(all="ignore"):
            for _ in range(steps):
                step = (3 * identity - z @ y) / 2
                y, z = y @ step, step @ z
            return (centred if centre else x) @ z / end(sigma)

    return mistaken


ITERNORM = Exercise(
    "iternorm",
    CHAPTER,
    "whitening of (m, d) by steps of the Newton–Schulz iteration",
    ("x", "steps", "eps"),
    oracle=_whitened,
    cases=_iternorm_cases,
    properties=(CENTRED,),
    slips={
        "At the end Z is divided by the root of the trace: it is missing.": _iterated(
            end=lambda _sigma: 1.0
        ),
        "At the end Z is divided by the root of the trace, not by the trace.": _iterated(
            end=lambda sigma: float(np.trace(sigma))
        ),
        "Σ is divided by its trace before the first step, or its eigenvalues may be too large.": (
            _iterated(start=lambda _sigma: 1.0, end=lambda _sigma: 1.0)
        ),
        "The covariance is biased: divided by m, not by m − 1.": _iterated(correction=1),
        "ε is added to the diagonal of Σ, before the trace is taken.": _iterated(eps_counts=False),
        "The output is of the centred batch: the mean comes off.": _iterated(centre=False),
        "This is one step more than asked for.": lambda x, steps, eps: _whitened(x, steps + 1, eps),
    },
)

EXERCISES = (GROUP_NORM, BATCH_RENORM, WEIGHT_NORM, ITERNORM)
