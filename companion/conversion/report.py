"""What a change to a whole model did to each layer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["Changed", "ConversionReport", "Left", "Unfused", "class_name"]


@dataclass(frozen=True)
class Changed:
    """A layer that is another one now.

    Parameters
    ----------
    layer
        its name in the model; empty for the model itself
    before, after
        what it was and what it is

    Examples
    --------
    >>> print(Changed("1", "torch.nn.BatchNorm1d", "companion.BatchNorm1d"))
    1: torch.nn.BatchNorm1d is now companion.BatchNorm1d
    """

    layer: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.layer or 'the model'}: {self.before} is now {self.after}"


@dataclass(frozen=True)
class Left:
    """A layer that was left alone, though it keeps running statistics or is related.

    Parameters
    ----------
    layer
        its name in the model; empty for the model itself
    kind
        its class
    reason
        why it was not changed

    Examples
    --------
    >>> print(Left("2", "torch.nn.InstanceNorm2d", "no batch normalization"))
    2: torch.nn.InstanceNorm2d left alone: no batch normalization
    """

    layer: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer or 'the model'}: {self.kind} left alone: {self.reason}"


@dataclass(frozen=True)
class Unfused:
    """A layer that does not run in one pass with a ReLU.

    Parameters
    ----------
    layer
        its name in the model
    reason
        why it does not

    Examples
    --------
    >>> print(Unfused("bn1", "the code returns its output"))
    bn1: not fused: the code returns its output
    """

    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer or 'the model'}: not fused: {self.reason}"


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did to a model; one line each as text.

    Parameters
    ----------
    changed
        the layers that are other ones now, in the order of the model
    left
        the layers that were left alone, and why. Layers that already were what the conversion makes
        are in neither
    fused
        with ``convert(fuse=True)``: the layers that run in one pass with the ReLU after them
    unfused
        those that do not, and why

    Examples
    --------
    >>> from torch import nn
    >>> from companion import convert
    >>> model = nn.Sequential(nn.BatchNorm1d(3), nn.LazyBatchNorm1d())
    >>> model, report = convert(model, report=True)
    >>> print(report)
    0: torch.nn.BatchNorm1d is now companion.BatchNorm1d
    1: torch.nn.LazyBatchNorm1d left alone: lazy: it has no parameters before its first call
    1 changed, 1 left alone
    """

    changed: tuple[Changed, ...]
    left: tuple[Left, ...]
    fused: tuple[str, ...] = ()
    unfused: tuple[Unfused, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.changed)} changed, {len(self.left)} left alone"
        lines = [*map(str, self.changed), *map(str, self.left)]
        if self.fused or self.unfused:
            lines += [f"{layer or 'the model'}: fused with a ReLU" for layer in self.fused]
            lines += map(str, self.unfused)
            counts += f", {len(self.fused)} fused, {len(self.unfused)} not"
        return "\n".join([*lines, counts])


def class_name(cls: type) -> str:
    """The shortest name by which the class can be imported, of those that its module's have."""
    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        if getattr(sys.modules.get(name), cls.__name__, None) is cls:
            return f"{name}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
