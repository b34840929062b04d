"""Averages over batches, exponential or of all alike, without the weight of where they started.

A layer's running statistics begin at 0 and 1 and keep (1-α)^t of that after t batches. The average
here begins with nothing: batch k of t has the weight α(1-α)^(t-k)/(1 - (1-α)^t), and the weights
sum to 1 at every step.

Source: Eq. (14) mini-batch-algorithm/running-average; the division by 1 - (1-α)^t is that of Kingma
& Ba (2015), arXiv:1412.6980, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RunningAverage", "debias", "ema_lag", "ema_variance"]


def _check(momentum: float, steps: float) -> None:
    if not 0.0 < momentum <= 1.0:
        raise ValueError(f"momentum: expected a number above 0 and up to 1, got {momentum}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")


def _log_start_weight(momentum: float, steps: float) -> float:
    """log (1-α)^t, -∞ where nothing of the start is left."""
    return -math.inf if momentum == 1.0 or math.isinf(steps) else steps * math.log1p(-momentum)


@dataclass(frozen=True)
class RunningAverage:
    """The average of `steps` tensors of one shape that came one after the other.

    Parameters
    ----------
    momentum
        α, the weight of a new tensor in the exponential average, in (0, 1]; None: all tensors weigh
        alike, as ``momentum=None`` does in a batch normalization layer
    steps
        number of tensors so far
    value
        their average, float64; of no tensor, whatever was given to :meth:`empty`

    Raises
    ------
    ValueError
        a momentum outside (0, 1], a negative number of steps

    Notes
    -----
    A step moves the average by α/(1 - (1-α)^t) of the difference, which is 1/t in the limit α → 0.
    So the average of equal tensors is that tensor to the last digit, at every step.

    References
    ----------
    Eq. (14) mini-batch-algorithm/running-average; Kingma & Ba (2015), arXiv:1412.6980, section 3.

    Examples
    --------
    >>> average = RunningAverage.empty(torch.Size([1]), momentum=0.1)
    >>> for value in (1.0, 1.0, 4.0):
    ...     average = average.update(torch.tensor([value]))
    >>> round(average.value.item(), 4)  # (0.081 + 0.09 + 4 * 0.1) / 0.271
    2.107
    >>> round(average.started_at(torch.zeros(1)).item(), 4)  # what a layer would hold
    0.571
    """

    momentum: float | None
    steps: int
    value: Tensor

    def __post_init__(self) -> None:
        if self.momentum is not None:
            _check(self.momentum, 1)
        if self.steps < 0:
            raise ValueError(f"steps: expected a number not below 0, got {self.steps}")

    @classmethod
    def empty(
        cls,
        shape: torch.Size,
        momentum: float | None,
        device: torch.device | str | None = None,
    ) -> RunningAverage:
        """The average of nothing yet: zeros that will have no weight."""
        return cls(momentum, 0, torch.zeros(shape, dtype=torch.float64, device=device))

    def update(self, value: Tensor) -> RunningAverage:
        """The average with one more tensor; a ValueError if it has another shape.

        No gradient passes.
        """
        if value.shape != self.value.shape:
            expected, came = tuple(self.value.shape), tuple(value.shape)
            raise ValueError(f"value: expected shape {expected}, got {came}")
        steps = self.steps + 1
        if self.momentum is None:
            factor = 1.0 / steps
        else:
            factor = self.momentum / -math.expm1(_log_start_weight(self.momentum, steps))
        latest = value.detach().to(torch.float64)
        if steps == 1:
            return RunningAverage(self.momentum, steps, latest.clone())
        moved = self.value + factor * (latest - self.value)
        return RunningAverage(self.momentum, steps, moved)

    def started_at(self, start: Tensor) -> Tensor:
        """What the average would be had it begun at `start`: a layer's running statistic.

        (1-α)^t·start + (1 - (1-α)^t)·value, float64; with ``momentum=None`` the start has no
        weight once there is a tensor.
        """
        if self.steps == 0:
            return start.to(torch.float64, copy=True)
        start = start.to(torch.float64)
        if self.momentum is None:
            return self.value.clone()
        log_weight = _log_start_weight(self.momentum, self.steps)
        return math.exp(log_weight) * start - math.expm1(log_weight) * self.value


def debias(running: Tensor, start: float, momentum: float, steps: int) -> Tensor:
    """Take the start out of an exponential average: of a layer's running mean (0) or variance (1).

    (running - (1-α)^t·start)/(1 - (1-α)^t), the weighted average of the t batches alone.

    Parameters
    ----------
    running
        any shape, floating point
    start
        what it began at
    momentum
        α, the weight of a new batch, in (0, 1]
    steps
        t, the number of batches since, at least 1 (``num_batches_tracked`` of a layer)

    Returns
    -------
    Tensor
        float64, the shape of `running`; rounding in `running` is magnified by 1/(1 - (1-α)^t)

    Raises
    ------
    ValueError
        a momentum outside (0, 1], or no step

    References
    ----------
    Eq. (14) mini-batch-algorithm/running-average; Kingma & Ba (2015), arXiv:1412.6980, section 3.

    Examples
    --------
    >>> layer = torch.nn.BatchNorm1d(1, momentum=0.01)
    >>> _ = layer(torch.tensor([[4.0], [6.0]]))
    >>> round(layer.running_mean.item(), 4), round(layer.running_var.item(), 4)
    (0.05, 1.01)
    >>> round(debias(layer.running_mean, 0.0, 0.01, steps=1).item(), 4)
    5.0
    >>> round(debias(layer.running_var, 1.0, 0.01, steps=1).item(), 4)
    2.0
    """
    _check(momentum, steps)
    log_weight = _log_start_weight(momentum, steps)
    moved = running.to(torch.float64) - math.exp(log_weight) * start
    return moved / -math.expm1(log_weight)


def ema_variance(momentum: float, steps: float = math.inf) -> float:
    """Variance of a debiased exponential average of independent values of variance 1.

    α/(2-α)·(1 + (1-α)^t)/(1 - (1-α)^t): 1 after one step, α/(2-α) in the end. Its inverse says how
    many values, weighing alike, would do as well.

    Parameters
    ----------
    momentum
        α, in (0, 1]
    steps
        t, the number of values, at least 1; infinite by default

    Raises
    ------
    ValueError
        a momentum outside (0, 1], or no step

    References
    ----------
    Eq. (5) inference/average-variance, divided by (1 - (1-α)^t)².

    Examples
    --------
    >>> round(ema_variance(0.1), 4), ema_variance(0.1, steps=1)
    (0.0526, 1.0)
    """
    _check(momentum, steps)
    if steps == 1:
        return 1.0
    log_weight = _log_start_weight(momentum, steps)
    return momentum / (2 - momentum) * (1 + math.exp(log_weight)) / -math.expm1(log_weight)


def ema_lag(momentum: float, steps: float = math.inf) -> float:
    """How many steps back a debiased exponential average lies: the mean age of what it holds.

    (1-α)/α - t(1-α)^t/(1 - (1-α)^t): 0 after one step, (1-α)/α in the end. An average of something
    that moves by d a step trails it by d times this.

    Errors as :func:`ema_variance`.

    Parameters
    ----------
    momentum
        α, in (0, 1]
    steps
        t, the number of values, at least 1; infinite by default

    References
    ----------
    Eq. (4) inference/average-bias, its second term divided by 1 - (1-α)^t.

    Examples
    --------
    >>> round(ema_lag(0.1), 4), round(ema_lag(0.1, steps=2), 4)
    (9.0, 0.4737)
    """
    _check(momentum, steps)
    log_weight = _log_start_weight(momentum, steps)
    if log_weight == -math.inf:
        return (1 - momentum) / momentum
    if -log_weight < 1e-5:
        # Two numbers of about 1/α are left of which the difference is about t/2: expand it in α.
        return (steps - 1) / 2 - momentum * (steps * steps - 1) / 12
    return (1 - momentum) / momentum + steps * math.exp(log_weight) / math.expm1(log_weight)
