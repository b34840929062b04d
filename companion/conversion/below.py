"""Classes made below another library's: its layers, with this package's arithmetic.

A layer that is converted keeps its place among the other library's classes, as a parametrized layer
does in PyTorch: its new class is below its own. So ``isinstance``, its methods and attributes,
and its state dictionary stay.
"""

from __future__ import annotations

import copyreg
from functools import cache
from typing import Any, ClassVar

from torch import Tensor, nn

from companion._torch import BatchNormBase, StandIn, called_by_tracer, has_hooks
from companion.functional import batch_norm, batch_norm_act, dispatch
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm

from .recognition import Form, following, form_of, torch_base
from .report import class_name

__all__ = ["OURS", "companion_class", "described", "origin"]

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}


class _AnyRank(_CompanionBatchNorm, BatchNormBase):
    """For classes that are below the base of PyTorch's three, and see to the rank themselves."""


class _MadeType(type):
    """The type of the classes that are made here, by which pickle knows how to make them again."""


class _Made(nn.Module, metaclass=_MadeType):
    """What all classes of this file have in common."""

    form: ClassVar[Form]
    # The class that a layer had.
    origin: ClassVar[type[nn.Module]]


class _Then(_Made):
    """Batch normalization, then submodules."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """Normalize `input`, as BatchNorm2d, and call what follows; a ReLU in the same pass."""
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        parts = [part for _, part in following(self, self.form.then)]
        relu = len(parts) > 0 and type(parts[0]) is nn.ReLU and not has_hooks(parts[0])
        y = dispatch(batch_norm_act, self._arguments(input, None, relu), self.backend)
        for part in parts[relu:]:
            y = part(y)
        return y


class _FrozenThen(_Made):
    """Batch normalization with running statistics in every mode, then submodules."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """Normalize `input` with the layer's statistics, and call what follows."""
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        y = batch_norm(
            *(input, self.running_mean, self.running_var, self.weight, self.bias), eps=self.eps
        )
        for _, part in following(self, self.form.then):
            y = part(y)
        return y


def companion_class(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class with this package's arithmetic that layers of `cls` become; None if there is none.

    PyTorch's three become this package's three; below other classes one is made.
    """
    if cls in OURS:
        return OURS[cls]
    form = form_of(cls)
    ours = issubclass(cls, (_CompanionBatchNorm, _Made))
    if form is None or ours or issubclass(cls, nn.SyncBatchNorm):
        return None
    make: Any = _made
    return make(cls, form)


@cache
def _made(cls: type[nn.Module], form: Form) -> type[nn.Module]:
    if form.frozen:
        bases: tuple[type, ...] = (_FrozenThen, cls)
    else:
        # Before PyTorch's class, whose place ours takes, and behind theirs.
        bases = (_Then if form.then else _Made, cls, OURS.get(torch_base(cls) or cls, _AnyRank))
    own: dict[str, Any] = {"form": form, "origin": cls}
    if form.eps is not None and not hasattr(cls, "eps"):
        own["eps"] = form.eps
    own |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    kind: Any = type(cls)
    return _metaclass(kind)(cls.__name__, bases, own)


@cache
def _metaclass(theirs: Any) -> Any:
    """The type of classes that are made below one of this type."""
    kind: Any = _MadeType if theirs is type else type("_MadeType", (_MadeType, theirs), {})
    # A class that has no name to be found by is pickled as the one that it was made below.
    copyreg.pickle(kind, lambda cls: (companion_class, (cls.origin,)))
    return kind


def origin(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class, not of this package, whose layers became those of `cls`; None if none did."""
    theirs = next((theirs for theirs, ours in OURS.items() if ours is cls), None)
    return cls.origin if issubclass(cls, _Made) and "origin" in vars(cls) else theirs


def described(module: nn.Module, cls: Any) -> str:
    """What a report calls the class of a module: by its name, one made here by what it does."""
    if not (issubclass(cls, _Made) and "origin" in vars(cls)):
        return class_name(cls)
    ours = OURS.get(torch_base(cls) or cls)
    text = class_name(ours) if ours else "companion.functional.batch_norm"
    text += ", frozen" if cls.form.frozen else ""
    text += ", called by its own forward" if cls.form.own else ""
    return ", then ".join([text, *(name for name, _ in following(module, cls.form.then))])
