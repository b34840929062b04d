"""What descent does to biases and weights that a normalization follows."""

from __future__ import annotations

import math

from ._checks import check_positive

__all__ = ["bias_drift", "decayed_norm", "equilibrium_angle", "equilibrium_norm"]


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
    check_positive("learning_rate", learning_rate)
    if every == 1:
        return steps * learning_rate * target_mean
    blocks, rest = divmod(steps, every)
    left = 1 - learning_rate  # of the distance from the targets' mean, after a step
    return target_mean * (blocks * (1 - left**every) + 1 - left**rest)


def _check_decay(learning_rate: float, weight_decay: float) -> None:
    check_positive("learning_rate", learning_rate)
    check_positive("weight_decay", weight_decay)
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
    check_positive("gradient", gradient)
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
    check_positive("norm", norm)
    rest = equilibrium_norm(learning_rate, weight_decay, gradient) ** 4
    left = (1 - learning_rate * weight_decay) ** (4 * steps)
    return float((rest + (norm**4 - rest) * left) ** 0.25)
