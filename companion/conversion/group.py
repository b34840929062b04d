"""Batch normalization replaced by group normalization, in whole models.

Source: Wu & He (2018), arXiv:1803.08494.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Literal, overload

from torch import Tensor, nn
from torch.nn import functional as F

from companion.modules import _CompanionBatchNorm
from companion.variants.group import GroupNorm

from .recognition import INSTANCE_NORMS, following, form_of, torch_base
from .report import Changed, ConversionReport, Left, class_name
from .swap import obstacle, plain_class, swap_class

__all__ = ["independence", "normalizes_batches", "to_group_norm"]

# What batch normalization has and group normalization has not.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_ATTRIBUTES = ("momentum", "track_running_stats", "skip_nonfinite", "backend")
_OF_PROCESSES = ("process_group", "check", "name", "number", "local_class")
_MOST_GROUPS, _LEAST_CHANNELS = 32, 16


class _GroupNormThen(GroupNorm):
    """Group normalization, and what the layer did after normalizing."""

    # Not as a submodule of the layer may be called.
    _relu: bool = False
    _then: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        """The layer's text, and what follows."""
        return ", then ".join([super().extra_repr(), *self.what_follows()])

    def what_follows(self) -> list[str]:
        """What is called after normalizing, by name."""
        relu = ["relu"] if self._relu else []
        return relu + [name for name, _ in following(self, self._then)]

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input`, add `residual`, apply the ReLU, and call what follows."""
        y = super().forward(input)
        if residual is not None:
            y = y + residual
        if self._relu:
            y = F.relu(y)
        for _, part in following(self, self._then):
            y = part(y)
        return y


@overload
def to_group_norm(
    model: nn.Module,
    num_groups: int | Callable[[int], int] | None = ...,
    *,
    report: Literal[False] = ...,
) -> nn.Module: ...


@overload
def to_group_norm(
    model: nn.Module,
    num_groups: int | Callable[[int], int] | None = ...,
    *,
    report: Literal[True],
) -> tuple[nn.Module, ConversionReport]: ...


def to_group_norm(
    model: nn.Module,
    num_groups: int | Callable[[int], int] | None = None,
    *,
    report: bool = False,
) -> nn.Module | tuple[nn.Module, ConversionReport]:
    """Make every batch normalization layer of `model`, in place, a group normalization.

    For batches of one, and for training with differential privacy, which clips the gradient of each
    example: in a batch normalization no example has a gradient of its own. A layer remains the same
    object, with its hooks, its mode, and the same weight and bias, so that optimizers keep working.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself
    num_groups
        G, a divisor of the number of channels C of every layer, or a function that gives it for C.
        By default the largest divisor up to 32 that leaves at least 16 channels in a group; with
        fewer than 32 channels there is one group
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
        `model` is not a module; `num_groups` or what it returns is no integer; a layer depends on
        the batch and cannot be replaced (it takes a mask, has a ``forward`` that is not known, or
        whitens; is lazy, sharded, or computes in a ``forward`` of its own around batch
        normalization): left alone, it would go on mixing examples
    ValueError
        `num_groups` does not divide the channels of a layer; a layer's ε is not positive

    Notes
    -----
    After an error nothing is changed.

    *Another function.* The model computes something else, in training and in evaluation, and has to
    be trained, or trained again: a weight and bias learned behind one normalization are no more
    than a start behind the other. The output for an example no longer depends on the rest of its
    batch, nor on the mode. Both normalizations are the same in one case: as many groups as
    channels, in training, on a batch of one example.

    *State.* Running statistics and counts are gone, and so are their keys in the state dictionary;
    those of weight and bias stay. Load checkpoints before, or with ``strict=False``. ε stays.

    *Which layers.* PyTorch's, synchronized ones too, this package's, and subclasses of other
    libraries as in :func:`companion.convert`. The residual and the ReLU of
    :class:`companion.BatchNormAct2d` and the submodules that timm's layers call afterwards stay.
    Frozen layers do not depend on the batch, and are left alone, as is instance normalization.

    *Few values.* A group of one value is refused when the layer is called, since it would become 0:
    so are inputs ``(N, C)`` with as many groups as channels, which other tools choose for C up to
    32 (answers meta-pytorch/opacus#567). In groups of two values hardly more than a sign is left.

    References
    ----------
    Wu & He (2018), arXiv:1803.08494, with 32 groups and with 16 channels in a group.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    >>> to_group_norm(model)[1].num_groups
    4
    >>> model, report = to_group_norm(nn.Sequential(nn.BatchNorm1d(6)), num_groups=2, report=True)
    >>> print(report.changed[0])
    0: torch.nn.BatchNorm1d is now companion.variants.GroupNorm, 2 groups
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    plans: dict[str, tuple[nn.Module, int, tuple[str, ...]]] = {}
    left: list[Left] = []
    for name, module in model.named_modules():
        reason = independence(module)
        if reason is not None:
            left.append(Left(name, class_name(plain_class(module)), reason))
        elif normalizes_batches(module):
            then = _checked_layer(name, module)
            plans[name] = module, _groups(name, module, num_groups), then
    changed = []
    for name, (layer, groups, then) in plans.items():
        before = class_name(plain_class(layer))
        after = _become(layer, groups, then)
        changed.append(Changed(name, before, after))
    return (model, ConversionReport(tuple(changed), tuple(left))) if report else model


def independence(module: nn.Module) -> str | None:
    """Why a related layer may stay: it does not depend on the batch."""
    cls = plain_class(module)
    form = form_of(cls)
    ours = cls.__module__.startswith("companion.") and "running_mean" in module._buffers
    if (form and form.frozen) or (ours and not hasattr(module, "reset_running_stats")):
        return "frozen"
    if isinstance(module, INSTANCE_NORMS) and module.running_mean is not None:
        return "instance normalization"
    return None


def normalizes_batches(module: nn.Module) -> bool:
    """Whether it is batch normalization, known or not: whatever has running statistics."""
    related = isinstance(module, _CompanionBatchNorm) or torch_base(plain_class(module)) is not None
    return related or ("running_mean" in module._buffers and not isinstance(module, INSTANCE_NORMS))


def _checked_layer(path: str, layer: nn.Module) -> tuple[str, ...]:
    """What the layer calls after normalizing, if a group normalization can take its place."""
    cls = plain_class(layer)
    form = form_of(cls)
    arguments = set(inspect.signature(cls.forward).parameters) - {"self"}
    reason = obstacle(layer)
    if reason is None and form is None and not isinstance(layer, _CompanionBatchNorm):
        reason = "it is not known to be batch normalization, see register_batch_norm"
    elif reason is None and form and form.own:
        reason = "its forward function calls that of batch normalization"
    elif reason is None and form is None and arguments - {"input", "residual"}:
        reason = f"it takes {', '.join(sorted(arguments - {'input'}))}"
    if reason is not None:
        raise TypeError(
            f"model: expected layers that a group normalization can replace, got {class_name(cls)} "
            f"in {path or 'the model'!r}: {reason}"
        )
    eps: Any = layer.eps
    if not eps > 0.0:
        raise ValueError(f"model: expected ε above 0, got {eps} in {path or 'the model'!r}")
    return form.then if form else ()


def _groups(path: str, layer: Any, num_groups: int | Callable[[int], int] | None) -> int:
    channels = layer.num_features
    if num_groups is None:
        most = min(_MOST_GROUPS, channels // _LEAST_CHANNELS)
        return next((groups for groups in range(most, 0, -1) if channels % groups == 0), 1)
    given = num_groups(channels) if callable(num_groups) else num_groups
    try:
        groups = operator.index(given)
    except TypeError:
        raise TypeError(
            f"num_groups: expected an integer, or a function that returns one, got {given!r}"
        ) from None
    if groups < 1 or channels % groups:
        raise ValueError(
            f"num_groups: expected a divisor of the {channels} channels of "
            f"{path or 'the model'!r}, got {groups}"
        )
    return groups


def _become(layer: Any, num_groups: int, then: tuple[str, ...]) -> str:
    """Make the layer a group normalization, and say what it is now."""
    relu = getattr(layer, "relu", False) is True
    residual = "residual" in inspect.signature(plain_class(layer).forward).parameters
    for name in _BUFFERS:
        if name in layer._buffers:
            delattr(layer, name)
    for name in (*_ATTRIBUTES, *(_OF_PROCESSES if hasattr(layer, "process_group") else ())):
        vars(layer).pop(name, None)
    layer.num_groups, layer.num_channels = num_groups, layer.num_features
    text = f"{class_name(GroupNorm)}, {num_groups} group" + "s" * (num_groups > 1)
    if not (residual or list(following(layer, then))):
        swap_class(layer, GroupNorm)
        return text
    swap_class(layer, _GroupNormThen)
    layer._relu, layer._then = relu, then
    return ", then ".join([text, *layer.what_follows()])
