"""``convert``: every batch normalization layer of a model becomes this package's, or PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from companion._state import STATISTICS
from companion.kernels.eager import HALF_PRECISION
from companion.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    _CompanionBatchNorm,
)

__all__ = ["convert", "swap_class"]

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}
_SWAPS = {"companion": _OURS, "torch": {ours: theirs for theirs, ours in _OURS.items()}}


def convert(model: nn.Module, to: str = "companion") -> nn.Module:
    """Swap every batch normalization layer in `model`, in place, for this package's or back.

    Only the class of a layer changes: it remains the same object, with its parameters, buffers,
    hooks, mode and attributes, so that optimizers and references to it keep working. Statistics
    that are half precision already stay so.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    to
        ``"companion"`` or ``"torch"``

    Returns
    -------
    nn.Module
        `model`, the same object. Subclasses of the six layers, lazy ones, and PyTorch's
        synchronized one are left alone; layers with parametrizations are swapped below them; what
        :func:`companion.convert_sync` had converted becomes local again. The options
        `skip_nonfinite` and `backend` have no counterpart in PyTorch and are dropped on the way
        there; statistics take the type of a half-precision weight, as PyTorch's kernels demand.

    Raises
    ------
    TypeError
        `model` is not a module
    ValueError
        `to` is neither of the two; on the way to PyTorch a statistic overflows the type of its
        layer's weight. Nothing is changed then

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> type(convert(model)[1])
    <class 'companion.modules.BatchNorm1d'>
    >>> type(convert(model, to="torch")[1])
    <class 'torch.nn.modules.batchnorm.BatchNorm1d'>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if to not in _SWAPS:
        raise ValueError(f"to: expected 'companion' or 'torch', got {to!r}")
    typed = list(_typed_as_weights(model)) if to == "torch" else []
    for module in model.modules():
        to_local = getattr(module, "to_local", None)
        if to_local is not None:
            to_local()
        swap_class(module, _SWAPS[to])
    if to == "torch":
        for module in model.modules():
            if type(module) in _OURS:
                for option in ("skip_nonfinite", "backend"):
                    module.__dict__.pop(option, None)
    for module, name, statistic in typed:
        if not isinstance(module, _CompanionBatchNorm):
            setattr(module, name, statistic)
    return model


def _typed_as_weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Statistics of our layers, in the type of their weight, where PyTorch wants them so."""
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(module, _CompanionBatchNorm) or weight is None:
            continue
        for name in STATISTICS:
            statistic = getattr(module, name)
            if statistic is None or statistic.dtype == weight.dtype:
                continue
            if statistic.dtype not in HALF_PRECISION and weight.dtype not in HALF_PRECISION:
                continue
            typed = statistic.to(weight.dtype)
            if not torch.equal(typed.isfinite(), statistic.isfinite()):
                raise ValueError(
                    f"model: expected statistics within the range of {weight.dtype}, the type of "
                    f"the layer's weight, got up to {statistic.abs().max():.3g} in "
                    f"{path or 'the model'!r}, {name}"
                )
            yield module, name, typed


def swap_class(module: nn.Module, swaps: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Give a module the class that `swaps` names for its own; a parametrized one, below it."""
    cls = type(module)
    if cls in swaps:
        module.__class__ = swaps[cls]
    elif nn.utils.parametrize.is_parametrized(module) and cls.__bases__[0] in swaps:
        # PyTorch gives a parametrized layer a class of its own, below the layer's; copies of the
        # layer share it, so it is not changed but made again below the other class.
        own = {key: value for key, value in vars(cls).items() if key != "__weakref__"}
        own.pop("__dict__", None)
        module.__class__ = type(cls.__name__, (swaps[cls.__bases__[0]],), own)
