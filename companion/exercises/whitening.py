"""The exercises of the chapter `whitening`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from companion import reference, whitening
from companion.whitening import covariance, whiten

from .exercise import SMALL, Case, Exercise, of_no_eps
from .properties import CENTRED, PRINCIPAL_VARIANCES, TRIANGULAR, UNIT_VARIANCES, UNTURNED, WHITE

CHAPTER = "whitening"
TWO_VALUES = ((1.0,), (3.0,))
MEAN_FIRST = "Where the mean is large, take it off before you multiply."
ONE_FEATURE = (
    "Σ of one feature is a matrix, too, of shape (1, 1): a product gives it, torch.cov a number."
)


def _tensor(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _sample(m: int, d: int, mean: float = 3.0) -> Tensor:
    """Correlated features, each around the mean."""
    generator = torch.Generator().manual_seed(m)
    normal = torch.randn(m + d, d, generator=generator, dtype=torch.float64)
    return normal[:m] @ normal[m:] + mean


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=0)


def _standardize_cases() -> Iterator[Case]:
    yield Case("two values of one feature", (_tensor(*TWO_VALUES),))
    yield Case("two features in units of their own", (_tensor((0.0, 10.0), (4.0, 30.0)),))
    yield Case("five examples of three features", (_sample(5, 3),))
    yield Case("values around 10⁸", (_sample(50, 2, 1e8),), tolerance=1e-6)


STANDARDIZE = Exercise(
    "standardize",
    CHAPTER,
    "mean 0 and biased variance 1 for each column of (m, d)",
    ("x",),
    oracle=lambda x: torch.from_numpy(reference.forward(x, eps=0.0).y),
    cases=_standardize_cases,
    properties=(CENTRED, UNIT_VARIANCES),
    slips={
        "The biased variance divides by m; torch.std and torch.var divide by m − 1, "
        "unless they get correction=0.": lambda x: _centred(x) / x.std(dim=0),
        "Mean and variance go over the examples, dim=0: one of each for every column.": lambda x: (
            (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, correction=0, keepdim=True)
        ),
        "Each column has a mean and a variance of its own: dim=0.": lambda x: (
            (x - x.mean()) / x.std(correction=0)
        ),
        "A column is divided by the root of its variance.": lambda x: (
            _centred(x) / x.var(dim=0, correction=0)
        ),
        "The mean has to come off first.": lambda x: x / x.std(dim=0, correction=0),
        "E[x²] − E[x]² loses its digits where the mean is large; average the squares of the "
        "centred values.": lambda x: (
            _centred(x) / (x.square().mean(dim=0) - x.mean(dim=0).square()).sqrt()
        ),
        **of_no_eps(
            lambda to_var, to_std: (
                lambda x: _centred(x) / ((x.var(dim=0, correction=0) + to_var).sqrt() + to_std)
            )
        ),
    },
)


def _zca_cases() -> Iterator[Case]:
    one, cross = _tensor(*TWO_VALUES), _tensor((2.0, 1.0), (2.0, -1.0), (-2.0, 1.0), (-2.0, -1.0))
    yield Case("two values of one feature", (one, 0.0), advice=ONE_FEATURE)
    yield Case("one feature of variance 4, and an ε that counts", (_tensor((0.0,), (4.0,)), 5.0))
    yield Case("two uncorrelated features, of variances 4 and 1", (cross, 0.0))
    # Σ^(1/2) = ((2, 1), (1, 2)), so that the result is (±1, ±1).
    slanting = _tensor((3.0, 3.0), (1.0, -1.0), (-1.0, 1.0), (-3.0, -3.0))
    yield Case("two correlated features", (slanting, 0.0))
    yield Case("five examples of three features", (_sample(5, 3), 0.1))
    yield Case("fewer examples than features", (_sample(3, 4), 0.1))
    yield Case("values around 10⁸", (_sample(50, 2, 1e8), 0.0), 1e-6, MEAN_FIRST)


def _from_axes(matrix: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """The centred batch times a matrix that is made of Σ's eigenvalues, eigenvectors, and ε."""

    def whitened(x: Tensor, eps: float) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance(x))
        return _centred(x) @ matrix(values, vectors, eps)

    return whitened


def _unbiased(x: Tensor, eps: float) -> Tensor:
    m = len(x)
    return whiten(x, "zca", eps * (m - 1) / m) * ((m - 1) / m) ** 0.5


def _not_centred(x: Tensor, eps: float) -> Tensor:
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return _centred(x) @ (vectors / (values + eps).sqrt()) @ vectors.T


ZCA = Exercise(
    "zca",
    CHAPTER,
    "ZCA whitening of (m, d), with ε added to the eigenvalues",
    ("x", "eps"),
    oracle=lambda x, eps: whiten(x, "zca", eps),
    cases=_zca_cases,
    properties=(CENTRED, PRINCIPAL_VARIANCES, UNTURNED),
    slips={
        "This is PCA whitening; ZCA turns back to the features' own axes.": _from_axes(
            lambda values, vectors, eps: vectors / (values + eps).sqrt()
        ),
        "Σ to the power −1/2: divide by the roots of the eigenvalues.": _from_axes(
            lambda values, vectors, eps: vectors / (values + eps) @ vectors.T
        ),
        "ε is added to the eigenvalues, inside the root: √(λ + ε), not √λ + ε.": _from_axes(
            lambda values, vectors, eps: vectors / (values.sqrt() + eps) @ vectors.T
        ),
        "ε is missing.": _from_axes(
            lambda values, vectors, _eps: vectors / values.sqrt() @ vectors.T
        ),
        "The covariance divides by m; torch.cov divides by m − 1, unless it gets correction=0.": (
            _unbiased
        ),
        "torch.linalg.eigh has the eigenvectors in the columns of D: Σ = D Λ Dᵀ.": _from_axes(
            lambda values, vectors, eps: vectors.T / (values + eps).sqrt() @ vectors
        ),
        "Σ is the covariance: the mean comes off before the products, too.": _not_centred,
        "The mean has to come off the values, not only for Σ.": lambda x, eps: (
            x @ whitening.whitening_matrix(covariance(x) + eps * torch.eye(x.shape[1]))
        ),
        "Σ is an average over the examples: X̃ᵀX̃ divided by m.": lambda x, eps: (
            whiten(x, "zca", eps / len(x)) / len(x) ** 0.5
        ),
        "This multiplies by the roots, which colours white data; whitening divides by them.": (
            _from_axes(lambda values, vectors, eps: vectors * (values + eps).sqrt() @ vectors.T)
        ),
        "ε is added to every eigenvalue; here it is the least that one may be.": _from_axes(
            lambda values, vectors, eps: vectors / values.clamp(min=eps).sqrt() @ vectors.T
        ),
        "This standardizes the features first; ZCA starts from Σ, not from the correlations.": (
            lambda x, eps: whiten(_centred(x) / x.std(dim=0, correction=0), "zca", eps)
        ),
    },
)


def _cholesky_cases() -> Iterator[Case]:
    yield Case("two values of one feature", (_tensor(*TWO_VALUES),), advice=ONE_FEATURE)
    # The second feature is the first plus another of variance 1, so that the result is (±1, ±1).
    sums = _tensor((1.0, 2.0), (1.0, 0.0), (-1.0, 0.0), (-1.0, -2.0))
    yield Case("two correlated features", (sums,))
    yield Case("five examples of three features", (_sample(5, 3),))
    yield Case("values around 10⁸", (_sample(50, 2, 1e8),), 1e-6, MEAN_FIRST)


def _factor(x: Tensor) -> Tensor:
    return torch.linalg.cholesky(covariance(x))


def _with_ridge(eps: float) -> Callable[[Tensor], Tensor]:
    def whitened(x: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(covariance(x) + eps * torch.eye(x.shape[1]))
        return torch.linalg.solve_triangular(factor, _centred(x).T, upper=False).T

    return whitened


CHOLESKY_WHITEN = Exercise(
    "cholesky-whiten",
    CHAPTER,
    "L⁻¹(x − μ) for each row of (m, d), with Σ = L Lᵀ",
    ("x",),
    oracle=lambda x: whiten(x, "cholesky"),
    cases=_cholesky_cases,
    properties=(CENTRED, WHITE, TRIANGULAR),
    slips={
        "L⁻¹ stands before a column x − μ; with the examples in rows that is X̃ times the "
        "transpose of L⁻¹.": lambda x: _centred(x) @ torch.linalg.inv(_factor(x)),
        "This multiplies by L, which colours white data; whitening takes the inverse.": lambda x: (
            _centred(x) @ _factor(x).T
        ),
        "This is ZCA whitening: white as well, turned another way.": lambda x: whiten(x, "zca"),
        "The covariance divides by m; torch.cov divides by m − 1, unless it gets correction=0.": (
            lambda x: whiten(x, "cholesky") * (1 - 1 / len(x)) ** 0.5
        ),
        "The mean has to come off the values, not only for Σ.": lambda x: (
            torch.linalg.solve_triangular(_factor(x), x.T, upper=False).T
        ),
        "The factor is triangular from the other side: output 1 depends on input 1 alone.": (
            lambda x: whiten(x.flip(1), "cholesky").flip(1)
        ),
        "Σ is the covariance: the mean comes off before the products, too.": lambda x: (
            torch.linalg.solve_triangular(
                torch.linalg.cholesky(x.T @ x / len(x)), _centred(x).T, upper=False
            ).T
        ),
        "Σ is an average over the examples: X̃ᵀX̃ divided by m.": lambda x: (
            whiten(x, "cholesky") / len(x) ** 0.5
        ),
        "L is lower triangular: with upper=True nothing but its diagonal is used.": lambda x: (
            _centred(x) / _factor(x).diagonal()
        ),
        **{
            f"Σ has full rank: nothing is added to it, not even {small}.": _with_ridge(eps)
            for small, eps in SMALL.items()
        },
    },
)


def _steps_cases() -> Iterator[Case]:
    def case(
        what: str,
        values: tuple[float, ...],
        excess: tuple[float, ...],
        tolerance: float = 0.01,
        advice: str = "",
    ) -> Case:
        given = (torch.tensor(each, dtype=torch.float64) for each in (values, excess))
        return Case(what, (*given, tolerance), advice=advice)

    negative = (
        "A step multiplies an error by 1 − ηλ, which is negative where ηλ > 1: the logarithm is "
        "that of |1 − ηλ|. There log1p(−ηλ) is nan, and no comparison with nan holds."
    )
    two = "two directions: each step halves both errors"
    yield case(two, (1.0, 3.0), (1.0, 1.0), advice=negative)
    round_bowl = "Here ηλ = 1: one step is enough. The logarithm of 1 − ηλ is −∞, and 0·∞ is nan."
    yield case("a round bowl", (3.0, 3.0), (1.0, 2.0), advice=round_bowl)
    yield case("most of it in a direction between", (1.0, 2.0, 10.0), (0.1, 4.0, 0.5), 0.135)
    yield case("a direction that one step solves", (1.0, 2.0, 3.0), (1.0, 5.0, 0.5), 0.2)
    yield case("a condition number of 100", (1.0, 100.0), (0.5, 0.5))
    at_once = "The loss is at its minimum before the first step: t = 0."
    yield case("at the bottom already", (1.0, 3.0), (0.0, 0.0), advice=at_once)
    by_formula = "What t steps leave is one formula: double t until it is enough, then bisect."
    yield case("10¹² steps, which nobody walks", (1e-12, 1.0), (1.0, 0.0), advice=by_formula)


def _steps(eigenvalues: Tensor, excess: Tensor, tolerance: float) -> int:
    return whitening.gd_steps(eigenvalues, excess, None, tolerance)


def _best_rate(eigenvalues: Tensor) -> float:
    return 2 / (eigenvalues.min() + eigenvalues.max()).item()


def _worst_alone(eigenvalues: Tensor, _excess: Tensor, tolerance: float) -> int:
    worst = eigenvalues.min()[None]
    return whitening.gd_steps(worst, torch.ones(1), _best_rate(eigenvalues), tolerance)


def _rounded_factor(eigenvalues: Tensor, excess: Tensor, tolerance: float) -> int:
    """With the logarithm of 1 − ηλ as it is rounded."""
    rate = _best_rate(eigenvalues)
    values = (1 - (1 - rate * eigenvalues)) / rate
    return whitening.gd_steps(values, excess, rate, tolerance)


GD_STEPS = Exercise(
    "gd-steps",
    CHAPTER,
    "steps until the excess loss is a fraction of the first",
    ("eigenvalues", "excess", "tolerance"),
    oracle=_steps,
    cases=_steps_cases,
    slips={
        "The loss is quadratic in the error: a step multiplies an excess by (1 − ηλ)².": (
            lambda values, excess, tolerance: _steps(values, excess, tolerance**2)
        ),
        "The best learning rate is 2/(λ_min + λ_max).": lambda values, excess, tolerance: (
            whitening.gd_steps(values, excess, 1 / values.max().item(), tolerance)
        ),
        "κ/4·ln(1/τ) steps suffice; fewer may do, depending on where the excess lies.": (
            lambda values, _excess, tolerance: math.ceil(
                (values.max() / values.min()).item() / 4 * math.log(1 / tolerance)
            )
        ),
        "The slowest direction alone does not decide: the sum over all of them does.": _worst_alone,
        "The tolerance is a fraction of the first excess, not an excess.": (
            lambda values, excess, tolerance: _steps(values, excess, tolerance / excess.sum())
        ),
        "Where ηλ is tiny, 1 − ηλ keeps few of its digits; torch.log1p(−ηλ) keeps all.": (
            _rounded_factor
        ),
        "One step fewer is enough: the smallest number of steps is asked for.": lambda *given: (
            _steps(*given) + 1
        ),
        "After these steps the loss is still too large: one more is needed.": lambda *given: (
            _steps(*given) - 1
        ),
    },
)


def _step_cases() -> Iterator[Case]:
    line, slope = _tensor((-3.0,), (3.0,)), torch.tensor([-3.0, 3.0], dtype=torch.float64)
    three = slope.new_tensor([3.0])
    yield Case("one feature, whose best weight is 1", (line, slope, three, 1.0))
    yield Case("half of that step", (line, slope, three, 0.5))
    slanting = _tensor((3.0, 3.0), (1.0, -1.0), (-1.0, 1.0), (-3.0, -3.0))
    target, w = slope.new_tensor([6.0, 1.0, 3.0, -2.0]), slope.new_tensor([1.0, -1.0])
    yield Case("two correlated features", (slanting, target, w, 0.5))
    x = _centred(_sample(4, 3))
    yield Case("one example more than features", (x, target, x[0], 1.0))
    narrow = slanting @ torch.diag(slope.new_tensor([1.0, 1e-4]))
    advice = "The second feature's variance is small, and counts: nothing is added to Σ."
    yield Case("features in very different units", (narrow, target, w, 1.0), advice=advice)


def _gradient(x: Tensor, target: Tensor, w: Tensor) -> Tensor:
    return x.T @ (x @ w - target) / len(x)


def _towards_the_minimum(x: Tensor, target: Tensor, w: Tensor, learning_rate: float) -> Tensor:
    """White inputs have M = I: a step takes the fraction η of the way to the minimum."""
    best = torch.linalg.lstsq(x, target[:, None], driver="gelsd").solution[:, 0]
    return w + learning_rate * (best - w)


def _in_white_weights(x: Tensor, target: Tensor, w: Tensor, learning_rate: float) -> Tensor:
    root = torch.linalg.inv(whitening.whitening_matrix(covariance(x)))
    return root @ _towards_the_minimum(x, target, w, learning_rate)


WHITENED_STEP = Exercise(
    "whitened-step",
    CHAPTER,
    "a step of descent on whitened inputs, in the weights of x",
    ("x", "target", "w", "learning_rate"),
    oracle=_towards_the_minimum,
    cases=_step_cases,
    tolerance=1e-6,  # the last case has a condition number of 10⁸
    slips={
        "This is a step on x as it is; the whitened inputs have another gradient.": (
            lambda x, target, w, rate: w - rate * _gradient(x, target, w)
        ),
        "𝒲 comes in twice: in the gradient for v, and on the way back from v to w.": (
            lambda x, target, w, rate: (
                w - rate * whitening.whitening_matrix(covariance(x)) @ _gradient(x, target, w)
            )
        ),
        "These are the weights v of the whitened inputs; the weights of x are asked for.": (
            _in_white_weights
        ),
        "Descent goes against the gradient.": lambda x, target, w, rate: _towards_the_minimum(
            x, target, w, -rate
        ),
        "The step starts at w, not at 0.": lambda x, target, w, rate: _towards_the_minimum(
            x, target, 0 * w, rate
        ),
        "The gradient and Σ are both averages over the examples.": lambda x, target, w, rate: (
            _towards_the_minimum(x, target, w, rate / len(x))
        ),
        "The gradient is an average over the examples, as Σ is.": lambda x, target, w, rate: (
            _towards_the_minimum(x, target, w, rate * len(x))
        ),
        "The loss has the factor 1/2m: its gradient has no 2.": lambda x, target, w, rate: (
            _towards_the_minimum(x, target, w, 2 * rate)
        ),
        "The gradient is multiplied by the inverse of Σ, not by Σ.": lambda x, target, w, rate: (
            w - rate * covariance(x) @ _gradient(x, target, w)
        ),
    },
)

EXERCISES = (STANDARDIZE, ZCA, CHOLESKY_WHITEN, GD_STEPS, WHITENED_STEP)
