"""Errors of ours and of PyTorch's against the float64 oracle."""

from __future__ import annotations

import math

import numpy as np
import torch

from companion import reference

from .document import ErrorRecord, OutputError
from .operations import Layer, Tensors
from .suite import Case

# Values that the oracle, which is slow, is given: more would take longer than the timing.
_MOST_VALUES = 2**22


def checked_channels(C: int, m: int, most_values: int = _MOST_VALUES) -> range:
    """All channels, or evenly spaced ones that have about `most_values` values; at least one."""
    count = min(C, max(1, most_values // m))
    return range(0, C, -(-C // count))


def errors(case: Case, layers: dict[str, Layer], given: Tensors) -> ErrorRecord:
    """Compare output and gradient of the input, in training, with the oracle's.

    A channel's output depends on that channel alone, so that some channels can be checked without
    the others.
    """
    some = checked_channels(case.shape[1], case.m)

    def array(tensor: torch.Tensor, axis: int = 1) -> reference.Array:
        chosen = tensor.detach().movedim(axis, 0)[:: some.step]
        return chosen.movedim(0, axis).to(torch.float64).cpu().numpy()

    layer = layers["ours"]
    batch = reference.forward(array(given.x), array(layer.weight, 0), array(layer.bias, 0))
    grads = reference.backward(array(given.grad_y), batch)
    relative_errors: dict[str, dict[str, float | None]] = {"y": {}, "grad_x": {}}
    for name in ("ours", "torch"):
        y = layers[name].train(given.x)
        (grad_x,) = torch.autograd.grad(y, given.x, given.grad_y)
        relative_errors["y"][name] = relative_error(array(y), batch.y)
        relative_errors["grad_x"][name] = relative_error(array(grad_x), grads.x)
    return ErrorRecord(
        y=OutputError(ours=relative_errors["y"]["ours"], torch=relative_errors["y"]["torch"]),
        grad_x=OutputError(
            ours=relative_errors["grad_x"]["ours"], torch=relative_errors["grad_x"]["torch"]
        ),
        channels=len(some),
    )


def relative_error(value: reference.Array, exact: reference.Array) -> float | None:
    """max |value - exact| / max |exact|; None if that is not a finite number."""
    error = float(np.abs(value - exact).max() / np.abs(exact).max())
    return error if math.isfinite(error) else None
