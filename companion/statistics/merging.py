"""Running statistics that several models have found, put together as those of one.

Source: Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance".
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from companion.statistics.layers import tracking_layers
from companion.statistics.moments import merge_rows

__all__ = ["merge_statistics"]

State = Mapping[str, Any]
Count = int | Mapping[str, int]


@torch.no_grad()
def merge_statistics(
    model: nn.Module, sources: Sequence[nn.Module | State], counts: Sequence[Count]
) -> None:
    """Set the running statistics of `model` to those of everything that several models have seen.

    For clients that learn together without sharing data, or processes with layers of their own.
    Client k has found the mean and the unbiased variance of m_k values in each channel. The mean of
    all values is the mean of these means, weighted by m_k. Their variance is that within the
    clients and that between their means, divided by Σm_k - 1: an average of the variances, as
    federated averaging takes it, leaves the second part out.

    Parameters
    ----------
    model
        the model to set, in place: the statistics and counts of its batch normalization layers.
        Parameters and all other buffers stay what they are
    sources
        models of the same architecture, or their state dictionaries, at least one; `model` may be
        among them. Clients hold the statistics of their data after
        :func:`~companion.statistics.update_precise`, and an estimate of them after training
    counts
        m_k for each of `sources`: how many values per channel it has seen, either one number for
        all layers, or a dictionary from the names of layers to numbers. A layer sees one value in
        an example ``(C,)``, and H·W in an example ``(C, H, W)``. A source with 0 has no part

    Raises
    ------
    TypeError
        `model` is no module, a source neither module nor dictionary, a count no integer; a layer
        of `model` keeps other statistics than a running mean and variance
    ValueError
        no source; as many counts as sources are expected; a count below 0; fewer than 2 values
        altogether; a source that lacks a statistic, or holds one of another shape, or one that is
        not finite

    Notes
    -----
    Sums are float64; each result is rounded once, to the type of the statistic of `model`. After an
    error nothing is changed. ``num_batches_tracked`` becomes the sum of the sources'.

    *Counts of examples.* With the number of examples in the place of that of values, the means are
    exact as long as all examples are of one size. The variances are wrong by a part of the order of
    the number of clients over that of examples.

    Answers TsingZ0/PFLlib#260 (statistics that are not averaged with the parameters).

    References
    ----------
    Eq. (11) mini-batch-algorithm/chan-merge, Eq. (12) mini-batch-algorithm/population.

    Examples
    --------
    >>> model, a, b = (nn.BatchNorm1d(1, momentum=1.0) for _ in range(3))
    >>> _ = a(torch.tensor([[0.0], [0.0], [0.0]])), b(torch.tensor([[4.0], [6.0]]))
    >>> merge_statistics(model, [a, b], counts=[3, 2])
    >>> model.running_mean.item(), model.running_var.item()  # of 0, 0, 0, 4, 6
    (2.0, 8.0)
    """
    layers = tracking_layers(model)
    _check_that_all_merge(model, layers)
    states = [_state_of(source) for source in sources]
    if not states:
        raise ValueError("sources: expected at least one model or state dictionary, got none")
    if len(counts) != len(states):
        raise ValueError(f"counts: expected {len(states)}, one for each source, got {len(counts)}")
    updates = []
    for name, layer in layers.items():
        numbers = [_number(count, name) for count in counts]
        seen = [(state, m) for state, m in zip(states, numbers, strict=True) if m > 0]
        total = sum(numbers)
        if total < 2:
            where = repr(name or "the model")
            raise ValueError(f"counts: expected at least 2 values for {where}, got {total}")
        updates += _merged(name, layer, *zip(*seen, strict=True))
    for buffer, value in updates:
        buffer.copy_(value)


def _merged(
    name: str, layer: Any, states: Sequence[State], numbers: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """The buffers of a layer and the values that the states with these counts give them."""
    prefix = f"{name}." if name else ""
    means = _stacked(states, f"{prefix}running_mean", layer.running_mean)
    variances = _stacked(states, f"{prefix}running_var", layer.running_var)
    counts = means.new_tensor(numbers)
    total, mean, m2 = merge_rows(counts, means, variances * (counts - 1)[:, None])
    updates = [(layer.running_mean, mean), (layer.running_var, m2 / (total - 1))]
    tracked = layer.num_batches_tracked
    if tracked is not None:
        # State dictionaries of old have no such key.
        key = f"{prefix}num_batches_tracked"
        calls = sum(int(state.get(key, 0)) for state in states)
        updates.append((tracked, torch.full_like(tracked, calls)))
    return updates


def _stacked(states: Sequence[State], key: str, own: Tensor) -> Tensor:
    """What the states hold under that key, one a row, float64, where the model's own is."""
    rows = []
    for state in states:
        value = state.get(key)
        if not isinstance(value, Tensor):
            raise ValueError(f"sources: expected {key!r} in each, got one without it")
        if value.shape != own.shape:
            expected, came = tuple(own.shape), tuple(value.shape)
            raise ValueError(f"sources: expected {key!r} of shape {expected}, got {came}")
        wrong = int((~torch.isfinite(value)).sum())
        if wrong:
            raise ValueError(
                f"sources: expected finite statistics, got {wrong} of {value.numel()} channels of "
                f"{key!r} where they are not"
            )
        rows.append(value.to(own.device, torch.float64))
    return torch.stack(rows)


def _state_of(source: nn.Module | State) -> State:
    if isinstance(source, nn.Module):
        return source.state_dict()
    if not isinstance(source, Mapping):
        raise TypeError(
            f"sources: expected models or state dictionaries, got {type(source).__name__}"
        )
    return source


def _number(count: Count, name: str) -> int:
    """How many values the layer of that name has seen."""
    if isinstance(count, Mapping):
        if name not in count:
            raise ValueError(f"counts: expected a number for {name!r}, got {sorted(count)}")
        count = count[name]
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"counts: expected integers, got {type(count).__name__}") from None
    if number < 0:
        raise ValueError(f"counts: expected numbers not below 0, got {number}")
    return number


def _check_that_all_merge(model: nn.Module, layers: Mapping[str, Any]) -> None:
    """No layer is left out: instance normalization's average, or a whole covariance."""
    if not layers:
        raise ValueError("model: expected a layer with running statistics, got none")
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_buffers(recurse=False) if key.startswith("running_")]
        # Frozen layers cannot reset theirs, and keep them here too.
        if own and name not in layers and hasattr(module, "reset_running_stats"):
            raise TypeError(
                f"model: expected layers with a running mean and a running variance of all values, "
                f"got {type(module).__name__} in {name or 'the model'!r}"
            )
