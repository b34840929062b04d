"""What became of each batch normalization of a model."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FoldReport", "Folded", "Kept"]


@dataclass(frozen=True)
class Folded:
    """A normalization that is now part of a layer.

    Parameters
    ----------
    bn, layer
        names in the given model
    place
        where the layer stands, ``"previous"`` or ``"next"``

    Examples
    --------
    >>> print(Folded("bn1", "conv1", "previous"))
    bn1: folded into the previous layer, conv1
    """

    bn: str
    layer: str
    place: str

    def __str__(self) -> str:
        return f"{self.bn}: folded into the {self.place} layer, {self.layer}"


@dataclass(frozen=True)
class Kept:
    """A normalization that is still there.

    Parameters
    ----------
    bn
        its name in the given model; that of the node, for one without a layer
    reason
        why it was not folded

    Examples
    --------
    >>> print(Kept("bn1", "in training mode"))
    bn1: kept: in training mode
    """

    bn: str
    reason: str

    def __str__(self) -> str:
        return f"{self.bn}: kept: {self.reason}"


@dataclass(frozen=True)
class FoldReport:
    """What :func:`companion.inference.fold` did; one line each as text.

    Parameters
    ----------
    folded, kept
        one entry for each time that a normalization is called
    relative_error
        largest difference between the outputs of the two models on the example, over the largest
        output
    tolerance
        what it was held against

    Examples
    --------
    >>> print(FoldReport((Folded("1", "0", "previous"),), (), 1e-7, 1e-5))
    1: folded into the previous layer, 0
    relative error on the example: 1e-07 (tolerance 1e-05)
    """

    folded: tuple[Folded, ...]
    kept: tuple[Kept, ...]
    relative_error: float
    tolerance: float

    def __str__(self) -> str:
        verdict = (
            f"relative error on the example: {self.relative_error:.2g} "
            f"(tolerance {self.tolerance:.2g})"
        )
        return "\n".join([*map(str, self.folded), *map(str, self.kept), verdict])
