"""What the layers' own state says, and how the calls are connected; no data is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from companion.kernels.eager import HALF_PRECISION
from companion.statistics.layers import Layer

from .finding import Evidence, Finding
from .flow import Flow

__all__ = ["connections", "decay", "state", "untouched"]

# α/(2 - α) of a running variance is above a third: it averages fewer than three batches.
_MOMENTUM = 0.5
# Of a layer's largest |γ|: a channel with less adds under a millionth to the output's variance.
_SCALE = 1e-3
# What may stand between a network's last layer and its result.
_AFTER_NORMALIZATION = ("softmax", "log_softmax", "flatten", "view", "reshape", "squeeze")

Checks = Iterator[Finding]


def state(model: nn.Module, layers: Mapping[str, Layer]) -> Checks:
    """Findings that the layers' buffers, parameters and options alone decide."""
    yield from _epsilons(layers)
    most = max((_count(layer) for layer in layers.values()), default=0)
    for name, layer in layers.items():
        yield from _frozen(model, name, layer, most)
        yield from _statistics(name, layer)
        yield from _channels(name, layer)
        momentum = layer.momentum
        if momentum is not None and momentum > _MOMENTUM:
            share = {"momentum": momentum, "variance of a batch's": momentum / (2 - momentum)}
            yield Finding("momentum-convention", name, "warning", share)


def _count(layer: Layer) -> int:
    """How many batches a layer has counted."""
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)


def untouched(layer: Layer) -> bool:
    """Whether running statistics are the initial ones."""
    mean, var = layer.running_mean, layer.running_var
    return mean is not None and var is not None and bool((mean == 0).all() & (var == 1).all())


def _epsilons(layers: Mapping[str, Layer]) -> Checks:
    counts = Counter(layer.eps for layer in layers.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for name, layer in layers.items():
        if layer.eps != usual:
            evidence: dict[str, float | int | str] = {"eps": layer.eps, "most layers'": usual}
            if layer.running_var is not None:
                var = layer.running_var.double()
                ratio = ((var + usual) / (var + layer.eps)).sqrt()
                evidence["largest change of a scale"] = float((ratio - 1).abs().max())
            yield Finding("eps-mismatch", name, "warning", evidence)


def _frozen(model: nn.Module, name: str, layer: Layer, most: int) -> Checks:
    parameters = [value for value in (layer.weight, layer.bias) if value is not None]
    learned = sum(value.requires_grad for value in parameters)
    tracks = layer.running_mean is not None
    moving = layer.training and tracks and layer.momentum != 0.0
    count = _count(layer)
    evidence: dict[str, float | int | str] = {
        "learned parameters": learned,
        "statistics": "move" if moving else "fixed",
    }
    if parameters and not learned and moving and 0 < count < most:
        evidence |= {"batches counted": count, "other layers": most}
        yield Finding("thawed", name, "warning", evidence)
    elif 0 < learned < len(parameters) or (parameters and not learned and moving):
        yield Finding("half-frozen", name, "warning", evidence)
    elif model.training and not layer.training and learned:
        yield Finding("half-frozen", name, "note", evidence)
    elif model.training and not layer.training and tracks:
        yield Finding("thawed", name, "note", evidence)


def _statistics(name: str, layer: Layer) -> Checks:
    mean, var = layer.running_mean, layer.running_var
    if mean is None or var is None:
        return
    wrong = int((~(mean.isfinite() & var.isfinite() & (var >= 0))).sum())
    if wrong:
        evidence = {"channels": wrong, "of": mean.numel()}
        yield Finding("nonfinite-statistics", name, "error", evidence)
    elif untouched(layer):
        yield Finding("never-updated", name, "warning", {"batches counted": _count(layer)})
    if var.dtype in HALF_PRECISION and layer.momentum != 0.0:
        alpha = layer.momentum or 1.0 / max(_count(layer), 1)
        least = torch.finfo(var.dtype).eps / 2 / alpha
        kept: Evidence = {
            "type": str(var.dtype).removeprefix("torch."),
            "differences lost below": least,
        }
        yield Finding("half-precision-state", name, "warning", kept)


def _channels(name: str, layer: Layer) -> Checks:
    var, weight = layer.running_var, layer.weight
    if var is None or untouched(layer):
        return
    evidence: dict[str, float | int | str] = {}
    flat = var.double() < layer.eps
    dead = flat
    if int(flat.sum()):
        evidence["variance below ε"] = int(flat.sum())
    if weight is not None:
        size = weight.detach().abs()
        small = size <= _SCALE * size.max()
        dead = flat | small
        if int(small.sum()):
            evidence["γ next to 0"] = int(small.sum())
    if int(dead.sum()):
        severity = "warning" if 2 * int(dead.sum()) >= dead.numel() else "note"
        yield Finding("dead-channel", name, severity, evidence | {"channels": dead.numel()})


def decay(layers: Mapping[str, Layer], optimizer: Optimizer) -> Checks:
    """Findings about what an optimizer does to γ and β, and about how often it stepped."""
    decays: dict[int, float] = {
        id(value): float(group.get("weight_decay", 0.0))
        for group in optimizer.param_groups
        for value in group["params"]
    }
    for name, layer in layers.items():
        named: list[tuple[str, Tensor | None]] = [("γ", layer.weight), ("β", layer.bias)]
        decayed = {
            symbol: decays.get(id(value), 0.0) for symbol, value in named if value is not None
        }
        largest = max(decayed.values(), default=0.0)
        if largest > 0.0:
            which = " and ".join(symbol for symbol, value in decayed.items() if value > 0.0)
            evidence: dict[str, float | int | str] = {"decayed": which, "λ": largest}
            if layer.weight is not None:
                evidence["mean |γ|"] = float(layer.weight.detach().abs().mean())
            yield Finding("decayed-scale", name, "note", evidence)
        steps = max(
            (_steps(optimizer, value) for _, value in named if value is not None), default=0
        )
        if steps and _count(layer) >= 2 * steps:
            counted = {"batches counted": _count(layer), "the optimizer's steps": steps}
            yield Finding("double-count", name, "warning", counted)


def _steps(optimizer: Optimizer, parameter: Any) -> int:
    """The optimizer's steps with a parameter, 0 where it does not count them."""
    return int(optimizer.state.get(parameter, {}).get("step", 0))


def connections(model: nn.Module, layers: Mapping[str, Layer], flow: Flow) -> Checks:
    """Findings about what stands before and after a layer."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    linear = (nn.modules.conv._ConvNd, nn.Linear)

    def module(index: int | None) -> Any:
        return None if index is None else modules.get(flow.nodes[index].layer or "-")

    for name, layer in layers.items():
        calls = flow.calls(name)
        if not calls:
            continue
        before = [flow.nodes[call].inputs[:1] for call in calls]
        sources = {index for inputs in before for index in inputs}
        source = next(iter(sources)) if len(sources) == 1 else None
        above = module(source)
        alone = source is not None and flow.only_user(source) == calls[0]
        if alone and isinstance(above, linear):
            place = flow.nodes[source or 0].layer
            if above.bias is not None:
                largest = float(above.bias.detach().abs().max())
                bias: Evidence = {"before": name, "numbers": above.bias.numel(), "largest": largest}
                yield Finding("dead-bias", place, "note", bias)
            if not model.training and layer.running_mean is not None:
                yield Finding("unfolded", name, "note", {"into": place})
        nexts = {flow.only_user(call) for call in calls}
        below = module(next(iter(nexts))) if len(nexts) == 1 else None
        if isinstance(below, Layer) or (isinstance(below, linear) and layer.weight is not None):
            after = flow.nodes[next(iter(nexts)) or 0].layer
            yield Finding("affine-twice", name, "note", {"followed by": after})
        if any(_ends(flow, call, modules) for call in calls):
            yield Finding("before-output", name, "warning", {"follows": "the result"})


def _ends(flow: Flow, call: int, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the result is the model's, but for a softmax or a change of shape."""
    while call not in flow.outputs:
        user = flow.only_user(call)
        if user is None:
            return False
        node = flow.nodes[user]
        kind = type(modules[node.layer]).__name__.lower() if node.layer else node.function
        if kind.replace("logsoftmax", "log_softmax") not in _AFTER_NORMALIZATION:
            return False
        call = user
    return True
