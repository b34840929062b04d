"""Recalibration: the running statistics of a model replaced by those of its population.

Source: Algorithm 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Wu & Johnson (2021),
arXiv:2105.07576, on why and with how many samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from companion.statistics.feeding import device_of, progress_bar, send_samples
from companion.statistics.layers import (
    Layer,
    across_processes,
    evaluation_mode,
    hooks_are_called,
    input_moments,
    input_of,
    restored_statistics,
    several_processes,
    tracking_layers,
)
from companion.statistics.moments import RunningMoments, merge

__all__ = ["update_precise"]


@torch.no_grad()
def update_precise(
    model: nn.Module,
    loader: Iterable[Any],
    num_samples: int = 10_000,
    *,
    passes: int = 1,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    progress: bool = True,
    process_group: Any = None,
) -> None:
    """Set the running statistics of every batch normalization layer to population moments.

    Each layer gets the mean and the unbiased variance of all values that went into it: counts,
    means and M₂ of the batches are merged by Chan's formula. So batches weigh by their size, and
    the variance between the batches' means is part of the variance (the law of total variance).
    ``torch.optim.swa_utils.update_bn`` averages the batches' unbiased variances instead, each
    batch alike. Everything but these layers is in evaluation mode: no dropout.

    What goes into a layer depends on how the layers before it normalize. In the first pass they use
    the statistics of the batch at hand, as in training and in Algorithm 2 of the paper. In each
    further pass they use the population moments that the pass before found, as they will at
    inference. So a layer with fewer than `passes` normalizations before it ends exact: on the same
    samples, its input at inference has the mean and the variance that it holds. The first layers
    always are, and one pass is all that a model without a normalization behind another needs.

    Parameters
    ----------
    model
        any module, for example ``torch.optim.swa_utils.AveragedModel``; in place
    loader
        of tensors, or of tuples that begin with one, which goes to the model; of anything that
        contains a tensor if `forward` is given
    num_samples
        how many samples to use, at least 1; the batch that exceeds them is cut, unless `forward` is
        given: then it is used whole
    passes
        how many times to go through the samples; fewer when nothing changes any more. More than 1
        needs a loader that can be read again and yields the same samples
    forward
        runs the model, ``forward(model, item)``; by default ``model(tensor)``
    progress
        whether to show a bar, if tqdm is installed
    process_group
        the processes whose samples are put together in layers that are not synchronized already,
        such as ``torch.distributed.group.WORLD``; each of them has to call this function

    Raises
    ------
    TypeError
        `model` is not a module; an item that the model cannot be given
    ValueError
        a number under 1; several passes over an iterator; a layer with fewer than two values, or
        with moments that are not finite in the statistics' type
    RuntimeError
        no layer was called (as of a model that was traced or exported, whose layers are its own)
    Exception
        whatever `loader` and `model` raise

    Notes
    -----
    After an error nothing is changed. Modes and momenta are always as before, and no gradient is
    recorded.

    *Left alone* are layers without running statistics, layers that were not called, and frozen
    ones: with momentum 0, or in evaluation mode while the model is in training mode.

    *Count.* ``num_batches_tracked`` becomes the number of the layer's calls in a pass.

    *Device.* Inputs move to the device of the model's first parameter.

    *Compiled models* run as they were written meanwhile: what is compiled may ignore hooks.

    *A batch with one value per channel* has no variance: in the first pass it is normalized with
    what was merged so far, itself included.

    *Several processes.* A ``SyncBatchNorm`` merges the moments of its process group at the end of
    a pass, each process counting `num_samples` of its own; every process has to call this function.
    Without `process_group` other layers keep what this process has seen, which a warning says: the
    processes then differ, until DistributedDataParallel broadcasts the first one's.

    Answers pytorch/pytorch#49082 (``update_bn`` decides how the model is called).

    References
    ----------
    Eq. (11) mini-batch-algorithm/chan-merge, Eq. (12) mini-batch-algorithm/population; Wu & Johnson
    (2021), arXiv:2105.07576.

    Examples
    --------
    >>> layer = torch.nn.BatchNorm1d(1)
    >>> batches = [torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[4.0], [6.0]])]
    >>> update_precise(layer, batches, progress=False)
    >>> layer.running_mean.item(), layer.running_var.item()
    (2.0, 8.0)
    """
    for name, number in (("num_samples", num_samples), ("passes", passes)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    if passes > 1 and isinstance(loader, Iterator):
        raise ValueError(f"passes: expected 1 with a loader that can be read once, got {passes}")
    layers = {
        name: layer for name, layer in tracking_layers(model).items() if not _frozen(layer, model)
    }
    if not layers:
        return
    local = [name for name, layer in layers.items() if not hasattr(layer, "process_group")]
    if local and process_group is None and several_processes():
        warnings.warn(
            f"process_group: expected the processes to merge the statistics of, got None: "
            f"{local[0]!r} and {len(local) - 1} others will hold those of this process's samples",
            stacklevel=2,
        )
    feed = partial(send_samples, model, loader, num_samples, forward)
    collected: dict[str, _Collected] = {}
    with evaluation_mode(model), restored_statistics(layers.values()):
        for _ in range(passes):
            before, collected = (
                collected,
                _collect(layers, collected, feed, num_samples, progress, process_group),
            )
            if before and all(before[name].equals(collected[name]) for name in collected):
                break
    if not collected:
        raise RuntimeError(f"model: expected calls of {', '.join(layers)}, got none")
    updates = [
        update for name in collected for update in _updates(name, layers[name], collected[name])
    ]
    for buffer, value in updates:
        buffer.copy_(value)


@dataclass
class _Collected:
    """What a pass collects from a layer."""

    moments: RunningMoments
    calls: int = field(default=0)

    def add(self, moments: RunningMoments) -> None:
        self.moments = merge(self.moments, moments)
        self.calls += 1

    def equals(self, other: _Collected) -> bool:
        mine, theirs = self.moments, other.moments
        return torch.equal(mine.mean, theirs.mean) and torch.equal(mine.m2, theirs.m2)


def _frozen(layer: Layer, model: nn.Module) -> bool:
    return layer.momentum == 0.0 or (model.training and not layer.training)


def _adopt(layer: Layer, mean: Tensor, var: Tensor) -> None:
    """Make these the statistics that `layer` normalizes with, in new tensors."""
    for name, value in (("running_mean", mean), ("running_var", var)):
        setattr(layer, name, value.to(getattr(layer, name)))


def _collect(
    layers: Mapping[str, Layer],
    before: Mapping[str, _Collected],
    feed: Callable[[Callable[[int], object]], None],
    num_samples: int,
    progress: bool,
    process_group: Any,
) -> dict[str, _Collected]:
    """Go through the samples once; layers seen `before` use those statistics, others batches'."""
    collected: dict[str, _Collected] = {}

    def note(name: str, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # The layer's own complaint about a wrong input, before its moments are taken.
        layer._check_input_dim(input_of(args, kwargs))
        moments = input_moments(layer, args, kwargs)
        if moments.count == 0:
            return
        so_far = collected.setdefault(name, _Collected(RunningMoments.empty(moments.mean.numel())))
        so_far.add(moments)
        if name not in before:
            own = moments if moments.count > 1 else so_far.moments
            _adopt(layer, own.mean, own.var)

    for name, result in before.items():
        _adopt(layers[name], result.moments.mean, result.moments.unbiased_var)
    with ExitStack() as stack:
        stack.enter_context(hooks_are_called())
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(partial(note, name), with_kwargs=True)
            stack.callback(hook.remove)
        feed(stack.enter_context(progress_bar(num_samples, progress)))
    for name, layer in layers.items():
        assert layer.running_mean is not None  # that is what a tracking layer is
        none = RunningMoments.empty(len(layer.running_mean), device_of(layer))
        local = collected.get(name, _Collected(none))
        together = across_processes(layer, local.moments, process_group)
        if together.count == 1:
            raise ValueError(f"loader: expected at least 2 values per channel in {name!r}, got 1")
        if together.count:
            collected[name] = _Collected(together, local.calls)
    return collected


def _updates(name: str, layer: Layer, collected: _Collected) -> list[tuple[Tensor, Tensor]]:
    """The layer's buffers and their new values, all of them possible."""
    moments = collected.moments
    updates = []
    for buffer, value in (
        (layer.running_mean, moments.mean),
        (layer.running_var, moments.unbiased_var),
    ):
        assert buffer is not None  # that is what a tracking layer is
        stored = value.to(buffer)
        wrong = int((~torch.isfinite(stored)).sum())
        if wrong:
            raise ValueError(
                f"loader: expected moments that are finite in {buffer.dtype}, got {wrong} of "
                f"{stored.numel()} channels of {name!r} where they are not"
            )
        updates.append((buffer, stored))
    if layer.num_batches_tracked is not None:
        updates.append((layer.num_batches_tracked, torch.tensor(collected.calls)))
    return updates
