"""What a layer does in its life, and where two lives differ."""

from __future__ import annotations

import re
from typing import Any

import torch
from _ways import Side, Way
from torch import Tensor, nn

Outcome = dict[str, Any] | Exception


def outcome(side: Side, way: Way) -> Outcome:
    """What becomes of a layer that is made or changed in some way; or why there is none."""
    try:
        layer = way(side)
    except Exception as error:
        return error
    return life(layer, side)


def life(layer: nn.Module, side: Side) -> dict[str, Any]:
    """Outputs, gradients and state of three steps of training and one of evaluation."""
    weight = getattr(getattr(layer, "layer", layer), "weight", None)
    channels = len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else None
    tensors = [v for v in (*layer.parameters(), *layer.buffers()) if v.is_floating_point()]
    dtype = tensors[0].dtype if tensors else torch.float32
    seen: dict[str, Any] = {}
    for seed, (step, mode) in enumerate(
        {"as it is": None, "training": True, "training again": True, "evaluation": False}.items()
    ):
        if mode is not None:
            layer.train(mode)
        x = side.batch(seed, channels, dtype=dtype).requires_grad_()
        seen[step] = results(layer, x, lambda x: x)
    seen["state"] = {key: value.clone() for key, value in layer.state_dict().items()}
    seen["versions"] = dict(layer.state_dict()._metadata)
    seen["parameters"] = [name for name, _ in layer.named_parameters()]
    seen["buffers"] = [name for name, _ in layer.named_buffers()]
    return seen


def results(layer: nn.Module, x: Tensor, prepare: Any) -> Any:
    """Output and gradients; or an error, after which the state is what it was."""
    layer.zero_grad()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    refusing = True
    try:
        y = layer(prepare(x))
        refusing = False
        if y.is_meta:
            return tuple(y.shape)
        seen = [y.detach().clone(), y.requires_grad, type(y)]
        if y.requires_grad:
            # In float32, since a half-precision loss has noise of its own.
            (y.float().sin() * y.float()).sum().backward()
            gradients = [x.grad, *(parameter.grad for parameter in layer.parameters())]
            # Of the output's type, whose rounding they have.
            seen += [g if g is None else g.to(y.dtype, copy=True) for g in gradients]
        return seen
    except Exception as error:
        after = layer.state_dict()
        moved = [key for key, value in before.items() if not same_bits(value, after[key])]
        return Refused(error, moved if refusing else [])


class Refused(Exception):
    """An error, and what of the state had changed when it came."""

    def __init__(self, error: Exception, moved: list[str]) -> None:
        super().__init__(str(error))
        self.moved = moved


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.is_meta or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Where two outcomes differ, in words; None if nowhere.

    Both may be errors: then ours is a sentence, or PyTorch's own, and has changed nothing.
    """
    if isinstance(ours, Exception) and isinstance(theirs, Exception):
        if getattr(ours, "moved", []):
            return f"{place}: refused after {ours.moved} had changed: {ours}"
        own = _anonymous(ours) != _anonymous(theirs) and "expected" not in str(ours)
        return f"{place}: not a sentence: {ours}" if own else None
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        return f"{place}: {_outline(ours)} / {_outline(theirs)}"
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if list(ours) != list(theirs):
            return f"{place}: {list(ours)} / {list(theirs)}"
        refused = any(isinstance(value, Exception) for value in ours.values())
        pairs = [
            (key, ours[key], theirs[key])
            for key in ours
            # PyTorch's layer has counted a batch that it refuses then.
            if not (refused and key == "state")
        ]
    elif isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        if len(ours) != len(theirs):
            return f"{place}: {ours} / {theirs}"
        pairs = list(zip(map(str, range(len(ours))), ours, theirs, strict=True))
    elif isinstance(ours, Tensor) or isinstance(theirs, Tensor):
        return _difference_of_tensors(ours, theirs, place)
    else:
        return None if ours == theirs else f"{place}: {ours} / {theirs}"
    found = (difference(a, b, f"{place}.{key}".lstrip(".")) for key, a, b in pairs)
    return next((text for text in found if text), None)


def _difference_of_tensors(ours: Any, theirs: Any, place: str) -> str | None:
    if ours is None or theirs is None:
        # No gradient, or one of zeros.
        zero = not (theirs if ours is None else ours).any()
        return None if zero else f"{place}: {ours} / {theirs}"
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return f"{place}: {ours.dtype} {tuple(ours.shape)} / {theirs.dtype} {tuple(theirs.shape)}"
    if ours.numel() == 0:
        return None
    half = ours.dtype in (torch.float16, torch.bfloat16)
    tolerance = 3e-2 if half else 1e-4 if ours.dtype == torch.float32 else 1e-8
    size = float(theirs.double().abs().nan_to_num(0, 0, 0).max())
    if torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * (1 + size), equal_nan=True):
        return None
    return f"{place}: {ours.flatten()[:3].tolist()} / {theirs.flatten()[:3].tolist()}"


def _outline(value: Any) -> str:
    return f"{type(value).__name__} {value}" if isinstance(value, Exception) else "fine"


def _anonymous(error: Exception) -> str:
    """A message without the names of classes, and of how many arguments they take."""
    text = re.sub(r"\w*(Norm|Act|Renorm|Frozen)\w*", "Layer", str(error))
    return re.sub(r"takes .* positional", "takes positional", text)
