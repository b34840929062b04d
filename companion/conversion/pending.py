"""Normalizations that are put off: what a fused block's code calls.

A normalization that is called waits for what follows. A sum and a ReLU that the kernel takes are
computed with it, in one pass; anything else gets its value first. Whether a layer and a ReLU are
still plain ones, without hooks, is asked at each call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from companion._torch import has_global_hooks, has_hooks
from companion.functional import batch_norm_act, dispatch
from companion.modules import _CompanionBatchNorm

from .edits import HELPERS

__all__ = ["FUNCTIONS", "LAYERS", "RELUS", "in_sequence", "is_as_made", "is_plain", "tail"]

RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


class _Pending(NamedTuple):
    """A normalization that has been called, and waits for what follows."""

    layer: _CompanionBatchNorm
    input: Tensor
    residual: Tensor | None


def _norm(layer: Any, input: Any) -> Any:
    """``layer(input)``, put off if the layer is a plain one, or a sequence that ends in one."""
    if type(input) is Tensor:
        if is_plain(layer) and is_as_made(layer):
            return _Pending(layer, input, None)
        if tail(layer) is not None and is_as_made(layer):
            return _through(layer, input)
    return layer(input)


def _add(left: Any, right: Any) -> Any:
    """``left + right``, of which one may be put off."""
    if type(left) is _Pending:
        if _is_residual(right, left.input):
            return _Pending(left.layer, left.input, right)
        left = _settle(left)
    elif type(right) is _Pending:
        if _is_residual(left, right.input):
            return _Pending(right.layer, right.input, left)
        right = _settle(right)
    return left + right


def _iadd(left: Any, right: Any) -> Any:
    """``left += right``, of which the left may be put off."""
    if type(left) is _Pending:
        if _is_residual(right, left.input):
            return _Pending(left.layer, left.input, right)
        left = _settle(left)
    left += right
    return left


def _act(activation: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """``activation(value)``, a function, a module or the name of a method; or all in one pass."""
    if type(value) is _Pending:
        if type(activation) is nn.Identity and is_as_made(activation):
            return value
        if _is_relu(activation):
            layer = value.layer
            arguments = layer._arguments(value.input, value.residual, True)
            return dispatch(batch_norm_act, arguments, layer.backend)
        value = _settle(value)
    if type(activation) is str:
        return getattr(value, activation)()
    return activation(value, *args, **kwargs)


def _settle(value: Any) -> Any:
    """A value as a tensor, if it was put off."""
    if type(value) is not _Pending:
        return value
    y = value.layer(value.input)
    return y if value.residual is None else y + value.residual


def _is_residual(value: Any, input: Tensor) -> bool:
    """Whether the kernel adds `value` as PyTorch does: nothing is promoted, spread or laid out."""
    return (
        type(value) is Tensor
        and value.shape == input.shape
        and value.dtype == input.dtype
        and value.device == input.device
        and value.stride() == input.stride()
    )


def is_plain(module: nn.Module) -> bool:
    """Whether batch normalization is all that a module does; this includes parametrized layers."""
    return getattr(type(module), "forward", None) is _CompanionBatchNorm.forward


def is_as_made(module: nn.Module) -> bool:
    """Whether a call of a module is its class's ``forward``, and nothing else."""
    return not (has_hooks(module) or has_global_hooks() or "forward" in module.__dict__)


def _is_relu(activation: Any) -> bool:
    if isinstance(activation, nn.Module):
        return type(activation) is nn.ReLU and is_as_made(activation)
    return activation in RELUS


FUNCTIONS = dict(zip(HELPERS, (_norm, _add, _iadd, _act, _settle), strict=True))


def _through(sequence: nn.Sequential, input: Any) -> Any:
    """Call one module after the other; what the last one gives may be put off."""
    for module in sequence:
        if type(module) in (nn.ReLU, nn.Identity):
            input = _act(module, input)
        else:
            input = _norm(module, _settle(input))
    return input


def in_sequence(self: nn.Sequential, input: Any) -> Any:
    """Call one module after the other: a normalization and a ReLU in one pass."""
    return _settle(_through(self, input))


def tail(module: Any) -> _CompanionBatchNorm | None:
    """The plain layer in which a sequence ends, behind a convolution or a linear layer."""
    if getattr(type(module), "forward", None) not in (nn.Sequential.forward, in_sequence):
        return None
    if len(module) == 0:
        return None
    last = module[len(module) - 1]
    if is_plain(last):
        return last if len(module) > 1 and isinstance(module[len(module) - 2], LAYERS) else None
    return tail(last)
