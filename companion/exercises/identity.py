"""The exercises of the chapter `identity`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from companion import closed_forms, reference

from .exercise import Case, Exercise, Property, of_no_eps
from .properties import RESTORED

CHAPTER = "identity"


def _tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _params_cases() -> Iterator[Case]:
    yield Case("no ε", (_tensor(5.0), _tensor(4.0), 0.0))
    yield Case("an ε that counts", (_tensor(5.0), _tensor(4.0), 5.0))
    yield Case("a feature of small variance", (_tensor(3.0), _tensor(1e-6), 1e-5))
    yield Case("three features", (_tensor(-2.0, 0.0, 1e4), _tensor(9.0, 0.25, 100.0), 1e-3))
    yield Case("a constant feature", (_tensor(7.0), _tensor(0.0), 1e-5))


def _params(mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What undoes the scale and the centre of inference mode at γ = 1 and β = 0."""
    scale, _ = reference.inference_affine(mean, var, eps=eps)
    return torch.from_numpy(1 / scale), mean


IDENTITY_PARAMS = Exercise(
    "identity-params",
    CHAPTER,
    "γ and β with which inference mode returns its input",
    ("mean", "var", "eps"),
    oracle=_params,
    cases=_params_cases,
    properties=(RESTORED,),
    returns=("gamma", "beta"),
    slips={
        "The normalization divides by √(σ² + ε), and γ has to make up for all of it.": (
            lambda mean, var, _eps: (var.sqrt(), mean)
        ),
        "ε stands inside the root: √(σ² + ε), not σ + ε.": lambda mean, var, eps: (
            var.sqrt() + eps,
            mean,
        ),
        "γ is the root: a standard deviation, not a variance.": lambda mean, var, eps: (
            var + eps,
            mean,
        ),
        "γ has to undo the division by √(σ² + ε), not to repeat it.": lambda mean, var, eps: (
            1 / (var + eps).sqrt(),
            mean,
        ),
        "β is added: it brings back the mean that was taken off.": lambda mean, var, eps: (
            (var + eps).sqrt(),
            -mean,
        ),
        "γ comes first, then β.": lambda mean, var, eps: (mean, (var + eps).sqrt()),
        "ε is the argument eps, and not always 1e-5.": lambda mean, var, _eps: (
            (var + 1e-5).sqrt(),
            mean,
        ),
        "β is added after γ has multiplied: the mean is not divided by γ.": lambda mean, var, eps: (
            (var + eps).sqrt(),
            mean / (var + eps).sqrt(),
        ),
        "The mean was taken off, and β has to bring it back: it is not 0.": lambda mean, var, eps: (
            (var + eps).sqrt(),
            torch.zeros_like(mean),
        ),
    },
)


def _mse_cases() -> Iterator[Case]:
    yield Case("two values", (2,))
    yield Case("three values", (3,))
    yield Case("ten values", (10,))
    advice = "math.lgamma is the logarithm of Γ, and does not overflow."
    yield Case("a thousand values, where Γ overflows", (1000,), 1e-6, advice)


def _with(formula: Callable[[float], float]) -> Callable[[int], float]:
    """A formula in c_m."""
    return lambda m: formula(closed_forms.std_shrinkage(m))


def _with_quotient(formula: Callable[[int, float], float]) -> Callable[[int], float]:
    """A formula in m and the logarithm of Γ(m/2)/Γ((m − 1)/2) in place of c_m."""
    return lambda m: 2 * (1 - formula(m, math.lgamma(m / 2) - math.lgamma((m - 1) / 2)))


BATCH_IDENTITY_MSE = Exercise(
    "batch-identity-mse",
    CHAPTER,
    "E(y − x)² in training mode at γ = σ = 1 and β = μ",
    ("m",),
    oracle=closed_forms.batch_identity_mse,
    cases=_mse_cases,
    slips={
        "3/(2m) is what it comes near to for large m; c_m itself is asked for.": lambda m: (
            3 / (2 * m)
        ),
        "This is 1 − c_m² of the best γ; here γ = σ.": _with(lambda c: 1 - c**2),
        "The factor 2 is missing: 2(1 − c_m).": _with(lambda c: 1 - c),
        "The mean of the squared distance is asked for, without its root.": _with(
            lambda c: math.sqrt(2 * (1 - c))
        ),
        "This is c_m; the distance is 2(1 − c_m).": _with(lambda c: c),
        "c_m has √(2/m): the batch's variance is the biased one.": lambda m: (
            2 * (1 - closed_forms.std_shrinkage(m) * math.sqrt(m / (m - 1)))
        ),
        "With γ = σ the mean of (x̂ − z)² is 1 − 2c_m + 1, not (1 − c_m)²: E[x̂²] = 1.": _with(
            lambda c: (1 - c) ** 2
        ),
        "The factor √(2/m) of c_m is missing.": _with_quotient(lambda _m, log: math.exp(log)),
        "c_m has the root of 2/m.": _with_quotient(lambda m, log: 2 / m * math.exp(log)),
        "In c_m, Γ(m/2) stands above and Γ((m − 1)/2) below.": _with_quotient(
            lambda m, log: math.sqrt(2 / m) * math.exp(-log)
        ),
        "math.lgamma gives logarithms: take the exponential of their difference.": _with_quotient(
            lambda m, log: math.sqrt(2 / m) * log
        ),
    },
)


def _best_cases() -> Iterator[Case]:
    yield Case("one batch of two values", (_tensor(1.0, 3.0)[:, None],))
    yield Case("two batches, of widths 1 and 3", (torch.stack([_tensor(0, 0), _tensor(2, 6)]),))
    yield Case("two batches far apart", (torch.stack([_tensor(0, 10), _tensor(2, 12)]),))
    uniform = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield Case("eight batches of five skewed values", (-uniform.log(),))
    yield Case("values around 10⁸", (uniform + 1e8,), tolerance=1e-6)


def _best(batches: Tensor) -> tuple[float, float]:
    """The least squares fit of all x by x̂ and 1."""
    x_hat = reference.forward(batches, eps=0.0).x_hat
    inputs = np.stack([x_hat.ravel(), np.ones(x_hat.size)], axis=1)
    centre = batches.mean().item()
    gamma, beta = np.linalg.lstsq(inputs, batches.numpy().ravel() - centre)[0]
    return float(gamma), float(beta) + centre


def _fitted_with_eps(to_var: float, to_std: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The mean of x̂x, with an ε in x̂."""

    def best(x: Tensor) -> tuple[Tensor, Tensor]:
        var = x.var(dim=0, correction=0)
        return (var / ((var + to_var).sqrt() + to_std)).mean(), x.mean()

    return best


def _slopes(result: tuple[float, float], batches: Tensor) -> float:
    """Derivatives of the mean of (y − x)² with respect to γ and β, relative to the width."""
    gamma, beta = (float(each) for each in result)
    batch = reference.forward(batches, np.full(batches.shape[1], gamma), eps=0.0)
    off = batch.y - (batch.x - beta)
    return max(abs(off.mean()), abs((off * batch.x_hat).mean())) / float(batch.x.std())


BEST_IDENTITY = Exercise(
    "best-identity",
    CHAPTER,
    "γ and β nearest to the identity in training mode, for given batches",
    ("batches",),
    oracle=_best,
    cases=_best_cases,
    properties=(
        Property("At the best γ and β, (y − x)² changes with neither of them", _slopes, 1e-6),
    ),
    returns=("gamma", "beta"),
    slips={
        "This is the width of all values together; x̂ is divided by its own batch's.": (
            lambda x: (x.std(correction=0), x.mean())
        ),
        "This averages the batches' variances; the parabola's minimum is at the average of "
        "another thing.": lambda x: (x.var(dim=0, correction=0).mean().sqrt(), x.mean()),
        "x̂ is divided by the root of the biased variance; torch.std divides by m − 1, unless it "
        "gets correction=0.": lambda x: (x.std(dim=0).mean(), x.mean()),
        "A batch is a column: its statistics go over dim=0.": lambda x: (
            x.std(dim=1, correction=0).mean(),
            x.mean(),
        ),
        "σ·c_m holds for Gaussian values only; these batches are what they are.": lambda x: (
            x.std(correction=0) * closed_forms.std_shrinkage(len(x)),
            x.mean(),
        ),
        "γ comes first, then β.": lambda x: _best(x)[::-1],
        "β brings back the mean of all values: it is not 0.": lambda x: (_best(x)[0], 0.0),
        **of_no_eps(_fitted_with_eps),
    },
)

EXERCISES = (IDENTITY_PARAMS, BATCH_IDENTITY_MSE, BEST_IDENTITY)
