"""What processes tell each other, as float64 tensors of fixed shape.

Forward, each sends 2C + 1 values: a head, C means, and C sums of squared deviations M₂. The head
holds the count of values per channel and a tag that says which call this is. Backward, 2C sums.
float64 whatever the activation is: a mean in float32 has lost, at an offset of 1e4, four digits of
a standard deviation of 1, and at 2C + 1 values it is latency that a message costs, not size.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
from torch import Tensor

from companion.kernels import eager
from companion.kernels.interface import Halves
from companion.statistics.moments import merge_rows

# The head is count + tag·2³⁶, which float64 holds exactly.
_COUNTS, TAGS = 2.0**36, 2**16


class Statistics(NamedTuple):
    """Of all processes together."""

    total: Tensor
    """Values per channel, ``()``, float64, as the others."""
    mean: Tensor
    """``(C,)``; 0 where there is no value."""
    var: Tensor
    """Biased, ``(C,)``; 0 where there is no value."""

    @property
    def unbiased_var(self) -> Tensor:
        """n/(n - 1) times the biased one; 0 of a single value."""
        return unbiased(self.var, self.total)


def unbiased(var: Tensor, total: Tensor) -> Tensor:
    """:attr:`Statistics.unbiased_var`, where a compiler may see no more than tensors."""
    return var * (total / (total - 1.0).clamp(min=1.0))


def tag_of(history: int, call: str) -> int:
    """The tag of a call after a history of calls: equal on all ranks that did the same so far."""
    return zlib.crc32(f"{history}:{call}".encode()) % TAGS


def local_moments(x: Tensor, tag: int, halves: Halves | None) -> Tensor:
    """The message of the forward pass, ``(2C + 1,)``; an empty `x` has count, mean and M₂ 0.

    By the kernels of `halves`, or those of ``kernels.eager``.
    """
    m = eager.values_per_channel(x)
    if m == 0:
        mean = var = x.new_zeros(x.shape[1], dtype=torch.float64)
    elif halves is None:
        mean, var = eager.batch_stats(x)
    else:
        mean, var = halves.moments(x)
    return torch.cat([mean.new_full((1,), m + tag * _COUNTS), mean, var * m])


def tags(messages: Tensor) -> Tensor:
    """The tags in the heads of messages ``(p, 2C + 1)``: float64, ``(p,)``."""
    return (messages[:, 0] / _COUNTS).floor()


def merged(messages: Tensor) -> Statistics:
    """Statistics of all processes from their messages, ``(p, 2C + 1)``, by Chan's formula.

    Every process computes the same from the same rows in the same order: to the last bit.
    Messages of different calls give NaN.

    Source: Eq. (11) mini-batch-algorithm/chan-merge.
    """
    call_tags = tags(messages)
    counts = messages[:, 0] - call_tags * _COUNTS
    means, m2 = messages[:, 1:].chunk(2, dim=1)
    count, mean, m2 = merge_rows(counts, means, m2)
    # Where the host may not look, a mistake must not pass for a result either.
    alike = torch.where((call_tags == call_tags[0]).all(), 1.0, torch.nan)
    return Statistics(count, mean * alike, m2 / count.clamp(min=1.0) * alike)
