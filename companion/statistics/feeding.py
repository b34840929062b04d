"""What a loader yields, sent through a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def first_tensor(item: Any) -> Tensor:
    """The batch in what a loader yields: the item, or the first of a tuple or list."""
    first = item[0] if isinstance(item, tuple | list) and item else item
    if not isinstance(first, Tensor):
        raise TypeError(
            f"loader: expected tensors, or tuples that begin with one, got {type(item).__name__}"
            + (f" of {type(first).__name__}" if first is not item else "")
        )
    return first


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is, or its first buffer if it has none."""
    return next(tensor.device for tensor in (*model.parameters(), *model.buffers()))


def send_samples(
    model: nn.Module,
    loader: Iterable[Any],
    num_samples: int,
    forward: Callable[[nn.Module, Any], Any] | None,
    advance: Callable[[int], object],
) -> None:
    """Send samples through the model, as :func:`~companion.statistics.update_precise` says.

    `advance` is called with the number of samples after each batch.
    """
    device = device_of(model)
    left = num_samples
    for item in loader:
        if forward is None:
            x = first_tensor(item)[:left].to(device)
            size = len(x)
            model(x)
        else:
            size = _size(item)
            forward(model, _moved(item, device))
        left -= size
        advance(size)
        if left <= 0:
            break


def _size(item: Any) -> int:
    """How many samples there are in an item: the length of the first tensor in it."""
    inner = [item]
    while inner:
        value = inner.pop(0)
        if isinstance(value, Tensor) and value.ndim:
            return len(value)
        if isinstance(value, Mapping):
            inner = [*value.values(), *inner]
        elif isinstance(value, tuple | list):
            inner = [*value, *inner]
    raise TypeError(f"loader: expected items with a tensor in them, got {type(item).__name__}")


def _moved(item: Any, device: torch.device) -> Any:
    """The item with the tensors in it, however deep in dicts, tuples and lists, on `device`."""
    if hasattr(item, "to"):
        return item.to(device)
    if isinstance(item, dict):
        return {key: _moved(value, device) for key, value in item.items()}
    if type(item) in (tuple, list):
        return type(item)(_moved(value, device) for value in item)
    return item


@contextmanager
def progress_bar(
    total: int, progress: bool, what: str = "statistics", unit: str = "samples"
) -> Iterator[Callable[[int], object]]:
    """What to tell how many samples, or what else it counts, are done."""
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            progress = False
    if not progress:
        yield lambda _: None
        return
    with tqdm(total=total, desc=what, unit=f" {unit}") as bar:
        yield bar.update
        # There may have been fewer.
        bar.total = bar.n
        bar.refresh()
