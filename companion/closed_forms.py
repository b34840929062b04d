"""What theory says batch normalization does and costs, as numbers to hold a measurement against.

``m`` is the number of values behind each mean and each variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def _check_count(m: int, at_least: int = 2) -> None:
    if m < at_least:
        plural = "s" if at_least > 1 else ""
        raise ValueError(f"m: expected at least {at_least} value{plural}, got {m}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")


def _log_half_step(k: float) -> float:
    """log(Γ(k + ½)/(√k·Γ(k))), which the difference of two log Γ would lose for large k.

    Source: the asymptotic series of the ratio, whose next term is under 1e-14 from k = 20 on.
    """
    if k < 20:
        return math.lgamma(k + 0.5) - math.lgamma(k) - 0.5 * math.log(k)
    u = 1 / k
    return -u / 8 + u**3 / 192 - u**5 / 640 + 17 * u**7 / 14336


def _log_std_shrinkage(m: int) -> float:
    _check_count(m)
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
    _check_positive("var", var)
    return -2 * var * math.expm1(_log_std_shrinkage(m))


def bias_drift(steps: int, learning_rate: float, target_mean: float, every: int = 1) -> float:
    """b_T - b_0, descent on the bias of a centred layer that takes the mean for a constant.

    The loss is half the mean squared error. The mean is computed anew before every step, or before
    each of `every` steps; in between it stays what it was.

    Parameters
    ----------
    steps
        T, the number of steps, not negative
    learning_rate
        η, positive
    target_mean
        mean of the targets, in whose unit the bias is
    every
        K, the number of steps that one mean serves, at least 1

    Raises
    ------
    ValueError
        `steps` is negative, `learning_rate` not positive, or `every` under 1

    References
    ----------
    Eq. (4) bias-drift/linear-drift, Eq. (15) bias-drift/stale-drift.

    Examples
    --------
    >>> bias_drift(200, 0.1, 1.2), round(bias_drift(200, 0.1, 1.2, every=10), 3)
    (24.0, 15.632)
    """
    if steps < 0:
        raise ValueError(f"steps: expected a number not below 0, got {steps}")
    if every < 1:
        raise ValueError(f"every: expected at least 1 step, got {every}")
    _check_positive("learning_rate", learning_rate)
    if every == 1:
        return steps * learning_rate * target_mean
    blocks, rest = divmod(steps, every)
    left = 1 - learning_rate  # of the distance from the targets' mean, after a step
    return target_mean * (blocks * (1 - left**every) + 1 - left**rest)


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
    Eq. (8) convolution/ar1-effective.

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


def _check_decay(learning_rate: float, weight_decay: float) -> None:
    _check_positive("learning_rate", learning_rate)
    _check_positive("weight_decay", weight_decay)
    if not learning_rate * weight_decay < 1:
        raise ValueError(
            "weight_decay: expected learning_rate * weight_decay < 1, got "
            f"{learning_rate * weight_decay:g}"
        )


def equilibrium_norm(learning_rate: float, weight_decay: float, gradient: float) -> float:
    """r*: the length at which decay takes from scale-invariant weights what their steps add.

    A step is w - η(∇L + λw), with ∇L orthogonal to w, and ‖w‖·‖∇L‖ = G at every w. For ηλ up to
    1 - 1/√2 the length comes to r* from every start.

    Parameters
    ----------
    learning_rate, weight_decay
        η and λ, positive, with ηλ < 1
    gradient
        G, the gradient's length at weights of length 1; positive

    Raises
    ------
    ValueError
        an argument is not positive, or ηλ is 1 or more

    References
    ----------
    Eq. (5) weight-decay/equilibrium-norm; van Laarhoven (2017), arXiv:1706.05350, Wan et al.
    (2021), arXiv:2006.08419.

    Examples
    --------
    >>> round(equilibrium_norm(0.4, 0.02, gradient=0.11), 3)
    0.59
    """
    _check_decay(learning_rate, weight_decay)
    _check_positive("gradient", gradient)
    kept = learning_rate * weight_decay
    return math.sqrt(learning_rate * gradient / math.sqrt(kept * (2 - kept)))


def equilibrium_angle(learning_rate: float, weight_decay: float) -> float:
    """arccos(1 - ηλ) ≈ √(2ηλ): the angle by which a step turns weights at rest, in radians.

    Parameters
    ----------
    learning_rate, weight_decay
        η and λ, positive, with ηλ < 1

    Raises
    ------
    ValueError
        an argument is not positive, or ηλ is 1 or more

    References
    ----------
    Eq. (8) weight-decay/equilibrium-angle; van Laarhoven (2017), arXiv:1706.05350, Wan et al.
    (2021), arXiv:2006.08419.

    Examples
    --------
    >>> round(equilibrium_angle(0.1, 0.04), 4)
    0.0895
    """
    _check_decay(learning_rate, weight_decay)
    # The arc cosine would lose half of the digits.
    return 2 * math.asin(math.sqrt(learning_rate * weight_decay / 2))


def decayed_norm(
    steps: int, norm: float, learning_rate: float, weight_decay: float, gradient: float
) -> float:
    """r_T ≈ (r*⁴ + (r_0⁴ - r*⁴)(1 - ηλ)^(4T))^¼: the length of scale-invariant weights that decay.

    Exact are its beginning and its end; in between it leaves out terms of order (ηλ)², which count
    while r is far below r*.

    Parameters
    ----------
    steps
        T, the number of steps, not negative
    norm
        r_0, the length before the first; positive
    learning_rate, weight_decay, gradient
        η, λ and G, as in :func:`equilibrium_norm`

    Raises
    ------
    ValueError
        `steps` is negative, another argument not positive, or ηλ 1 or more

    References
    ----------
    Eq. (7) weight-decay/norm-in-time.

    Examples
    --------
    >>> round(decayed_norm(100, 1.0, 0.4, 0.02, gradient=0.11), 3)
    0.629
    """
    if steps < 0:
        raise ValueError(f"steps: expected a number not below 0, got {steps}")
    _check_positive("norm", norm)
    rest = equilibrium_norm(learning_rate, weight_decay, gradient) ** 4
    left = (1 - learning_rate * weight_decay) ** (4 * steps)
    return float((rest + (norm**4 - rest) * left) ** 0.25)


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
    _check_count(m, at_least=1)
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
    _check_count(m)
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
    _check_count(m, at_least=3)
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
    _check_count(m)
    _check_positive("std", std)
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
    _check_count(m)
    _check_positive("var", var)
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
    _check_count(m)
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
    _check_count(m, at_least=3)
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


def collective_traffic(
    ranks: int, values: int, operation: str = "all_gather", schedule: str = "ring"
) -> tuple[int, float]:
    """How many steps a collective operation takes, and how many values each rank sends in all.

    ==========  =================  ==================
    schedule    all_gather         all_reduce
    ==========  =================  ==================
    ring        p-1, (p-1)·n       2(p-1), 2(p-1)n/p
    tree        ⌈log₂p⌉, (p-1)·n   ⌈log₂p⌉, ⌈log₂p⌉·n
    ==========  =================  ==================

    Parameters
    ----------
    ranks
        p, at least 1
    values
        n; what each rank contributes to an ``all_gather``, or adds in an ``all_reduce``
    operation
        ``"all_gather"`` or ``"all_reduce"``
    schedule
        ``"ring"``, what gloo does, or ``"tree"``, recursive doubling, which needs a power of two
        ranks; with other numbers an ``all_reduce`` takes up to two steps more

    Raises
    ------
    ValueError
        fewer than 1 rank, a negative number of values, or another operation or schedule

    References
    ----------
    Thakur, Rabenseifner & Gropp (2005), "Optimization of Collective Communication Operations in
    MPICH", International Journal of High Performance Computing Applications 19, 49.

    Examples
    --------
    >>> collective_traffic(4, 129), collective_traffic(4, 128, "all_reduce")
    ((3, 387.0), (6, 192.0))
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    if values < 0:
        raise ValueError(f"values: expected a number not below 0, got {values}")
    if operation not in ("all_gather", "all_reduce"):
        raise ValueError(f"operation: expected 'all_gather' or 'all_reduce', got {operation!r}")
    if schedule not in ("ring", "tree"):
        raise ValueError(f"schedule: expected 'ring' or 'tree', got {schedule!r}")
    others, doublings = ranks - 1, (ranks - 1).bit_length()
    if operation == "all_gather":
        return others if schedule == "ring" else doublings, float(others * values)
    if schedule == "ring":
        return 2 * others, 2.0 * others / ranks * values
    return doublings, float(doublings * values)


def sync_cost(
    ranks: int,
    values: int,
    latency: float,
    bandwidth: float,
    *,
    operation: str = "all_gather",
    schedule: str = "ring",
) -> float:
    """Seconds for a message of synchronized batch normalization: steps·latency + bytes/bandwidth.

    A layer of C channels sends 2C + 1 float64 values forward, by an ``all_gather``, and 2C
    backward, by an ``all_reduce``.

    Parameters
    ----------
    ranks, values, operation, schedule
        as in :func:`collective_traffic`
    latency
        seconds of a step, however small the message; positive
    bandwidth
        bytes per second that a rank sends; positive, may be infinite

    Raises
    ------
    ValueError
        as :func:`collective_traffic`, or a latency or bandwidth that is not positive

    References
    ----------
    The model of Hockney (1994), "The communication challenge for MPP", Parallel Computing 20, 389;
    steps and bytes are :func:`collective_traffic`'s.

    Examples
    --------
    >>> round(1e6 * sync_cost(8, 129, latency=20e-6, bandwidth=1e9), 1)  # microseconds
    147.2
    >>> round(1e6 * sync_cost(8, 129, 20e-6, 1e9, schedule="tree"), 1)
    67.2
    """
    _check_positive("latency", latency)
    _check_positive("bandwidth", bandwidth)
    steps, sent = collective_traffic(ranks, values, operation, schedule)
    return steps * latency + 8 * sent / bandwidth
