"""What layers, or steps of a recurrence, do to the gradient that comes through them."""

from __future__ import annotations

import math
from collections.abc import Callable

from ._checks import check_count

__all__ = ["linear_gradient_growth", "recurrent_factor", "shortcut_gradient_growth", "tanh_slope"]


def tanh_slope(std: float, order: int = 1) -> float:
    """E[tanh'(z)ᵏ]^(1/k) for z ~ N(0, σ²): the mean slope, at k = 2 its root mean square.

    Parameters
    ----------
    std
        σ, not negative
    order
        k, at least 1

    Raises
    ------
    ValueError
        `std` is negative, or `order` under 1

    References
    ----------
    Eq. (4) recurrent/mean-slope. The trapezoidal rule, whose error falls exponentially for such
    integrals: Trefethen & Weideman (2014), "The Exponentially Convergent Trapezoidal Rule".

    Examples
    --------
    >>> round(tanh_slope(1.0), 4), round(tanh_slope(1.0, order=2), 4)
    (0.6057, 0.6815)
    """
    if std < 0:
        raise ValueError(f"std: expected a number not below 0, got {std}")
    if order < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    power: float = _gaussian_mean(lambda z: (1 - math.tanh(z) ** 2) ** order, std)
    return power ** (1 / order)


def recurrent_factor(std: float, share: float = 1.0) -> float:
    """What a step of a normalized tanh recurrence multiplies the root mean square gradient by.

    √(ρ·σ²E[tanh'(z)²]/E[tanh(z)²]) for z ~ N(0, σ²): many units, which orthogonal weights mix, and
    a large batch. At ρ = 1 it is at least 1.

    Parameters
    ----------
    std
        σ, of the values that go into the tanh; not negative
    share
        ρ, the state's share in the variance that is normalized or summed up, from 0 to 1

    Raises
    ------
    ValueError
        `std` is negative, or `share` not from 0 to 1

    References
    ----------
    Eq. (8) recurrent/step-factor.

    Examples
    --------
    >>> round(recurrent_factor(0.1), 4), round(recurrent_factor(1.0), 4)
    (1.0001, 1.0853)
    >>> round(recurrent_factor(0.1, share=0.5), 4)
    0.7072
    """
    if std < 0:
        raise ValueError(f"std: expected a number not below 0, got {std}")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    if std == 0:
        return math.sqrt(share)
    square = _gaussian_mean(lambda z: math.tanh(z) ** 2, std)
    return std * tanh_slope(std, order=2) * math.sqrt(share / square)


def _gaussian_mean(function: Callable[[float], float], std: float) -> float:
    """E[f(σg)], g ~ N(0, 1), by the trapezoidal rule: f has no pole within 1.5 of the real axis."""
    step = 0.125 / max(std, 1.0)
    reach = math.ceil(9 / step)  # the density is under 1e-17 beyond
    nodes = (step * k for k in range(-reach, reach + 1))
    total = math.fsum(function(std * g) * math.exp(-g * g / 2) for g in nodes)
    return total * step / math.sqrt(2 * math.pi)


def linear_gradient_growth(m: int) -> float:
    """√((m-2)/(m-3)): growth of the gradient's norm per normalized layer without a nonlinearity.

    Of deep and wide networks at their start: γ = 1, β = 0, ε = 0, independent weights, and a width
    far above m².

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 3

    Raises
    ------
    ValueError
        fewer than 3 values: at m = 2 no gradient passes

    References
    ----------
    Eq. (7) depth/linear-growth; Yang et al. (2019), arXiv:1902.08129.

    Examples
    --------
    >>> linear_gradient_growth(3), round(linear_gradient_growth(8), 4)
    (inf, 1.0954)
    """
    check_count(m, at_least=3)
    return math.sqrt((m - 2) / (m - 3)) if m > 3 else math.inf


def shortcut_gradient_growth(blocks: int, rho: float, gamma: float = 1.0) -> float:
    """√Π (1 + γ²ρ/(1 + γ²k)) over k < `blocks`: growth of the gradient's norm through x + BN(…).

    Of wide networks in large batches at their start, where x enters the first block with variance
    1 and each block's branch ends with a normalization. It grows as the power ρ/2 of the number of
    blocks; a stack of the same layers without shortcuts has ρ^(blocks/2).

    Parameters
    ----------
    blocks
        how many, not negative
    rho
        ρ = E[f′(z)²]/Var f(z) of the activation f and a standard Gaussian z, at least 1
    gamma
        the scale γ at the end of each branch

    Raises
    ------
    ValueError
        `blocks` is negative, or `rho` under 1

    References
    ----------
    Eq. (12) depth/shortcut-gradient.

    Examples
    --------
    >>> shortcut_gradient_growth(2, 1.0), shortcut_gradient_growth(2, 1.0, gamma=0.0)
    (1.7320508075688772, 1.0)
    """
    if blocks < 0:
        raise ValueError(f"blocks: expected a number not below 0, got {blocks}")
    if not rho >= 1:
        raise ValueError(f"rho: expected at least 1, got {rho}")
    square = gamma * gamma
    return math.sqrt(math.prod(1 + square * rho / (1 + square * k) for k in range(blocks)))
