"""What theory says batch normalization does, as numbers to hold a measurement against.

``m`` is the number of values behind each mean and each variance.
"""

from __future__ import annotations

import math


def std_shrinkage(m: int) -> float:
    """c_m = E[σ_B]/σ: by how much the (biased) standard deviation of m Gaussian values falls short.

    Raises
    ------
    ValueError : fewer than 2 values

    Source: Eq. (6) identity/std-shrinkage; the mean of the chi distribution.
    """
    if m < 2:
        raise ValueError(f"m: expected at least 2 values, got {m}")
    return math.sqrt(2 / m) * math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2))


def batch_identity_mse(m: int, var: float = 1.0) -> float:
    """E[(y - x)²] in training mode when γ = σ and β = μ, for Gaussian x: what "identity" costs.

    Parameters
    ----------
    var : the population's variance σ², in the square of x's unit

    Source: Eq. (7) identity/batch-identity-mse.
    """
    return 2 * var * (1 - std_shrinkage(m))
