"""Contexts that say what the forward passes inside do to the running statistics of a model.

Training mode does two things at once: it normalizes with the statistics of the batch, and it moves
the running ones. These contexts take the second apart from the first: restore them afterwards, move
them once for several batches, or move them by finite batches only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion._torch import NormBase
from companion.kernels.interface import Running
from companion.running import move_running, recomputing
from companion.statistics.layers import (
    Layer,
    across_processes,
    input_moments,
    several_processes,
    tracking_layers,
)
from companion.statistics.moments import RunningMoments, merge_rows

__all__ = ["accumulated_statistics", "finite_statistics", "preserved_statistics"]

_accumulating: WeakSet[nn.Module] = WeakSet()


@contextmanager
def preserved_statistics(model: nn.Module) -> Iterator[None]:
    """Put running statistics and counts back at the end, also after an exception.

    For forward passes in training mode that should leave no trace: a dry run, validation with the
    statistics of the batch, warming up before a CUDA graph is captured, the second forward pass of
    sharpness-aware minimization.

    Parameters
    ----------
    model
        any module. Restored are all buffers of every module in it that has one whose name begins
        with ``running_``: batch and instance normalization, PyTorch's and this package's

    Raises
    ------
    TypeError
        `model` is not a module

    Notes
    -----
    *In place.* Values are written into the tensors that held them, so that a captured CUDA graph
    and references to buffers stay valid. If the body put another tensor in their place, the former
    one comes back.

    *Autograd.* A backward pass may follow the context: for autograd the restored buffers have not
    changed, since no backward pass in training mode reads them. (With ``copy_`` instead, PyTorch's
    layer refuses: "modified by an inplace operation".)

    *Lazy layers* that the body initializes keep their shapes, with initial statistics.

    Answers davda54/sam#17 (two forward passes a step count a batch twice) and
    LibreYOLO/libreyolo#671 (warm-up before a CUDA graph's capture moves the statistics).

    Examples
    --------
    >>> layer = nn.BatchNorm1d(1)
    >>> with preserved_statistics(layer):
    ...     _ = layer(torch.tensor([[2.0], [4.0]]))
    >>> layer.running_mean.item(), layer.num_batches_tracked.item()
    (0.0, 0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    saved: list[tuple[nn.Module, str, Tensor, Tensor]] = []
    lazy = []
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if any(is_lazy(buffer) for buffer in buffers.values()):
            lazy.append(module)
        elif any(name.startswith("running_") for name in buffers):
            saved += [
                (module, name, buffer, buffer.detach().clone()) for name, buffer in buffers.items()
            ]
    try:
        yield
    finally:
        for module, name, buffer, value in saved:
            buffer.data.copy_(value)
            setattr(module, name, buffer)
        for module in lazy:
            still = any(is_lazy(buffer) for buffer in module.buffers(recurse=False))
            if isinstance(module, NormBase) and not still:
                module.reset_running_stats()


@contextmanager
def accumulated_statistics(model: nn.Module) -> Iterator[None]:
    """Move the running statistics once, at the end, by the union of all batches inside.

    For gradient accumulation: k micro-batches make one step of the weights, and here one step of
    the running statistics, the step that one batch of all their examples would have made. The mean
    and the unbiased variance of the union come from Chan's formula, so micro-batches may differ in
    size; ``num_batches_tracked`` moves by 1. Without this, k steps are made, which forgets k times
    as fast, and by variances that leave out the differences between the micro-batches' means.

    Inside, each micro-batch is normalized with its own statistics as ever, and so are gradients:
    only the running statistics become those of the large batch.

    Parameters
    ----------
    model
        any module with batch normalization layers, PyTorch's, synchronized ones, or this package's.
        Layers that do not track statistics are left alone, and forward passes in evaluation mode do
        not count

    Raises
    ------
    TypeError
        `model` is not a module
    RuntimeError
        a layer of `model` is accumulating already

    Notes
    -----
    If the body raises, running statistics and counts stay as they were.

    *Mechanism.* Inside, ``track_running_stats`` is False, and a hook takes the moments of each
    input: one more read of it.

    *Checkpointing.* What is recomputed in a backward pass counts once.

    *Several processes.* A ``SyncBatchNorm`` merges the moments of its process group at the end.

    *Not finite.* Where a layer has `skip_nonfinite`, or inside :func:`finite_statistics`, a union
    that is not finite is skipped as a whole.

    Answers pytorch/pytorch#46516.

    References
    ----------
    Eq. (11) mini-batch-algorithm/chan-merge, Eq. (14) mini-batch-algorithm/running-average.

    Examples
    --------
    >>> layer = nn.BatchNorm1d(1, momentum=1.0)
    >>> with accumulated_statistics(layer):
    ...     for micro_batch in (torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[4.0], [6.0]])):
    ...         _ = layer(micro_batch)
    >>> layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()
    (2.0, 8.0, 1)
    """
    layers = tracking_layers(model)
    for name, layer in layers.items():
        if layer in _accumulating:
            raise RuntimeError(
                "model: expected statistics that are not being accumulated already, got a model "
                f"with {name or 'a layer'!r} inside accumulated_statistics"
            )
    tracked = [layer for layer in layers.values() if layer.track_running_stats]
    # Counts, means and M₂, as tensors: what is compiled then does not depend on how many values
    # there are so far, and nothing is read on the host.
    accumulated: dict[Layer, tuple[Tensor, Tensor, Tensor]] = {}

    def note(layer: Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any], _: Tensor) -> None:
        if layer.training and not recomputing():
            moments = input_moments(layer, args, kwargs)
            count = moments.mean.new_full((), float(moments.count))
            latest = (count, moments.mean, moments.m2)
            if layer in accumulated:
                latest = merge_rows(*map(torch.stack, zip(accumulated[layer], latest, strict=True)))
            accumulated[layer] = latest

    with ExitStack() as stack:
        for layer in tracked:
            stack.callback(_accumulating.discard, layer)
            stack.callback(setattr, layer, "track_running_stats", True)
            stack.callback(layer.register_forward_hook(note, with_kwargs=True).remove)
            layer.track_running_stats = False
            _accumulating.add(layer)
        yield
    for layer in tracked:
        if layer in accumulated:
            _commit(layer, *accumulated[layer])


@torch.no_grad()
def _commit(layer: Layer, count: Tensor, mean: Tensor, m2: Tensor) -> None:
    """Move the layer's running statistics by one batch with these moments."""
    if several_processes():
        together = across_processes(layer, RunningMoments(int(count), mean, m2))
        count, mean, m2 = count.new_tensor(together.count), together.mean, together.m2
    skip = bool(getattr(layer, "skip_nonfinite", False))
    batches = layer.num_batches_tracked
    running = Running(layer.running_mean, layer.running_var, batches, layer.momentum, skip)
    move_running(running, mean, m2 / (count - 1.0), count > 0)


@cache
def _guarded(cls: Any) -> Any:
    """A class below `cls` that puts statistics back which a forward pass made infinite."""

    def forward(layer: Layer, *args: Any, **kwargs: Any) -> Any:
        if not (layer.training and layer.track_running_stats):
            return cls.forward(layer, *args, **kwargs)
        buffers = [buffer.detach() for buffer in layer.buffers(recurse=False)]
        saved = [buffer.clone() for buffer in buffers]
        output = cls.forward(layer, *args, **kwargs)
        finite = torch.stack([torch.isfinite(buffer).all() for buffer in buffers]).all()
        for buffer, value in zip(buffers, saved, strict=True):
            # Through `data`: a backward pass in training mode does not read these buffers.
            buffer.data.copy_(torch.where(finite, buffer, value))
        return output

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})


@contextmanager
def finite_statistics(model: nn.Module) -> Iterator[None]:
    """Leave a layer's running statistics and count alone where a batch would make them infinite.

    With float16 an activation can overflow. The loss scaler then skips the step, but the running
    statistics have moved already: to an infinity or NaN that no later batch can take out again, and
    which shows only in evaluation.

    Parameters
    ----------
    model
        any module. This package's layers get ``skip_nonfinite=True``; PyTorch's, and layers below
        them, get for the time a class of their own, which copies running statistics before a
        forward pass, and writes them back if one is not finite after it

    Raises
    ------
    TypeError
        `model` is not a module

    Notes
    -----
    A batch is skipped by the layers whose statistics it would spoil, and by those only; all
    channels of such a layer, and its count, stay. No value is read on the host, so nothing waits
    for the device.

    Answers pytorch/pytorch#88474 and pytorch/pytorch#90342.

    Examples
    --------
    >>> layer = nn.BatchNorm1d(1)
    >>> with finite_statistics(layer):
    ...     _ = layer(torch.tensor([[2.0], [float("inf")]]))
    >>> layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()
    (0.0, 1.0, 0)
    """
    with ExitStack() as stack:
        for layer in tracking_layers(model).values():
            if not hasattr(type(layer), "skip_nonfinite"):
                # By its class, not by hooks: of those a model that is compiled takes no notice.
                cls: Any = type(layer)
                stack.callback(setattr, layer, "__class__", cls)
                layer.__class__ = _guarded(cls)
            if "skip_nonfinite" in vars(layer):
                stack.callback(setattr, layer, "skip_nonfinite", layer.skip_nonfinite)
            else:
                stack.callback(delattr, layer, "skip_nonfinite")
            vars(layer)["skip_nonfinite"] = True
        yield
