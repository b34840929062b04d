"""Running statistics: how a batch moves them, and when it must not."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _torch
from .kernels.interface import Running


def recomputing() -> bool:
    """Whether this forward pass runs inside a backward pass, as recomputation does.

    Activation checkpointing, of either kind, runs a segment's forward pass a second time while
    autograd works on the backward pass, and autograd then has a current graph task. Compiled code
    needs no such test (the compiler moves the recomputation itself, and the update with the first
    forward pass stays where it is) and cannot trace it.
    """
    return not torch.compiler.is_compiling() and _torch.in_backward_pass()


def update_running(running: Running, mean: Tensor | None, var: Tensor | None, m: int) -> None:
    """Move running statistics and count by one batch; `mean` is None for an empty batch.

    Only tensor arithmetic: no value is read on the host, so that nothing waits for the device and
    a compiler sees one graph.
    """
    if mean is None or var is None:
        if running.num_batches_tracked is not None:
            running.num_batches_tracked.add_(1)
    else:
        # The running variance is the unbiased one: m/(m-1) times what normalized the batch.
        # Detached, not under no_grad: an exported program keeps the former only.
        move_running(running, mean.detach(), var.detach() * (m / (m - 1)))


def move_running(
    running: Running, mean: Tensor, unbiased_var: Tensor, where: Tensor | None = None
) -> None:
    """Move running statistics and count by a batch's mean and unbiased variance, ``(C,)``.

    Where the boolean `where`, of shape ``()``, is False, only the count moves.
    """
    count = running.num_batches_tracked
    finite = torch.isfinite(mean).all() & torch.isfinite(unbiased_var).all()
    if where is not None:
        finite = finite | ~where
    counted = finite.to(count) if running.skip_nonfinite and count is not None else 1
    factor: float | Tensor = 0.0 if running.momentum is None else running.momentum
    if running.momentum is None and count is not None:
        factor = (count.to(torch.float64) + 1.0).reciprocal()
    updates = []
    for former, batch in ((running.mean, mean), (running.var, unbiased_var)):
        if former is not None:
            moved = moved_average(former, batch, factor)
            if running.skip_nonfinite:
                moved = torch.where(finite, moved, former)
            if where is not None:
                moved = torch.where(where, moved, former)
            updates.append((former, moved))
    for former, moved in updates:
        former.copy_(moved)
    if count is not None:
        count.add_(counted)


def moved_average(running: Tensor, batch: Tensor, factor: float | Tensor) -> Tensor:
    """(1 - factor)·running + factor·batch, in float64, kept within the range of the type."""
    moved = (1.0 - factor) * running.to(torch.float64) + factor * batch
    largest = torch.finfo(running.dtype).max
    # A sum that is infinite already comes from an infinite value: that one is passed on.
    inside = torch.where(torch.isfinite(moved), moved.clamp(-largest, largest), moved)
    return inside.to(running.dtype)
