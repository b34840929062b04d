"""A model run on data, in each mode, such that nothing of it changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from companion._torch import steps_in_backward, tensors_in
from companion.running import recomputing
from companion.statistics.feeding import _moved, device_of, first_tensor
from companion.statistics.layers import (
    Layer,
    hooks_are_called,
    input_moments,
    input_of,
    several_processes,
)
from companion.statistics.moments import RunningMoments, merge

from .flow import Flow, recorded

__all__ = ["OneValue", "Run", "Subject", "first_items", "untouched_model"]


class OneValue(Exception):
    """A layer in training mode was given one value per channel."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.layer = layer


@dataclass
class Run:
    """What was seen in a run over all batches.

    Parameters
    ----------
    moments
        by layer, for each batch those of its calls
    samples
        of the layer called first, for each batch the means of its samples, ``(N, C)``
    values
        by layer, the fewest per channel that were normalized together
    losses
        of each batch
    """

    moments: dict[str, list[list[RunningMoments]]] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def population(self, layer: str) -> RunningMoments:
        return merge(*(call for batch in self.moments[layer] for call in batch))

    def batches(self, layer: str) -> tuple[Tensor, Tensor]:
        """Mean and variance of each batch's calls together, ``(batches, C)``."""
        merged = [merge(*calls) for calls in self.moments[layer]]
        return torch.stack([one.mean for one in merged]), torch.stack([one.var for one in merged])


@dataclass
class Subject:
    """A model with the batches it is run on.

    Parameters
    ----------
    model, layers
        the layers by their names
    items
        what a loader yields
    forward
        runs the model on one
    loss
        of an output and a target, or None
    advance
        to be called after each batch
    """

    model: nn.Module
    layers: dict[str, Layer]
    items: list[Any]
    forward: Callable[[nn.Module, Any], Any] | None
    loss: Callable[[Any, Any], Any] | None
    advance: Callable[[int], object]

    def output(self, item: Any) -> Any:
        device = device_of(self.model)
        if self.forward is None:
            return self.model(first_tensor(item).to(device))
        return self.forward(self.model, _moved(item, device))

    def loss_of(self, output: Any, item: Any) -> Any:
        if self.loss is None:
            return None
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise TypeError(
                "loader: expected pairs of inputs and targets with a loss, got "
                f"{type(item).__name__}"
            )
        return self.loss(output, _moved(item[1], device_of(self.model)))

    @torch.no_grad()
    def run(self) -> Run:
        """Go through the batches in the modes that the modules are in."""
        run = Run()
        with self._watched(run), _buffers_kept(self.model):
            for item in self.items:
                for name in self.layers:
                    run.moments.setdefault(name, []).append([])
                loss = self.loss_of(self.output(item), item)
                if loss is not None:
                    run.losses.append(float(loss))
                self.advance(1)
        run.moments = {
            name: [calls for calls in batches if calls]
            for name, batches in run.moments.items()
            if any(batches)
        }
        return run

    @contextmanager
    def _watched(self, run: Run) -> Iterator[None]:
        def note(name: str, layer: Layer, args: Any, kwargs: Any) -> None:
            if recomputing():
                return
            moments = input_moments(layer, args, kwargs)
            if moments.count == 0:
                return
            values = _together(layer, input_of(args, kwargs), moments.count)
            if layer.training and values == 1:
                raise OneValue(name)
            run.values[name] = min(values, run.values.get(name, values))
            calls = run.moments[name][-1]
            if not calls and name == next(iter(run.samples), name):
                x = input_of(args, kwargs).detach().double()
                means = x.flatten(2).mean(dim=2) if x.ndim > 2 else x
                run.samples.setdefault(name, []).append(means)
            calls.append(moments)

        with ExitStack() as stack:
            for name, layer in self.layers.items():
                hook = layer.register_forward_pre_hook(partial(note, name), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def step(self) -> tuple[Flow, dict[str, tuple[int, int]]]:
        """One training step's passes on the first batch.

        Returns
        -------
        flow : Flow
            the calls of its forward pass
        counts : dict of (int, int)
            by how much each layer's count moved in the forward pass, and in both passes
        """
        with _buffers_kept(self.model):
            return self._step(self.items[0])

    def _step(self, item: Any) -> tuple[Flow, dict[str, tuple[int, int]]]:
        start = self._counts()
        with torch.enable_grad(), recorded(self.model) as finish:
            output = self.output(item)
            flow = finish(output)
        between = self._counts()
        loss = self.loss_of(output, item)
        if loss is None:
            floating = [value for value in tensors_in(output) if value.is_floating_point()]
            loss = torch.stack([value.float().square().mean() for value in floating]).sum()
        # An optimizer in the backward pass would take a step.
        if loss.requires_grad and not any(map(steps_in_backward, self.model.parameters())):
            with _grads_set_aside(self.model):
                loss.backward()
        end = self._counts()
        self.advance(1)
        moved = {
            name: (between[name] - start[name], end[name] - start[name]) for name in self.layers
        }
        return flow, moved

    def _counts(self) -> dict[str, int]:
        return {
            name: 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
            for name, layer in self.layers.items()
        }


def _together(layer: Layer, x: Tensor, count: int) -> int:
    """How many values per channel the layer normalizes together in training."""
    if hasattr(layer, "process_group") and several_processes():
        group: Any = layer.process_group
        return count * distributed.get_world_size(group)
    ghost = getattr(layer, "ghost_size", None)
    return count if ghost is None or len(x) < 2 * ghost else ghost * count // len(x)


def first_items(loader: Iterable[Any], batches: int) -> list[Any]:
    """The first batches of a loader."""
    items = list(islice(loader, batches))
    if not items:
        raise ValueError("loader: expected at least one batch, got none")
    return items


@contextmanager
def _grads_set_aside(model: nn.Module) -> Iterator[None]:
    """Let a backward pass write gradients that are thrown away."""
    saved = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in saved:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in saved:
            parameter.grad = grad


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put all buffers back at the end, running statistics among them."""
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in buffers:
            buffer.data.copy_(value)
            setattr(module, name, buffer)


@contextmanager
def untouched_model(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside, modes, buffers and random state are as before at the end."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    try:
        with torch.random.fork_rng(devices=devices), hooks_are_called(), _buffers_kept(model):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, training in modes:
            module.training = training
