"""``convert_sync``: the batch normalization of a model, synchronized over processes."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import nn

from companion.conversion.recognition import form_of, torch_base
from companion.conversion.report import Changed, ConversionReport, Left, class_name
from companion.conversion.swap import (
    described,
    is_ours,
    obstacle,
    plain_class,
    reason_to_leave,
    swap_class,
)
from companion.fused import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm
from companion.synchronization import channels

from .synchronized import SyncBatchNorm, SyncBatchNormAct, _SyncBatchNorm

__all__ = ["convert_sync"]

_PLAIN = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(BatchNorm1d, BatchNorm2d, BatchNorm3d),
)
_SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    **dict.fromkeys(_PLAIN, SyncBatchNorm),
    **dict.fromkeys((BatchNormAct1d, BatchNormAct2d, BatchNormAct3d), SyncBatchNormAct),
}


@overload
def convert_sync(
    model: nn.Module, process_group: Any = ..., *, report: Literal[False] = ...
) -> nn.Module: ...


@overload
def convert_sync(
    model: nn.Module, process_group: Any = ..., *, report: Literal[True]
) -> tuple[nn.Module, ConversionReport]: ...


def convert_sync(
    model: nn.Module, process_group: Any = None, *, report: bool = False
) -> nn.Module | tuple[nn.Module, ConversionReport]:
    """Make every batch normalization layer of `model`, in place, a synchronized one.

    Only the class of a layer changes, as with :func:`companion.convert`: it remains the same
    object, with its parameters, buffers, hooks, mode and attributes. Each gets its name in the
    model, by which errors call it.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    process_group
        the processes; None: all, where a layer is not synchronized in a group already
    report
        whether to say what was done

    Returns
    -------
    model : nn.Module
        `model`, the same object. A :class:`SyncBatchNorm` becomes of this package's and PyTorch's
        ``BatchNorm1d``, ``2d`` and ``3d``, of ``torch.nn.SyncBatchNorm``, and of other libraries'
        layers that :func:`companion.convert` serves, whose submodules it goes on calling; a
        :class:`SyncBatchNormAct` of this package's with a ReLU. ``companion.convert`` is the way
        back. Left alone are other variants, lazy layers, and subclasses with a ``forward`` of their
        own, which would be lost.
    report : ConversionReport
        only if asked for: the layers that were changed, and those that were left alone, with the
        reason

    Raises
    ------
    TypeError
        `model` is not a module, or `process_group` no process group
    ValueError
        this process does not belong to `process_group`

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> type(convert_sync(model)[1]), model[1].name
    (<class 'companion.variants.synchronized.SyncBatchNorm'>, '1')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    channels.name_of(process_group)
    changed: list[Changed] = []
    left: list[Left] = []
    for name, module in model.named_modules():
        if isinstance(module, _SyncBatchNorm):
            if process_group is not None:
                module._join(process_group)
            continue
        former, before = plain_class(module), described(module, plain_class(module))
        synchronized = _synchronized_class(former)
        if synchronized is None or obstacle(module) is not None:
            if (reason := _reason(module)) is not None:
                left.append(Left(name, class_name(former), reason))
            continue
        swap_class(module, synchronized)
        assert isinstance(module, _SyncBatchNorm)
        module.local_class, module.name = former, name
        if (form := form_of(former)) is not None and form.then:
            module.then = form.then
        module._join(process_group or module.process_group)
        changed.append(Changed(name, before, described(module, plain_class(module))))
    return (model, ConversionReport(tuple(changed), tuple(left))) if report else model


def _synchronized_class(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class that synchronizes what `cls` computes; None if none does."""
    if cls in _SYNCHRONIZED:
        return _SYNCHRONIZED[cls]
    form = form_of(cls)
    served = form is not None and not form.own and not form.frozen and torch_base(cls) is not None
    return SyncBatchNorm if served else None


def _reason(module: nn.Module) -> str | None:
    """Why a layer is not synchronized; None of what keeps no statistics of batches."""
    form = form_of(plain_class(module))
    if form is not None and form.frozen:
        return None
    if form is not None and form.own:
        return "what its own forward does around the normalization would be lost"
    if isinstance(module, _CompanionBatchNorm):
        return "no synchronized layer does what it does"
    return None if is_ours(module) else reason_to_leave(module)
