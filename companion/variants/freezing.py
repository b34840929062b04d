"""``freeze`` and ``unfreeze``: the batch normalization of a model, fixed and set free again."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

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


def freeze(model: nn.Module) -> nn.Module:
    """Swap every batch normalization layer in `model`, in place, for a frozen one.

    A layer remains the same object, with its hooks, its numbers and the keys of its state
    dictionary; its class changes, and its parameters become buffers.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself

    Returns
    -------
    nn.Module
        `model`, the same object. Its output in evaluation mode is what it was; layers that are
        frozen already are left alone. :func:`unfreeze` is the way back.

    Raises
    ------
    TypeError
        `model` is not a module, or a batch normalization layer in it is not one of PyTorch's or
        this package's that are batch normalization at inference: plain, with a ReLU, synchronized,
        ghost, noisy or renormalizing ones. A layer left out would go on learning
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
        (module, _frozen_class(module, repr(name) if name else "the model"))
        for name, module in model.named_modules()
        if isinstance(module, Layer | _DecorrelatedBatchNorm)
    ]
    for layer, frozen in layers:
        _freeze(layer, frozen)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Give every layer in `model` that :func:`freeze` changed its class back, in place.

    Its buffers become parameters again, and its statistics move again in training. What has changed
    in the meantime, by a state dictionary or by hand, stays changed.

    Parameters
    ----------
    model
        any module; may be a frozen layer itself

    Returns
    -------
    nn.Module
        `model`, the same object. Layers that were made as frozen ones have no former class, and
        stay frozen.

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
    for module in model.modules():
        if isinstance(module, _FrozenBatchNorm) and module.former is not None:
            _unfreeze(module, module.former)
    return model


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _frozen_class(layer: Layer | _DecorrelatedBatchNorm, where: str) -> type[_FrozenBatchNorm]:
    """The class that does what `layer` does at inference, or the error that says why none does."""
    former: type[nn.Module] = type(layer)
    if parametrize.is_parametrized(layer):
        former = former.__bases__[0]
    if former not in _FROZEN:
        raise TypeError(
            "model: expected batch normalization at inference, PyTorch's or this package's plain, "
            "fused, synchronized, ghost, noisy or renormalizing layers, got "
            f"{former.__name__} in {where}"
        )
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"model: expected layers with running statistics, got none in {where}")
    others = [name for name, _ in layer.named_parameters() if name not in _PARAMETERS]
    if others:
        raise ValueError(
            f"model: expected layers whose parameters are weight and bias, got {others[0]!r} in "
            f"{where}: remove parametrizations and pruning first"
        )
    return _FROZEN[former]


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


def _unfreeze(layer: nn.Module, former: Former) -> None:
    del layer.former
    for name in _PARAMETERS:
        value, parameter = getattr(layer, name), getattr(former, name)
        delattr(layer, name)
        if parameter is not None:
            # The frozen layer may have been moved, or converted.
            parameter.data, parameter.grad = value.clone(), None
        layer.register_parameter(name, parameter)
    layer.__class__ = former.cls
