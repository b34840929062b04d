"""Copies of models that also hold what PyTorch does not copy: tensors of a graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn

from .frozen import FoldingError

__all__ = ["copy_of"]

_T = TypeVar("_T")
# What a deep copy shares with the original.
_NOT_COPIED = (type, FunctionType, ModuleType)


def copy_of(value: _T, name: str = "model") -> _T:
    """A deep copy, in which tensors that autograd computed are detached.

    A cached result, or the weight that ``torch.nn.utils.weight_norm`` leaves behind, belongs to the
    graph of the original; the copy keeps its values.

    Parameters
    ----------
    value
        a module, or arguments of one
    name
        what errors call it

    Raises
    ------
    FoldingError
        something in it cannot be copied, such as a lock; the message names the attribute
    """
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in _computed(value)}
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        where = _culprit(value) if isinstance(value, nn.Module) else f"a {type(value).__name__}"
        raise FoldingError(
            f"{name}: expected what can be copied, got {where}, which cannot: {error}"
        ) from error


def _computed(value: Any) -> Iterator[Tensor]:
    """Tensors with a graph, in whatever holds them: modules, containers, other objects."""
    inner, seen = [value], {}
    while inner:
        value = inner.pop()
        if id(value) in seen or isinstance(value, _NOT_COPIED):
            continue
        # Kept, so that no other object gets its number.
        seen[id(value)] = value
        if isinstance(value, Tensor) and value.grad_fn is not None:
            yield value
        if isinstance(value, Mapping):
            inner += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner += value
        inner += getattr(value, "__dict__", {}).values()


def _culprit(model: nn.Module) -> str:
    """The innermost attribute that cannot be copied, in words."""
    # The innermost modules first.
    for path, module in reversed(list(model.named_modules())):
        place = f"{path!r}, {type(module).__name__}" if path else "the model"
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            held = value if attribute in ("_parameters", "_buffers") else {attribute: value}
            for name, one in held.items():
                if not _copies(one):
                    return f"{name!r} of {place}, a {type(one).__name__}"
        if not _copies(module):
            return place
    return "the model"


def _copies(value: Any) -> bool:
    try:
        copy.deepcopy(value, {id(t): t.detach() for t in _computed(value)})
    except Exception:
        return False
    return True
