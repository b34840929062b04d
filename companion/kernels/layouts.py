"""Memory formats of results: those that PyTorch would give them."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _torch


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
    """Give `result` the memory format PyTorch would: channels-last as in `x`, else contiguous.

    A compiler chooses the formats inside its graph; whatever is asked of it here costs a copy.
    """
    if is_fused():
        return result
    if is_channels_last(x):
        # Not contiguous(memory_format=...): vmap has no rule for it.
        return result.movedim(1, -1).contiguous().movedim(-1, 1)
    return result.contiguous()


def empty_with_layout_of(x: Tensor) -> Tensor:
    """What :func:`with_layout_of` would return for a result of the shape and type of `x`."""
    if is_channels_last(x):
        return x.new_empty([x.shape[axis] for axis in (0, *range(2, x.ndim), 1)]).movedim(-1, 1)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def is_fused() -> bool:
    """Whether operations are put into the graph of a compiler, which will fuse them."""
    return (
        torch.compiler.is_compiling()
        and not _torch.is_exporting()
        and not _torch.transforms_are_active()
    )


def computed_once(value: Tensor) -> Tensor:
    """`value`, ``(C,)``, which a compiler is to store instead of computing it for each element.

    It would fuse what a value per channel is computed from into the loops over the activation. A
    view by strides needs memory to view, and nothing else.
    """
    return torch.as_strided(value, value.shape, (1,)) if is_fused() else value
