"""What the procedures on whole models share: finding layers, and lending them other statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from companion.statistics.layers import Layer, hooks_are_called, input_moments


def batch_norm_layers(model: nn.Module) -> dict[str, Layer]:
    """The model's batch normalization layers, PyTorch's or this package's, by name."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    if not layers:
        raise ValueError("model: expected at least 1 batch normalization layer, got none")
    return layers


def layers_that_all_track(model: nn.Module) -> list[Layer]:
    """The model's batch normalization layers, all of which must have running statistics."""
    layers = batch_norm_layers(model)
    for name, layer in layers.items():
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError(
                f"model: expected batch normalization layers with running statistics, got "
                f"none in {name or 'the model'!r}"
            )
    return list(layers.values())


@contextmanager
def adopting_statistics(layers: list[Layer], share: float = 1.0) -> Iterator[None]:
    """Before a layer normalizes its input, move its statistics to the input's by `share`.

    The share is taken of the way from the statistics that the layer has when the context begins to
    the mean and biased variance of the input. The tensors that were there are not written to.

    Raises
    ------
    RuntimeError
        at the end, if no layer was called
    """
    with ExitStack() as stack:
        stack.enter_context(hooks_are_called())
        for layer in layers:
            hook = layer.register_forward_pre_hook(_adopting(layer, share), with_kwargs=True)
            stack.callback(hook.remove)
        own = [layer.running_mean for layer in layers]
        yield
    if all(layer.running_mean is mean for layer, mean in zip(layers, own, strict=True)):
        raise RuntimeError(
            "model: expected calls of its batch normalization layers, got none; a model that was "
            "traced or exported has layers of its own: give the one that it was made from"
        )


def _adopting(
    layer: Layer, share: float
) -> Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]:
    own = {name: getattr(layer, name) for name in ("running_mean", "running_var")}

    def adopt(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        moments = input_moments(layer, args, kwargs)
        for (name, former), value in zip(own.items(), (moments.mean, moments.var), strict=True):
            # At 1 without the former value, which may be infinite.
            mixed = value if share == 1.0 else (1.0 - share) * former.to(value) + share * value
            setattr(layer, name, mixed.to(former.dtype))

    return adopt
