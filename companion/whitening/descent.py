"""How many steps gradient descent takes on a quadratic, counted without taking them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gd_steps"]


def gd_steps(
    eigenvalues: Tensor,
    excess: Tensor,
    learning_rate: float | None = None,
    tolerance: float = 0.01,
) -> int:
    """Steps of gradient descent on a quadratic until its excess loss is a fraction of the first.

    Along an eigenvector of the Hessian with eigenvalue λ the excess shrinks by (1 - ηλ)² a step.
    The count is found by bisection, without taking the steps, and may be astronomical.

    Parameters
    ----------
    eigenvalues
        ``(d,)`` of the Hessian, positive
    excess
        ``(d,)``, the loss above its minimum along each eigenvector at the start, not negative
    learning_rate
        η, below 2/λ_max; the best one, 2/(λ_min + λ_max), if None
    tolerance
        the fraction of the excess at which to stop, between 0 and 1

    Returns
    -------
    int
        the smallest number of steps after which the excess is at most `tolerance` times the first

    Raises
    ------
    ValueError
        other shapes, eigenvalues or rates than described: the descent would not converge

    References
    ----------
    Eqs. (4) and (5) of the chapter `whitening`.

    Examples
    --------
    >>> import torch
    >>> from companion.whitening import gd_steps
    >>> gd_steps(torch.tensor([1.0, 100.0]), torch.tensor([0.5, 0.5]))
    116
    >>> gd_steps(torch.tensor([3.0, 3.0]), torch.tensor([0.5, 0.5]))
    1
    """
    values, energy = eigenvalues.to(torch.float64), excess.to(torch.float64)
    if values.ndim != 1 or values.shape != energy.shape or len(values) == 0:
        raise ValueError(
            "eigenvalues, excess: expected one number per direction each, "
            f"got shapes {tuple(values.shape)} and {tuple(energy.shape)}"
        )
    low, high = values.min().item(), values.max().item()
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"eigenvalues: expected positive numbers, got from {low} to {high}")
    rate = 2.0 / (low + high) if learning_rate is None else learning_rate
    if not 0.0 < rate * high < 2.0:
        raise ValueError(f"learning_rate: expected between 0 and {2.0 / high:.6g}, got {rate:.6g}")
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance: expected between 0 and 1, got {tolerance}")
    if not (energy.min().item() >= 0.0 and energy.sum().item() < math.inf):
        raise ValueError("excess: expected numbers not below 0, got a negative or infinite one")
    # log|1 - ηλ| without cancellation where ηλ is tiny.
    product = rate * values
    shrinkage = torch.where(product < 1.0, torch.log1p(-product), torch.log(product - 1.0))
    target = tolerance * energy.sum()

    def reached(steps: int) -> bool:
        # At 0 steps 0·(-inf) would be NaN for a direction that one step solves.
        left = energy * torch.exp(2.0 * steps * shrinkage) if steps else energy
        return bool(left.sum() <= target)

    return _first(reached)


def _first(reached: Callable[[int], bool]) -> int:
    """The smallest count for which a condition holds that, once it holds, keeps holding."""
    if reached(0):
        return 0
    above = 1
    while not reached(above):
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if reached(middle) else (middle, above)
    return above
