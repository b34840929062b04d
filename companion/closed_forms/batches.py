"""What the statistics of a batch of m values are worth, and what they do to its values."""

from __future__ import annotations

import math

from ._checks import check_count, check_positive

__all__ = [
    "batch_identity_mse",
    "effective_batch",
    "example_noise",
    "inverse_std_mean",
    "inverse_var_mean",
    "relu_mean",
    "std_shrinkage",
    "x_hat_bound",
    "x_hat_density",
    "x_hat_moment",
    "x_hat_variance",
]


def _log_half_step(k: float) -> float:
    """log(Γ(k + ½)/(√k·Γ(k))), which the difference of two log Γ would lose for large k.

    Source: the asymptotic series of the ratio, whose next term is under 1e-14 from k = 20 on.
    """
    if k < 20:
        return math.lgamma(k + 0.5) - math.lgamma(k) - 0.5 * math.log(k)
    u = 1 / k
    return -u / 8 + u**3 / 192 - u**5 / 640 + 17 * u**7 / 14336


def _log_std_shrinkage(m: int) -> float:
    check_count(m)
    return 0.5 * math.log1p(-1 / m) + _log_half_step((m - 1) / 2)


def std_shrinkage(m: int) -> float:
    """c_m = E[σ_B]/σ: by how much the (biased) standard deviation of m Gaussian values falls short.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2

    Raises
    ------
    ValueError
        fewer than 2 values

    References
    ----------
    Eq. (6) identity/std-shrinkage; the mean of the chi distribution.

    Examples
    --------
    >>> round(std_shrinkage(2), 4), round(std_shrinkage(32), 4)
    (0.5642, 0.9763)
    """
    return math.exp(_log_std_shrinkage(m))


def batch_identity_mse(m: int, var: float = 1.0) -> float:
    """E[(y - x)²] in training mode when γ = σ and β = μ, for Gaussian x: what "identity" costs.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2
    var
        the population's variance σ², positive, in the square of x's unit

    Raises
    ------
    ValueError
        fewer than 2 values, or `var` is not positive

    References
    ----------
    Eq. (7) identity/batch-identity-mse.

    Examples
    --------
    >>> round(batch_identity_mse(32), 4)
    0.0473
    """
    check_positive("var", var)
    return -2 * var * math.expm1(_log_std_shrinkage(m))


def x_hat_bound(m: int) -> float:
    """√(m - 1): what no value normalized with its own batch of m can exceed.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 1

    Raises
    ------
    ValueError
        fewer than 1 value

    References
    ----------
    Eq. (6) mini-batch-algorithm/x-hat-bound.

    Examples
    --------
    >>> x_hat_bound(10)
    3.0
    """
    check_count(m, at_least=1)
    return math.sqrt(m - 1)


def x_hat_variance(var: float, eps: float = 1e-5) -> float:
    """σ²/(σ² + ε): the mean of x̂² over its batch, 1 at ε = 0.

    Parameters
    ----------
    var
        the batch's biased variance, not negative, in the square of x's unit
    eps
        ε, not negative

    Raises
    ------
    ValueError
        `var` or `eps` is negative, or both are 0

    References
    ----------
    Eq. (5) mini-batch-algorithm/x-hat-moments.

    Examples
    --------
    >>> x_hat_variance(3.0, eps=1.0)
    0.75
    """
    if var < 0 or eps < 0 or var + eps == 0:
        raise ValueError(f"var, eps: expected numbers not below 0, not both 0, got {var}, {eps}")
    return var / (var + eps)


def x_hat_moment(m: int, order: int) -> float:
    """E[x̂ᵏ] for Gaussian values, ε = 0: 0 for odd k, else n^(k/2)·E[Bᵏᐟ²], B ~ Beta(½, (n-1)/2).

    With n = m - 1, the moments of B are products, and E[x̂ᵏ] = Π (2i + 1)·n/(n + 2i) over i < k/2.
    The fourth, 3(m - 1)/(m + 1), is the kurtosis, since the second is 1.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2
    order
        k, not negative

    Raises
    ------
    ValueError
        fewer than 2 values, or a negative order

    References
    ----------
    Eq. (7) mini-batch-algorithm/x-hat-beta; its fourth moment is Eq. (8)
    mini-batch-algorithm/x-hat-kurtosis.

    Examples
    --------
    >>> x_hat_moment(9, 2), x_hat_moment(9, 3), x_hat_moment(9, 4)
    (1.0, 0.0, 2.4)
    """
    check_count(m)
    if order < 0:
        raise ValueError(f"order: expected a number not below 0, got {order}")
    if order % 2:
        return 0.0
    n = m - 1
    return math.prod((2 * i + 1) * n / (n + 2 * i) for i in range(order // 2))


def x_hat_density(x_hat: float, m: int) -> float:
    """Density of x̂ for Gaussian values, ε = 0: ∝ (1 - x̂²/(m-1))^((m-4)/2), 0 beyond √(m-1).

    Parameters
    ----------
    x_hat
        x̂, where to take the density
    m
        the number of values behind the mean and the variance, at least 3

    Raises
    ------
    ValueError
        fewer than 3 values: at m = 2, x̂ is ±1 and has no density

    References
    ----------
    Eq. (7) mini-batch-algorithm/x-hat-beta.

    Examples
    --------
    >>> round(x_hat_density(0.0, 4), 4), x_hat_density(1.8, 4)  # uniform up to √3
    (0.2887, 0.0)
    """
    check_count(m, at_least=3)
    if x_hat**2 >= m - 1:
        return 0.0
    k = (m - 2) / 2
    log_scale = _log_half_step(k) + 0.5 * math.log(k / (math.pi * (m - 1)))
    return math.exp(log_scale + (m - 4) / 2 * math.log1p(-(x_hat**2) / (m - 1)))


def inverse_std_mean(m: int, std: float = 1.0) -> float:
    """E[1/σ_B] for m Gaussian values, σ_B² biased: above 1/σ, and infinite at m = 2.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2
    std
        the population's standard deviation σ, positive, in x's unit

    Raises
    ------
    ValueError
        fewer than 2 values, or `std` is not positive

    References
    ----------
    Eq. (5) regularization-noise/inverse-std-mean.

    Examples
    --------
    >>> inverse_std_mean(2), round(inverse_std_mean(32), 4)
    (inf, 1.0414)
    """
    check_count(m)
    check_positive("std", std)
    if m == 2:
        return math.inf
    k = (m - 2) / 2
    return math.sqrt(m / (2 * k)) * math.exp(-_log_half_step(k)) / std


def inverse_var_mean(m: int, var: float = 1.0) -> float:
    """E[1/σ_B²] = m/((m-3)σ²) for m Gaussian values, σ_B² biased: infinite for m ≤ 3.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2
    var
        the population's variance σ², positive, in the square of x's unit

    Raises
    ------
    ValueError
        fewer than 2 values, or `var` is not positive

    References
    ----------
    Eq. (6) regularization-noise/inverse-var-mean.

    Examples
    --------
    >>> inverse_var_mean(6), inverse_var_mean(3)
    (2.0, inf)
    """
    check_count(m)
    check_positive("var", var)
    return m / ((m - 3) * var) if m > 3 else math.inf


def example_noise(m: int, z: float, skewness: float = 0.0, kurtosis: float = 3.0) -> float:
    """Variance of one example's x̂ over the rest of its batch, to leading order in 1/m.

    Parameters
    ----------
    m
        the batch size, the example included
    z
        the example's distance from the population's mean, in standard deviations
    skewness, kurtosis
        of the population, E[z³] and E[z⁴]; those of a Gaussian by default

    Raises
    ------
    ValueError
        fewer than 2 values

    References
    ----------
    Eq. (9) regularization-noise/example-noise.

    Examples
    --------
    >>> example_noise(32, z=0.0), example_noise(32, z=2.0)
    (0.03125, 0.09375)
    """
    check_count(m)
    return (1 + skewness * z + (kurtosis - 1) / 4 * z**2) / m


def relu_mean(m: int) -> float:
    """E[relu(x̂)] in training mode for m Gaussian values: 1/2 at m = 2, 1/√(2π) in the limit.

    Parameters
    ----------
    m
        the number of values behind the mean and the variance, at least 2

    Raises
    ------
    ValueError
        fewer than 2 values

    References
    ----------
    Eq. (17) regularization-noise/relu-mean.

    Examples
    --------
    >>> round(relu_mean(2), 4), round(relu_mean(10**6), 4)
    (0.5, 0.3989)
    """
    return math.sqrt((m - 1) / (2 * math.pi * m)) / std_shrinkage(m)


def _axis_sum(length: int, rho: float) -> float:
    """1 + 2Σ(1 - k/n)ρᵏ over k < n: Σ_ij ρ^|i-j| / n."""
    return 1 + 2 * math.fsum((1 - k / length) * rho**k for k in range(1, length))


def effective_batch(
    examples: int, height: int, width: int, along_height: float, along_width: float
) -> float:
    """m_eff = NHW/(f_H·f_W): how many independent values a batch of AR(1) maps is worth.

    So many independent values have a mean as uncertain as that of N independent maps of H × W
    positions, two of which have the correlation ρ_h to the power of their distance along the
    height, times ρ_w to the power of that along the width. f_n(ρ) is the sum of ρ^|i-j| over all
    pairs of n positions in a row, over n.

    Parameters
    ----------
    examples, height, width
        N, H and W, at least 1
    along_height, along_width
        ρ_h and ρ_w, the correlations of neighbours; above -1, at most 1

    Raises
    ------
    ValueError
        a number below 1, or a correlation out of its range

    References
    ----------
    Eq. (7) convolution/ar1-effective.

    Examples
    --------
    >>> effective_batch(32, 8, 8, 0.0, 0.0), effective_batch(32, 8, 8, 1.0, 1.0)
    (2048.0, 32.0)
    >>> round(effective_batch(32, 8, 8, 0.5, 0.5))
    327
    """
    for name, count in (("examples", examples), ("height", height), ("width", width)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    for name, rho in (("along_height", along_height), ("along_width", along_width)):
        if not -1 < rho <= 1:
            raise ValueError(f"{name}: expected a correlation above -1, at most 1, got {rho}")
    sums = _axis_sum(height, along_height) * _axis_sum(width, along_width)
    return examples * height * width / sums
