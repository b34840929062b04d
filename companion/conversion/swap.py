"""``convert``: every batch normalization layer of a model becomes this package's, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from companion._state import STATISTICS
from companion.kernels.eager import HALF_PRECISION
from companion.modules import _CompanionBatchNorm

from . import fusion
from .below import companion_class, described, origin
from .recognition import INSTANCE_NORMS, form_of, torch_base
from .report import Changed, ConversionReport, Left, Unfused, class_name

__all__ = [
    "convert",
    "described",
    "is_ours",
    "obstacle",
    "plain_class",
    "reason_to_leave",
    "swap_class",
]

_TARGETS: dict[str, Callable[[Any], type[nn.Module] | None]] = {
    "companion": companion_class,
    "torch": origin,
}
_OPTIONS = ("skip_nonfinite", "backend")


@overload
def convert(
    model: nn.Module, to: str = ..., *, fuse: bool = ..., report: Literal[False] = ...
) -> nn.Module: ...


@overload
def convert(
    model: nn.Module, to: str = ..., *, fuse: bool = ..., report: Literal[True]
) -> tuple[nn.Module, ConversionReport]: ...


def convert(
    model: nn.Module, to: str = "companion", *, fuse: bool = False, report: bool = False
) -> nn.Module | tuple[nn.Module, ConversionReport]:
    """Swap every batch normalization layer in `model`, in place, for this package's or back.

    Only the class of a layer changes: it remains the same object, with its parameters, buffers,
    hooks, mode and attributes, so that optimizers and references to it keep working. Statistics
    that are half precision already stay so.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    to
        ``"companion"``; ``"torch"``: the classes that the layers had, or those of ``torch.nn``
    fuse
        whether to compute, where code of the model calls a layer, adds something or not, and calls
        a ReLU, all of it in one pass
    report
        whether to say what was done

    Returns
    -------
    model : nn.Module
        `model`, the same object
    report : ConversionReport
        only if asked for: the layers that were changed, and those that were left alone, with the
        reason

    Raises
    ------
    TypeError
        `model` is not a module
    ValueError
        `to` is neither of the two; `fuse` on the way to PyTorch; on that way a statistic overflows
        the type of its layer's weight. Nothing is changed then

    Notes
    -----
    *Other classes.* A layer of another library, or of yours, gets a class that is below its own:
    ``isinstance``, its methods and its state dictionary stay. This serves subclasses of PyTorch's
    layers whose ``forward`` is PyTorch's or calls that of ``super()``, and those that
    :func:`companion.register_batch_norm` knows, timm's ``BatchNormAct2d`` and torchvision's frozen
    layer among them. A ReLU that such a layer applies is computed in the same pass.

    *Left alone* are layers whose ``forward`` is not known or was set on the instance, lazy ones,
    those with sharded parameters, and PyTorch's synchronized ones, see
    :func:`companion.convert_sync`. Layers with parametrizations are swapped below them.

    *Fusing.* Layers and ReLUs stay where they are. A block, a ``Sequential`` or a module of yours,
    whose code calls one after the other gets a class below its own, whose methods call the fused
    kernel instead, wherever both are still plain ones, without hooks, when they are called. All
    else of its code stays, as its state dictionary does. Values, gradients and statistics are what
    they were, but for rounding in half precision. What is found, in the source of the methods: the
    calls may stand inside one another, or on lines of their own with a variable between that
    nothing else reads. The report names each layer where that is not so, and why.

    *The way back.* What :func:`companion.convert_sync` had converted becomes local again. The
    options `skip_nonfinite` and `backend` have no counterpart in PyTorch and are dropped on the
    way there; statistics take the type of a half-precision weight, as PyTorch's kernels demand.
    This package's layers that do more than batch normalization are left alone.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> type(convert(model)[1])
    <class 'companion.modules.BatchNorm1d'>
    >>> model, report = convert(model, to="torch", report=True)
    >>> print(report.changed[0])
    1: companion.BatchNorm1d is now torch.nn.BatchNorm1d
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if to not in _TARGETS:
        raise ValueError(f"to: expected 'companion' or 'torch', got {to!r}")
    if fuse and to == "torch":
        raise ValueError("fuse: expected False on the way to PyTorch, got True")
    typed = list(_typed_as_weights(model)) if to == "torch" else []
    changed: list[Changed] = []
    left: list[Left] = []
    for name, module in model.named_modules():
        former, before = plain_class(module), described(module, plain_class(module))
        to_local: Any = getattr(module, "to_local", None)
        if to_local is not None:
            to_local()
        if to == "torch" and (own := fusion.own_class(plain_class(module))):
            swap_class(module, own)
            continue
        target = _TARGETS[to](plain_class(module))
        if target is not None and (to == "torch" or obstacle(module) is None):
            swap_class(module, target)
        if plain_class(module) is not former:
            changed.append(Changed(name, before, described(module, plain_class(module))))
            if to == "torch":
                for option in _OPTIONS:
                    vars(module).pop(option, None)
        elif (reason := _reason(module, to)) is not None:
            left.append(Left(name, class_name(former), reason))
    for module, name, statistic in typed:
        if not isinstance(module, _CompanionBatchNorm):
            setattr(module, name, statistic)
    outcomes = fusion.fuse(model) if fuse else {}
    if not report:
        return model
    fused = tuple(name for name, reason in outcomes.items() if reason is None)
    unfused = tuple(Unfused(name, reason) for name, reason in outcomes.items() if reason)
    return model, ConversionReport(tuple(changed), tuple(left), fused, unfused)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module, below the one that PyTorch gives it when it is parametrized."""
    cls = type(module)
    return cls.__bases__[0] if is_parametrized(module) else cls


def swap_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Give a module another class; if it is parametrized, below the one that it has for that."""
    if is_parametrized(module):
        # Copies of the module share that class, so it is not changed but made again.
        former = type(module)
        own = {key: value for key, value in vars(former).items() if key != "__weakref__"}
        own.pop("__dict__", None)
        cls = type(former.__name__, (cls,), own)
    module.__class__ = cls


def obstacle(module: nn.Module) -> str | None:
    """What is in the way of another class for a layer that could have one; None if nothing is."""
    if isinstance(module, LazyModuleMixin):
        return "lazy: it has no parameters before its first call"
    if "forward" in vars(module):
        return "a forward function was set on the instance, and would go on calling what it was"
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if any(hasattr(tensor, "device_mesh") for tensor in tensors):
        return "its parameters are sharded (DTensor): convert before sharding"
    return None


def _reason(module: nn.Module, to: str) -> str | None:
    """Why a layer keeps its class; None of what is no normalization, or is what it should be."""
    if is_ours(module):
        if to == "companion" or getattr(module, "running_mean", None) is None:
            return None
        return "PyTorch has no layer that does what it does"
    if to == "companion" and torch_base(plain_class(module)) is nn.SyncBatchNorm:
        return "synchronized over processes, which convert_sync serves"
    return reason_to_leave(module) if to == "companion" else None


def is_ours(module: nn.Module) -> bool:
    """Whether a module is a layer of this package, or has its arithmetic."""
    ours = plain_class(module).__module__.startswith("companion.")
    return ours or isinstance(module, _CompanionBatchNorm)


def reason_to_leave(module: nn.Module) -> str | None:
    """Why no conversion serves a layer that is not ours; None of what is no normalization."""
    cls = plain_class(module)
    known = torch_base(cls) or form_of(cls)
    if not known and not isinstance(getattr(module, "running_mean", None), Tensor):
        return None
    if known and (reason := obstacle(module)):
        return reason
    if isinstance(module, INSTANCE_NORMS):
        return "instance normalization"
    return (
        f"{cls.forward.__module__}.{cls.forward.__qualname__} is not known to be batch "
        "normalization, see register_batch_norm"
    )


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
