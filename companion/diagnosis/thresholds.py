"""From which number on something is found: each derived, with its rate of false alarms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from companion import closed_forms

__all__ = [
    "LEAST_GAP",
    "NOISE_SHARE",
    "evaluation_gap",
    "f_quantile",
    "gap_threshold",
    "noise_share",
]

NOISE_SHARE = 0.1
"""Of the output's variance, the share of noise from which a batch counts as small."""

LEAST_GAP = 0.1
"""Of the output's variance, the squared error that is worth a finding, however certain."""

_MARKOV = 20
"""A number that is never negative exceeds this many times its mean at most once in so many."""


def noise_share(m: int) -> float:
    """The noise that statistics of m values add, as a share of the normalized output's variance.

    2(1 - c_m) for Gaussian inputs, about 3/(2m): :func:`companion.closed_forms.batch_identity_mse`.

    Examples
    --------
    >>> noise_share(14) > NOISE_SHARE > noise_share(15)
    True
    """
    return closed_forms.batch_identity_mse(m)


def evaluation_gap(mean: Tensor, var: Tensor, fixed: tuple[Tensor, Tensor], eps: float) -> Tensor:
    """How far the output under `fixed` statistics is from that under those of the data.

    The mean squared difference, over data of this mean and variance, between (x - μ_f)/s_f and
    (x - μ)/s, where s = √(σ² + ε): ((μ - μ_f)/s_f)² + σ²(1/s_f - 1/s)². Float64 tensors (C,).

    Examples
    --------
    >>> moments = torch.tensor([1.0]), torch.tensor([4.0])
    >>> evaluation_gap(*moments, fixed=(torch.tensor([0.0]), torch.tensor([1.0])), eps=0.0)
    tensor([2.])
    """
    fixed_mean, fixed_var = fixed
    inv_std, fixed_inv_std = (var + eps).rsqrt(), (fixed_var + eps).rsqrt()
    shift = (mean - fixed_mean) * fixed_inv_std
    return shift.square() + var * (fixed_inv_std - inv_std).square()


def gap_threshold(means: Tensor, variances: Tensor, share: float, eps: float) -> float:
    """The gap that running averages of healthy batches exceed at most once in twenty layers.

    Parameters
    ----------
    means, variances
        of each batch, ``(batches, C)``, float64
    share
        α/(2 - α), by which the variance of a running average is smaller than that of a batch

    eps
        of the layer

    Returns
    -------
    float
        20 times the gap to be expected, by Markov's inequality, which asks nothing of the
        distribution, nor of how channels depend on one another; at least :data:`LEAST_GAP`
    """
    width = (variances.mean(dim=0) + eps).sqrt()
    shift = means.var(dim=0) / width.square()
    stretch = (variances + eps).sqrt().var(dim=0) / width.square()
    expected = float((shift + stretch).mean()) * (1 / len(means) + share)
    return max(LEAST_GAP, _MARKOV * expected)


def f_quantile(above: float, numerator: int, denominator: int) -> float:
    """What a ratio of two independent estimates of one variance exceeds with a probability.

    Parameters
    ----------
    above
        the probability, between 0 and 0.5
    numerator, denominator
        degrees of freedom, at least 1

    Returns
    -------
    float
        the quantile of the F distribution, by Paulson's approximation (1942): both estimates'
        cube roots are taken for Gaussian. Infinite where that has no solution

    Examples
    --------
    >>> round(f_quantile(0.001, 7, 120), 2)  # exactly: 3.77
    3.79
    """
    z = math.sqrt(2.0) * torch.erfinv(torch.tensor(1.0 - 2.0 * above, dtype=torch.float64)).item()
    a, b = 2 / (9 * numerator), 2 / (9 * denominator)
    room = (1 - b) ** 2 - b * z**2
    if room <= 0.0:
        return math.inf
    root = math.sqrt((1 - b) ** 2 * a + (1 - a) ** 2 * b - a * b * z**2)
    return float((((1 - a) * (1 - b) + z * root) / room) ** 3)
