"""Exporting with PyTorch's own batch normalization, one operator that every format has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from companion.modules import _CompanionBatchNorm
from companion.variants.frozen import _FrozenBatchNorm

__all__ = ["torch_operators"]


@contextmanager
def torch_operators(model: nn.Module) -> Iterator[nn.Module]:
    """Let every batch normalization of this package compute by PyTorch's operator, for a while.

    These layers export as the arithmetic that they are: a subtraction, a multiplication and an
    addition each, in evaluation mode. The values are right, but runtimes that look for batch
    normalization, to fold it into a convolution say, do not find any. Inside this context each is
    one ``aten.batch_norm``, and ONNX's ``BatchNormalization``.

    Parameters
    ----------
    model
        any module. Its layers have ``backend="torch"`` inside the context, and afterwards what they
        had before. Fused and frozen layers are served too, for which ``companion.convert`` has no
        counterpart.

    Raises
    ------
    TypeError
        `model` is not a module

    Examples
    --------
    >>> import companion, torch
    >>> model = companion.BatchNormAct1d(3).eval()
    >>> with torch_operators(model):
    ...     program = torch.export.export(model, (torch.randn(2, 3),))
    >>> [n.target.__name__ for n in program.graph.nodes if n.op == "call_function"]
    ['batch_norm.default', 'relu.default']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _CompanionBatchNorm | _FrozenBatchNorm)
    ]
    former = [vars(layer).get("backend") for layer in layers]
    for layer in layers:
        layer.backend = "torch"
    try:
        yield model
    finally:
        for layer, backend in zip(layers, former, strict=True):
            # A converted layer has the class's default and nothing of its own.
            if backend is None:
                del layer.backend
            else:
                layer.backend = backend
