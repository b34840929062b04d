"""What the runs on data say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, distributed, nn

from companion.statistics.layers import Layer, several_processes
from companion.statistics.moments import RunningMoments, merge

from .finding import Finding
from .flow import Flow, Node
from .looking import untouched
from .observation import Run
from .thresholds import (
    NOISE_SHARE,
    evaluation_gap,
    f_quantile,
    gap_threshold,
    noise_share,
)

__all__ = [
    "batch_statistics",
    "between_modes",
    "between_steps",
    "composition",
    "dropout",
    "few_values",
    "follows_dropout",
    "staleness",
    "unsynchronized",
]

Checks = Iterator[Finding]

# Of tests that are made once a model, or once a layer where it follows dropout.
_FALSE_ALARMS = 1e-4
_FALSE_ALARMS_OF_A_LOSS = 1e-3
# By which the width of an output is off, or a loss is larger, to be worth a finding; and without
# a loss, the squared error in evaluation mode, which is then as large as the signal.
_LEAST_EFFECT = 0.05
_LEAST_LOSS = 0.1
_LEAST_ERROR = 1.0


def few_values(name: str, values: int, layer: Layer) -> Checks:
    """A layer that takes its statistics from few values."""
    evidence: dict[str, float | int | str] = {"values per channel": values}
    if values == 1:
        yield Finding("few-values", name, "error", evidence)
    elif layer.training and noise_share(values) > NOISE_SHARE:
        yield Finding("few-values", name, "warning", evidence | {"noise": noise_share(values)})


def batch_statistics(layers: Mapping[str, Layer], evaluation: Run) -> Checks:
    """Layers that normalize by the batch in evaluation mode, too, having no other statistics."""
    for name, layer in layers.items():
        if layer.running_mean is None and name in evaluation.values:
            values = evaluation.values[name]
            noise = noise_share(values)
            severity = "warning" if noise > NOISE_SHARE else "note"
            evidence = {"values per channel": values, "noise": noise}
            yield Finding("batch-statistics-in-evaluation", name, severity, evidence)


def unsynchronized(name: str, values: int, layer: Layer) -> Checks:
    """A layer of one of several processes, with statistics of its own from few values."""
    local = several_processes() and layer.training and not hasattr(layer, "process_group")
    if local and noise_share(values) > NOISE_SHARE:
        evidence = {"values per channel": values, "processes": distributed.get_world_size()}
        yield Finding("unsynchronized", name, "warning", evidence)


def _fixed(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """Running statistics that can be held against data's."""
    mean, var = layer.running_mean, layer.running_var
    if mean is None or var is None or untouched(layer):
        return None
    if not bool((mean.isfinite() & var.isfinite() & (var >= 0)).all()):
        return None
    return mean.double(), var.double()


def _share(layer: Layer) -> float:
    """The variance of a running average over that of one batch's statistic."""
    if layer.momentum is None:
        count = layer.num_batches_tracked
        return 1.0 / max(1 if count is None else int(count), 1)
    return layer.momentum / (2 - layer.momentum)


def _gap(name: str, layer: Layer, run: Run) -> tuple[float, float] | None:
    """How far evaluation is from the data of a run, and from where on that is more than chance."""
    fixed = _fixed(layer)
    if fixed is None or name not in run.moments or len(run.moments[name]) < 2:
        return None
    population = run.population(name)
    gap = evaluation_gap(population.mean, population.var, fixed, layer.eps)
    threshold = gap_threshold(*run.batches(name), _share(layer), layer.eps)
    return float(gap.mean()), threshold


def staleness(layers: Mapping[str, Layer], training: Run) -> Checks:
    """Running statistics against those of the inputs in training."""
    for name, layer in layers.items():
        found = _gap(name, layer, training)
        if found is not None and found[0] > found[1]:
            gap, threshold = found
            evidence = {"squared error": gap, "by chance at most": threshold}
            yield Finding("stale-statistics", name, "error" if gap > 1 else "warning", evidence)


def between_modes(layers: Mapping[str, Layer], fixed: Run, evaluation: Run) -> Checks:
    """The same batches with their own statistics and with running ones.

    The losses decide where there are some, else the layer that is furthest off.
    """
    worst, largest, threshold = "", 0.0, math.inf
    for name, layer in layers.items():
        found = _gap(name, layer, evaluation)
        if found is not None and found[0] > largest:
            worst, (largest, threshold) = name, found
    evidence = {"squared error": largest, "by chance at most": threshold}
    if not fixed.losses:
        if largest > max(threshold, _LEAST_ERROR):
            yield Finding("train-eval-gap", worst, "warning", evidence)
        return
    losses = torch.tensor([fixed.losses, evaluation.losses], dtype=torch.float64)
    difference, count = losses[1] - losses[0], losses.shape[1]
    usual, mean = float(losses[0].mean()), float(difference.mean())
    if count < 3 or mean <= _LEAST_LOSS * abs(usual):
        return
    square = mean**2 / (float(difference.var()) / count)
    if square > f_quantile(2 * _FALSE_ALARMS_OF_A_LOSS, 1, count - 1):
        compared = {"loss with batch statistics": usual, "in evaluation mode": usual + mean}
        yield Finding("train-eval-gap", worst, "warning", compared | evidence)


def follows_dropout(flow: Flow, model: nn.Module, layers: Mapping[str, Layer]) -> list[str]:
    """Layers whose input dropout reaches, with no normalization between the two."""
    modules = dict(model.named_modules())

    def drops(node: Node) -> bool:
        kind = type(modules[node.layer]).__name__ if node.layer else node.function
        return "dropout" in kind.lower()

    def normalizes(node: Node) -> bool:
        return node.layer in layers

    return [
        name
        for name in layers
        if any(
            drops(flow.nodes[index])
            for call in flow.calls(name)
            for index in flow.before(call, normalizes)
        )
    ]


def dropout(suspects: list[str], layers: Mapping[str, Layer], with_it: Run, without: Run) -> Checks:
    """The variance of a layer's input with dropout and without, batch by batch."""
    for name in suspects:
        if name not in with_it.moments or name not in without.moments:
            continue
        training, evaluation = with_it.batches(name)[1], without.batches(name)[1]
        alive = (training.mean(dim=0) > layers[name].eps) & (
            evaluation.mean(dim=0) > layers[name].eps
        )
        if len(training) < 3 or not bool(alive.any()):
            continue
        logs = (evaluation[:, alive] / training[:, alive]).log().mean(dim=1)
        mean, error = float(logs.mean()), float(logs.std()) / math.sqrt(len(logs))
        certain = mean**2 > f_quantile(_FALSE_ALARMS, 1, len(logs) - 1) * error**2
        if certain and abs(math.exp(mean / 2) - 1) > _LEAST_EFFECT:
            ratio = {"variance in evaluation over that in training": math.exp(mean)}
            yield Finding("dropout-before", name, "warning", ratio)


def composition(samples: Mapping[str, list[Tensor]]) -> Checks:
    """Whether the batches are drawn alike: analysis of variance at the first layer called."""
    for name, batches in samples.items():
        if len(batches) < 3 or min(map(len, batches)) < 2:
            return
        parts = [RunningMoments.of(batch) for batch in batches]
        whole = merge(*parts)
        inside = torch.stack([part.m2 for part in parts]).sum(dim=0)
        between = whole.m2 - inside
        freedom = len(parts) - 1, whole.count - len(parts)
        alive = inside > 0
        if not bool(alive.any()):
            return
        ratio = float(((between / freedom[0]) / (inside / freedom[1]))[alive].mean())
        usual = f_quantile(_FALSE_ALARMS, *freedom)
        if ratio > usual:
            evidence = {
                "variance between batches over that within": ratio,
                "by chance at most": usual,
            }
            yield Finding("ordered-batches", name, "warning", evidence)
        return


def between_steps(
    layers: Mapping[str, Layer], run: Run, moved: Mapping[str, tuple[int, int]]
) -> Checks:
    """Layers that one step calls several times."""
    for name, layer in layers.items():
        forward, both = moved[name]
        batches = run.moments.get(name, [])
        calls = max(map(len, batches), default=0)
        if calls > 1 and len(batches) > 1:
            found = _unlike(layer, batches)
            if found is not None:
                evidence: dict[str, float | int | str] = {"calls": calls, "squared error": found}
                yield Finding("shared-layer", name, "warning", evidence)
                continue
        if both > 1:
            counted = {
                "counted in the forward pass": forward,
                "and in the backward pass": both - forward,
            }
            yield Finding("double-count", name, "warning", counted)


def _unlike(layer: Layer, batches: list[list[RunningMoments]]) -> float | None:
    """The largest error of one call's output under another call's statistics, if it is certain."""
    calls = min(map(len, batches))
    wholes = [merge(*(batch[call] for batch in batches)) for call in range(calls)]
    largest = None
    for call in range(calls):
        means, variances = (
            torch.stack([getattr(batch[call], field) for batch in batches])
            for field in ("mean", "var")
        )
        threshold = gap_threshold(means, variances, 1 / len(batches), layer.eps)
        own = wholes[call]
        for other in wholes:
            gap = evaluation_gap(own.mean, own.var, (other.mean, other.var), layer.eps)
            found = float(gap.mean())
            if found > max(threshold, largest or 0.0):
                largest = found
    return largest
