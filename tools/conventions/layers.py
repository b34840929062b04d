"""What a probe may ask of a framework's layer, whatever the framework."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Layer(Protocol):
    """One layer with its state, new or loaded, in the layout that the framework takes.

    Parameters
    ----------
    channels
        how many
    momentum, eps
        passed under the framework's own names; None leaves its defaults
    dtype
        of inputs and state: "float32", "float64", or "half", inputs of 16 bits and a state of 32
    """

    names: list[str]
    """Parameters and statistics, in the framework's order."""
    momentum: float
    """As the layer holds it."""
    channels_last: bool

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None: ...

    def train(self, x: Array, mask: Array | None = None) -> Array:
        """One call in training, and whatever makes the running statistics move.

        Raises
        ------
        TypeError
            `mask` is given, and the layer takes none
        """

    def train_alone(self, x: Array) -> None:
        """The call in training, and nothing else that the caller would have to do."""

    def evaluate(self, x: Array) -> Array:
        """The same with the running statistics."""

    def call(self, x: Array) -> Array:
        """A call that says nothing of a mode, of a layer just made."""

    def train_frozen(self, x: Array) -> Array:
        """As `train`, with parameters that the framework was told not to train.

        Raises
        ------
        NotImplementedError
            the layer cannot be told
        """

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        """Set everything that evaluation reads."""


def framework_layout(layer: Layer, x: Array) -> Array:
    """`x`, whose channels are last, as the layer takes it."""
    return x if layer.channels_last or x.ndim == 2 else np.moveaxis(x, -1, 1)


def channels_last(layer: Layer, y: Array) -> Array:
    """What the layer gave, with its channels last."""
    return y if layer.channels_last or y.ndim == 2 else np.moveaxis(y, 1, -1)
