"""Memory formats of results: those that PyTorch would give them."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether PyTorch would give a result computed from `x` the channels-last memory format.

    PyTorch decides by the order of the strides, dense or not; where sizes of 1 leave the order
    open it decides for the contiguous format. This is its rule, which Python cannot call.
    """
    if x.ndim not in (4, 5):
        return False
    sizes, strides = x.shape, x.stride()
    if strides[1] == 0:
        return False
    least = 0
    for axis in (1, *range(x.ndim - 1, 1, -1), 0):
        if sizes[axis] == 0 or strides[axis] < least:
            return False
        least = strides[axis] * sizes[axis]
    return True


def with_layout_of(x: Tensor, result: Tensor) -> Tensor:
    """Give `result` the memory format PyTorch would: channels-last as in `x`, else contiguous."""
    if is_channels_last(x):
        # Not contiguous(memory_format=...): vmap has no rule for it.
        return result.movedim(1, -1).contiguous().movedim(-1, 1)
    return result.contiguous()


def empty_with_layout_of(x: Tensor) -> Tensor:
    """What :func:`with_layout_of` would return for a result of the shape and type of `x`."""
    if is_channels_last(x):
        return x.new_empty([x.shape[axis] for axis in (0, *range(2, x.ndim), 1)]).movedim(-1, 1)
    return torch.empty_like(x, memory_format=torch.contiguous_format)
