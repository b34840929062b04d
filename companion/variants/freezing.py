"""``freeze`` and ``unfreeze``: the batch normalization of a model, fixed and set free again."""

from __future__ import annotations

from typing import Literal, overload

from torch import nn

from companion.conversion.recognition import PLAIN, form_of, torch_base, what_follows
from companion.conversion.report import Changed, ConversionReport, Left, class_name
from companion.conversion.swap import described, is_ours, obstacle, plain_class, reason_to_leave
from companion.fused import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d
from companion.statistics.layers import Layer

from .decorrelated import _DecorrelatedBatchNorm
from .frozen import (
    Former,
    FrozenBatchNorm,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    FrozenBatchNorm3d,
    _FrozenBatchNorm,
)
from .ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from .noisy import NoisyBatchNorm1d, NoisyBatchNorm2d, NoisyBatchNorm3d
from .renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from .synchronized import SyncBatchNorm, SyncBatchNormAct

__all__ = ["freeze", "unfreeze"]

# What is batch normalization at inference, a residual and a ReLU aside.
_SOURCES: dict[type[_FrozenBatchNorm], tuple[type[nn.Module], ...]] = {
    FrozenBatchNorm1d: (
        *(nn.BatchNorm1d, BatchNorm1d, BatchNormAct1d),
        *(GhostBatchNorm1d, NoisyBatchNorm1d, BatchRenorm1d),
    ),
    FrozenBatchNorm2d: (
        *(nn.BatchNorm2d, BatchNorm2d, BatchNormAct2d),
        *(GhostBatchNorm2d, NoisyBatchNorm2d, BatchRenorm2d),
    ),
    FrozenBatchNorm3d: (
        *(nn.BatchNorm3d, BatchNorm3d, BatchNormAct3d),
        *(GhostBatchNorm3d, NoisyBatchNorm3d, BatchRenorm3d),
    ),
    FrozenBatchNorm: (nn.SyncBatchNorm, SyncBatchNorm, SyncBatchNormAct),
}
_FROZEN = {source: frozen for frozen, sources in _SOURCES.items() for source in sources}
_PARAMETERS = ("weight", "bias")


@overload
def freeze(model: nn.Module, *, report: Literal[False] = ...) -> nn.Module: ...


@overload
def freeze(model: nn.Module, *, report: Literal[True]) -> tuple[nn.Module, ConversionReport]: ...


def freeze(
    model: nn.Module, *, report: bool = False
) -> nn.Module | tuple[nn.Module, ConversionReport]:
    """Swap every batch normalization layer in `model`, in place, for a frozen one.

    A layer remains the same object, with its hooks, its numbers and the keys of its state
    dictionary; its class changes, and its parameters become buffers.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    report
        whether to say what was done

    Returns
    -------
    model : nn.Module
        `model`, the same object. Its output in evaluation mode is what it was; layers that are
        frozen already are left alone. :func:`unfreeze` is the way back.
    report : ConversionReport
        only if asked for: the layers that were frozen, and those that keep running statistics and
        were left alone, with the reason

    Raises
    ------
    TypeError
        `model` is not a module, or a batch normalization layer in it is not one that is batch
        normalization at inference: PyTorch's, this package's plain, with a ReLU, synchronized,
        ghost, noisy or renormalizing ones, and other libraries' layers that
        :func:`companion.convert_sync` serves. A layer left out would go on learning
    ValueError
        a layer keeps no running statistics, or has other parameters than weight and bias, as
        parametrizations and pruning give it: they would go on learning

    Notes
    -----
    Nothing is changed then.

    An optimizer made before keeps the former parameters, without effect on the model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> freeze(model).train()[1]
    FrozenBatchNorm1d(4, eps=1e-05, affine=True)
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias']
    """
    _check_model(model)
    layers = [
        (name, module, _frozen_class(module, repr(name) if name else "the model"))
        for name, module in model.named_modules()
        if isinstance(module, Layer | _DecorrelatedBatchNorm)
    ]
    changed = []
    for name, layer, frozen in layers:
        before = described(layer, plain_class(layer))
        _freeze(layer, frozen)
        changed.append(Changed(name, before, class_name(frozen)))
    if not report:
        return model
    left = [
        Left(name, class_name(type(module)), reason)
        for name, module in model.named_modules()
        if not is_ours(module) and (reason := _reason_not_to_freeze(module)) is not None
    ]
    return model, ConversionReport(tuple(changed), tuple(left))


def _reason_not_to_freeze(module: nn.Module) -> str | None:
    form = form_of(type(module))
    return "frozen already" if form is not None and form.frozen else reason_to_leave(module)


@overload
def unfreeze(model: nn.Module, *, report: Literal[False] = ...) -> nn.Module: ...


@overload
def unfreeze(model: nn.Module, *, report: Literal[True]) -> tuple[nn.Module, ConversionReport]: ...


def unfreeze(
    model: nn.Module, *, report: bool = False
) -> nn.Module | tuple[nn.Module, ConversionReport]:
    """Give every layer in `model` that :func:`freeze` changed its class back, in place.

    Its buffers become parameters again, and its statistics move again in training. What has changed
    in the meantime, by a state dictionary or by hand, stays changed.

    Parameters
    ----------
    model
        any module; may be a frozen layer itself
    report
        whether to say what was done

    Returns
    -------
    model : nn.Module
        `model`, the same object. Layers that were made as frozen ones have no former class, and
        stay frozen.
    report : ConversionReport
        only if asked for: the layers that have their class back, and those that stay frozen, with
        the reason

    Raises
    ------
    TypeError
        `model` is not a module

    Notes
    -----
    The parameters are the objects that they were before, with their former ``requires_grad`` and
    the values that the frozen layer holds, without gradients: an optimizer that was made before
    :func:`freeze` goes on with them, as does one that is made afterwards. Copies of a frozen layer,
    by ``copy.deepcopy`` or from a pickle, have parameters of their own.

    The layer is in the mode of the frozen one: call ``model.train()`` or ``model.eval()`` as ever.

    Examples
    --------
    >>> model = freeze(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()))
    >>> type(unfreeze(model)[1])
    <class 'torch.nn.modules.batchnorm.BatchNorm1d'>
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    _check_model(model)
    changed, left = [], []
    for name, module in model.named_modules():
        before = class_name(type(module))
        if isinstance(module, _FrozenBatchNorm) and module.former is not None:
            _unfreeze(module, module.former)
            changed.append(Changed(name, before, described(module, plain_class(module))))
        elif isinstance(module, _FrozenBatchNorm) or (form_of(type(module)) or PLAIN).frozen:
            left.append(Left(name, before, "made as a frozen layer, it has no former class"))
    return (model, ConversionReport(tuple(changed), tuple(left))) if report else model


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _frozen_class(layer: Layer | _DecorrelatedBatchNorm, where: str) -> type[_FrozenBatchNorm]:
    """The class that does what `layer` does at inference, or the error that says why none does."""
    former = plain_class(layer)
    form = form_of(former)
    if former in _FROZEN:
        frozen = _FROZEN[former]
    elif form is not None and not form.own and obstacle(layer) is None:
        frozen = _FROZEN.get(torch_base(former) or former, FrozenBatchNorm)
    else:
        raise TypeError(
            "model: expected batch normalization at inference, PyTorch's, this package's plain, "
            "fused, synchronized, ghost, noisy or renormalizing layers, or one that "
            f"register_batch_norm knows, got {former.__name__} in {where}"
        )
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"model: expected layers with running statistics, got none in {where}")
    parts = tuple(f"{name}." for name in what_follows(layer))
    others = [
        name
        for name, _ in layer.named_parameters()
        if name not in _PARAMETERS and not name.startswith(parts)
    ]
    if others:
        raise ValueError(
            f"model: expected layers whose parameters are weight and bias, got {others[0]!r} in "
            f"{where}: remove parametrizations and pruning first"
        )
    return frozen


def _freeze(layer: nn.Module, frozen: type[_FrozenBatchNorm]) -> None:
    former = Former(type(layer), *(getattr(layer, name) for name in _PARAMETERS))
    for name in _PARAMETERS:
        value = getattr(layer, name)
        delattr(layer, name)
        # A copy: an optimizer may hold the parameter, with a gradient still to be applied.
        layer.register_buffer(name, None if value is None else value.detach().clone())
    layer.__class__ = frozen
    assert isinstance(layer, _FrozenBatchNorm)
    layer.former = former
    form = form_of(former.cls)
    if form is not None and form.then:
        layer.then = form.then


def _unfreeze(layer: nn.Module, former: Former) -> None:
    del layer.former
    if form_of(former.cls) is not None:
        vars(layer).pop("then", None)
    for name in _PARAMETERS:
        value, parameter = getattr(layer, name), getattr(former, name)
        delattr(layer, name)
        if parameter is not None:
            # The frozen layer may have been moved, or converted.
            parameter.data, parameter.grad = value.clone(), None
        layer.register_parameter(name, parameter)
    layer.__class__ = former.cls
