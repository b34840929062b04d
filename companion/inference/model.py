"""Folding every batch normalization of a model, found by tracing it with torch.fx."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from companion._torch import tensors_in

from .copying import copy_of
from .frozen import FoldingError, is_normalization
from .graph import fold_graph
from .report import Folded, FoldReport, Kept
from .tracing import Calls, observe, trace

__all__ = ["fold"]

# Of the largest output. Half precision rounds what lies between two layers, float32 hides more.
_TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}


def fold(
    model: nn.Module, example: Tensor | tuple[Any, ...], tolerance: float | None = None
) -> tuple[nn.Module, FoldReport]:
    """Fold every frozen batch normalization of a model into the layer before it, or after it.

    The model is traced with ``torch.fx``. A normalization in evaluation mode whose input is the
    output of a linear or convolution layer, and the only use of it, becomes part of that layer;
    else, one whose output goes to such a layer alone becomes part of that one, where this is exact
    (:func:`fold_into_next`). Residual and ReLU of a fused layer stay, as operations of their own,
    and so do dropout and activation of a layer that has such, as timm's ``BatchNormAct2d``.
    All others stay as they are, and the report says why.

    Parameters
    ----------
    model
        any module; the normalizations of ``torch.nn``, of this package and of other libraries (see
        :func:`companion.register_batch_norm`) in it are folded that are in evaluation mode, or
        frozen; others may train
    example
        its positional arguments, or the one tensor that it takes; its values are not kept
    tolerance
        largest error allowed, relative to the largest output; by default 1e-12 if all outputs are
        float64, 1e-5 for float32, 1e-2 for float16, 5e-2 for bfloat16

    Returns
    -------
    model : nn.Module
        a ``torch.fx.GraphModule`` that takes the arguments of the example, others having their
        default values. A layer ``a.b`` is named ``a_b_folded`` once it is folded, the rest as
        before. `model` is not changed; tensors that autograd computed, such as a cached result, are
        detached in the copy. Branches on ``self.training`` and the like are taken as they
        were when traced.
    report : FoldReport
        :class:`FoldReport`, which prints as text

    Raises
    ------
    TypeError
        `model` is not a module
    FoldingError
        on the example the two models differ by more than `tolerance`; the output holds no
        floating-point tensor to compare; an attribute of the model, such as a lock, cannot be
        copied; code around a part of the model uses more of it than
        calling it, see below

    Notes
    -----
    *Code that cannot be traced*, such as a branch on values, stays as it is: the module whose
    ``forward`` holds it keeps its class, and only what its submodules do on their own is folded,
    each of them traced in turn. That is right however the code around calls them. A submodule whose
    parts are called from elsewhere on the example, or that takes more than tensors, is left alone.
    If elsewhere is only reached on another input, an error names what is missing there.

    *Shared modules.* A layer called twice is folded if the same normalization follows both times,
    and kept otherwise, since each call would need its own copy of the weights. Parameters shared
    between layers are not shared with folded ones.

    References
    ----------
    Eq. (13) mini-batch-algorithm/inference.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU()).eval()
    >>> folded, report = fold(model, torch.randn(2, 3))
    >>> print(report.folded[0])
    1: folded into the previous layer, 0
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    arguments = example if isinstance(example, tuple) else (example,)
    with torch.no_grad():
        expected = _outputs(model, arguments)
        folding = _Folding(model, arguments)
        folded = folding.fold(copy_of(model), "", arguments)
        error = _relative_error(expected, _outputs_of_folded(folded, arguments))
    if tolerance is None:
        tolerance = max(_TOLERANCES[value.dtype] for value in expected)
    if not error <= tolerance:
        raise FoldingError(
            f"example: expected outputs equal to {tolerance:.2g} of the largest, got a difference "
            f"of {error:.2g}"
        )
    return folded, FoldReport(tuple(folding.folded), tuple(folding.kept), error, tolerance)


@dataclass
class _Folding:
    """What was done so far, over all parts of a model, which is not changed."""

    model: nn.Module
    example: tuple[Any, ...]
    folded: list[Folded] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    @cached_property
    def calls(self) -> dict[str, Calls]:
        """How the model calls its parts."""
        return observe(copy_of(self.model), self.example)

    def fold(self, module: nn.Module, path: str, arguments: tuple[Any, ...]) -> nn.Module:
        """Fold in a module, which is changed; the result takes its place."""
        graph, opaque = trace(module, arguments)
        if graph is None:
            self._fold_parts(module, path, opaque[module])
            return module
        done = fold_graph(module, graph, arguments)
        self.folded += [
            Folded(_join(path, f.bn), _join(path, f.layer), f.place) for f in done.folded
        ]
        self.kept += [Kept(_join(path, k.bn), k.reason) for k in done.kept]
        used = [str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")]
        for part, reason in opaque.items():
            name = next(name for name, other in module.named_modules() if other is part)
            inside = [target for target in used if target.startswith(f"{name}.")]
            self._fold_parts(part, _join(path, name), reason, whole=not inside)
        traced = fx.GraphModule(module, graph, type(module).__name__)
        for container in traced.modules():
            # Those that only hold others were made anew.
            if type(container) is nn.Module:
                container.training = module.training
        return traced

    def _fold_parts(self, module: nn.Module, path: str, reason: str, whole: bool = True) -> None:
        """Fold in what a module that cannot be traced consists of, each part on its own.

        Nothing is folded if the parts are not used as a `whole` each: if others read from them.
        """
        for name, part in module.named_children():
            full = _join(path, name)
            calls = self.calls.get(full) if whole else None
            if is_normalization(part):
                self.kept.append(Kept(full, f"called from code that cannot be traced: {reason}"))
            elif not any(is_normalization(m) for m in part.modules()):
                continue
            elif calls is not None and calls.alone:
                before = len(self.folded)
                folded = self.fold(part, full, calls.arguments)
                if len(self.folded) > before:
                    module.add_module(name, folded)
            else:
                self._fold_parts(part, full, reason, whole)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _outputs(model: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Floating-point outputs of a model, which is not changed, with the same random numbers."""
    devices = {value.device for value in model.parameters() if value.is_cuda}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        result = copy_of(model)(*copy_of(arguments, "example"))
    return [value for value in tensors_in(result) if value.is_floating_point()]


def _outputs_of_folded(model: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    try:
        return _outputs(model, arguments)
    except (AttributeError, TypeError) as error:
        raise FoldingError(
            "model: expected code that cannot be traced to do no more with a part than call it, "
            f"got one that fails once it is folded: {error}"
        ) from error


def _relative_error(expected: list[Tensor], outputs: list[Tensor]) -> float:
    """Largest difference over largest value; infinite if only one of the two is not finite."""
    if sum(value.numel() for value in expected) == 0:
        raise FoldingError("example: expected an output with floating-point numbers, got none")
    if [value.shape for value in expected] != [value.shape for value in outputs]:
        return math.inf
    largest = difference = 0.0
    for one, other in zip(expected, outputs, strict=True):
        one, other = one.double(), other.double()
        finite = one.isfinite()
        if not torch.equal(finite, other.isfinite()):
            return math.inf
        one, other = one[finite], other[finite]
        if one.numel() > 0:
            largest = max(largest, float(one.abs().max()))
            difference = max(difference, float((one - other).abs().max()))
    return difference / largest if largest > 0.0 else (math.inf if difference else 0.0)
