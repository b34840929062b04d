"""What a layer keeps: running statistics, and what may and may not move them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from companion.contexts import preserved_statistics
from companion.exercises.exercise import Case
from companion.exercises.properties import (
    POOLED,
    RUNNING_MEAN,
    RUNNING_VAR,
    STATISTICS_STAY,
    STAY_FINITE,
)
from companion.modules import BatchNorm1d
from companion.statistics import update_precise
from companion.variants import freeze

from .formulas import EPS, HALF, normal
from .operation import Operation

Statistics = tuple[Tensor, ...]


def _of(model: nn.Module) -> Statistics:
    """Copies of all running means and variances."""
    named = model.named_buffers()
    return tuple(
        value.clone() for name, value in named if name.split(".")[-1].startswith("running")
    )


def _layer(channels: int, **options: Any) -> BatchNorm1d:
    return BatchNorm1d(channels, dtype=torch.float64, **options)


# --- running statistics --------------------------------------------------------------------------


def _running_cases() -> Iterator[Case]:
    yield Case("no batch yet", (3, [], 0.1, EPS))
    yield Case("one batch of four rows", (3, [5 + 2 * normal(4, 3)], 0.1, EPS))
    batches = [scale * (1 + normal(rows, 3)) for rows, scale in ((4, 1), (6, 10), (3, 0.1))]
    yield Case("three batches of other widths and sizes", (3, batches, 0.3, EPS))
    yield Case("70,000 values in float16", (1, [normal(70_000, 1).half()], 0.1, EPS), HALF)


def _tracked(channels: int, batches: Sequence[Tensor], momentum: float, eps: float) -> Statistics:
    dtype = batches[0].dtype if batches else torch.float64
    layer = BatchNorm1d(channels, eps, momentum, dtype=dtype)
    for x in batches:
        layer(x)
    return _of(layer)


RUNNING = Operation(
    call="f(channels, batches, momentum, eps) -> (mean, var)",
    cases=_running_cases,
    properties=(RUNNING_MEAN, RUNNING_VAR),
    own=_tracked,
)


def _overflow_cases() -> Iterator[Case]:
    sound, bad = 5 + normal(4, 3), torch.full((4, 3), torch.inf, dtype=torch.float64)
    yield Case("one batch of infinities between two sound ones", (3, [sound, bad, sound], 0.1, EPS))


def _skipping(channels: int, batches: Sequence[Tensor], momentum: float, eps: float) -> Statistics:
    layer = _layer(channels, eps=eps, momentum=momentum, skip_nonfinite=True)
    for x in batches:
        layer(x)
    return _of(layer)


OVERFLOW = Operation(
    call="f(channels, batches, momentum, eps) -> (mean, var)",
    cases=_overflow_cases,
    properties=(STAY_FINITE,),
    own=_skipping,
)


def _stale_cases() -> Iterator[Case]:
    batches = [offset + normal(rows, 3) for rows, offset in ((8, 0.0), (8, 4.0), (3, 9.0))]
    yield Case("a last batch that is smaller", (nn.Sequential(_layer(3)), batches))


def _recomputed(update: Callable[..., Any], model: nn.Module, batches: list[Tensor]) -> Statistics:
    update(model, batches)
    return _of(model)


def _precise(model: nn.Module, batches: list[Tensor]) -> None:
    update_precise(model, batches, progress=False)


RECALIBRATION = Operation(
    call="f(model, batches), which sets the statistics",
    cases=_stale_cases,
    properties=(POOLED,),
    own=_precise,
    run=_recomputed,
)


# --- what leaves them alone ----------------------------------------------------------------------


def _model_and_batch() -> Iterator[Case]:
    yield Case("one batch", (nn.Sequential(_layer(3)), 5 + 2 * normal(8, 3)))


def _frozen(freezing: Callable[..., Any], model: nn.Module, x: Tensor) -> tuple[Any, Any]:
    model = freezing(model).train()
    before = _of(model)
    model(x)
    return before, _of(model)


FREEZING = Operation(
    call="f(model) -> model, frozen",
    cases=_model_and_batch,
    properties=(STATISTICS_STAY,),
    own=freeze,
    run=_frozen,
)


def _dry(run: Callable[..., Any], model: nn.Module, x: Tensor) -> tuple[Any, Any]:
    before = _of(model)
    run(model, x)
    return before, _of(model)


def _preserving(model: nn.Module, x: Tensor) -> None:
    with preserved_statistics(model):
        model(x)


DRY_RUN = Operation(
    call="f(model, x), which leaves no trace",
    cases=_model_and_batch,
    properties=(STATISTICS_STAY,),
    own=_preserving,
    run=_dry,
)


def _channels_and_batch() -> Iterator[Case]:
    yield Case("one checkpointed batch", (3, 5 + 2 * normal(8, 3)))


def _checkpointed(make: Callable[..., nn.Module], channels: int, x: Tensor) -> tuple[Any, Any]:
    layer = make(channels)
    y = checkpoint(layer, x.requires_grad_(), use_reentrant=False)
    before = _of(layer)
    y.sum().backward()  # which runs the forward pass again
    return before, _of(layer)


RECOMPUTATION = Operation(
    call="f(channels) -> layer",
    cases=_channels_and_batch,
    properties=(STATISTICS_STAY,),
    own=_layer,
    run=_checkpointed,
)
