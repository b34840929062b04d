"""Batch normalization in three pure functions: statistics, normalization, running statistics.

Nothing is changed in place, so ``torch.func`` can transform each of them and what is built from
them: ``vmap`` over an ensemble, ``grad`` of a loss that also returns the new running statistics.
One after the other they are :func:`companion.functional.batch_norm` in training::

    count, mean, var = batch_norm_stats(x)
    y = batch_norm_apply(x, mean, var, weight, bias)
    state = batch_norm_update(state, count, mean, var)

PyTorch's layer moves its running statistics in place, which ``vmap`` refuses for statistics that
are not batched themselves; PyTorch's page "Patching Batch Norm" advises to do without them. Answers
pytorch/functorch#273.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from companion import differentiation
from companion.kernels import eager
from companion.running import moved_average

__all__ = [
    "BatchNormState",
    "batch_norm_apply",
    "batch_norm_stats",
    "batch_norm_update",
]


class BatchNormState(NamedTuple):
    """Running statistics, and the number of batches behind them.

    Parameters
    ----------
    running_mean, running_var
        ``(C,)``, floating point
    num_batches_tracked
        ``()``, an integer

    Examples
    --------
    >>> layer = torch.nn.BatchNorm1d(3)
    >>> state = BatchNormState(layer.running_mean, layer.running_var, layer.num_batches_tracked)
    >>> state.running_var.tolist()
    [1.0, 1.0, 1.0]
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor


def batch_norm_stats(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Count, mean and biased variance of each channel of a batch, differentiable.

    Parameters
    ----------
    x
        floating-point tensor ``(N, C, *)``

    Returns
    -------
    count : int
        m, an integer
    mean, var : Tensor
        float64, ``(C,)``; gradients pass

    Raises
    ------
    ValueError
        a rank under 2, or no value
    TypeError
        numbers that are not floating-point

    References
    ----------
    Eq. (1) mini-batch-algorithm/batch-mean, Eq. (2) mini-batch-algorithm/batch-var.

    Examples
    --------
    >>> count, mean, var = batch_norm_stats(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> count, mean.tolist(), var.tolist()
    (2, [2.0, 5.0], [1.0, 0.0])
    """
    _check_input(x)
    count = eager.values_per_channel(x)
    if count == 0:
        raise ValueError(f"x: expected at least one value per channel, got shape {tuple(x.shape)}")
    return count, *eager.batch_stats(x)


def batch_norm_apply(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean)/√(var + ε)·weight + bias, centred first; gradients pass to all five tensors.

    With the statistics of `x` itself this is training, gradients included; with running ones it is
    inference.

    Parameters
    ----------
    x
        floating-point tensor ``(N, C, *)``
    mean, var
        ``(C,)``, any floating-point type
    weight, bias
        ``(C,)``; 1 and 0 if None
    eps
        added to the variance, inside the root; not negative

    Returns
    -------
    Tensor
        of the shape, type and memory format of `x`

    Raises
    ------
    ValueError
        a rank under 2, a tensor that is not ``(C,)``, a negative `eps`
    TypeError
        numbers that are not floating-point

    References
    ----------
    Eq. (3) mini-batch-algorithm/normalize, Eq. (4) mini-batch-algorithm/scale-shift.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> batch_norm_apply(x, torch.tensor([2.0]), torch.tensor([1.0]), eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    _check_input(x)
    _check_per_channel(x.shape[1], mean=mean, var=var, weight=weight, bias=bias)
    if eps < 0.0:
        raise ValueError(f"eps: expected a number not below 0, got {eps}")
    mean64, var64 = mean.to(torch.float64), var.to(torch.float64)
    return differentiation.fixed_eager(x, mean64, var64, weight, bias, eps)


def batch_norm_update(
    state: BatchNormState,
    count: int,
    mean: Tensor,
    var: Tensor,
    momentum: float | None = 0.1,
) -> BatchNormState:
    """Running statistics after one more batch; `state` stays as it is.

    (1 - α)·running + α·batch, with the unbiased variance m/(m-1)·var, kept within the type's range.

    Parameters
    ----------
    state
        before the batch
    count, mean, var
        what :func:`batch_norm_stats` returned
    momentum
        α, the weight of the batch; None averages all batches alike

    Returns
    -------
    BatchNormState
        of new tensors, in the types of `state`. Gradients pass to `mean` and `var`: detach them
        where the state outlives the step, as a layer does, else the graph grows

    Raises
    ------
    ValueError
        fewer than 2 values; tensors of another shape than the state's

    References
    ----------
    Eq. (14) mini-batch-algorithm/running-average.

    Examples
    --------
    >>> state = BatchNormState(torch.zeros(1), torch.ones(1), torch.tensor(0))
    >>> new = batch_norm_update(state, 2, torch.tensor([3.0]), torch.tensor([1.0]), momentum=0.5)
    >>> new.running_mean.item(), new.running_var.item(), new.num_batches_tracked.item()
    (1.5, 1.5, 1)
    >>> state.running_mean.item()
    0.0
    """
    if count < 2:
        raise ValueError(f"count: expected at least 2 values, got {count}")
    channels = state.running_mean.shape[0]
    _check_per_channel(channels, mean=mean, var=var, **{"state.running_var": state.running_var})
    batches = state.num_batches_tracked + 1
    factor = batches.to(torch.float64).reciprocal() if momentum is None else momentum
    unbiased = var.to(torch.float64) * (count / (count - 1))
    return BatchNormState(
        moved_average(state.running_mean, mean.to(torch.float64), factor),
        moved_average(state.running_var, unbiased, factor),
        batches,
    )


def _check_input(x: Tensor) -> None:
    if x.ndim < 2:
        raise ValueError(f"x: expected (N, C, ...), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x: expected floating-point numbers, got {x.dtype}")


def _check_per_channel(channels: int, **named: Tensor | None) -> None:
    for name, value in named.items():
        if value is None:
            continue
        if value.shape != (channels,):
            raise ValueError(f"{name}: expected shape ({channels},), got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected floating-point numbers, got {value.dtype}")
