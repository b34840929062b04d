"""From samples to statements: medians, quartiles, paired ratios, and what is beyond noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Verdict = Literal["faster", "even", "slower"]


class Spread(NamedTuple):
    """Where the middle half of some samples lies."""

    low: float
    """The lower quartile."""
    median: float
    high: float
    """The upper quartile."""


def spread(samples: Sequence[float]) -> Spread:
    """Quartiles of at least one sample, by linear interpolation between samples."""
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(low, median, high)


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratios within each round: what slows a whole round down, as another program, cancels.

    Raises
    ------
    ValueError
        not as many of the one as of the other
    """
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """The mean under which twice as fast and half as fast make 1; None of no ratios."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None


def verdict(speedup: Spread, noise: Spread) -> Verdict:
    """Whether a speed-up differs from 1 by more than PyTorch differs from itself.

    The noise is the factor, in either direction, that holds the middle half of PyTorch's ratios
    with itself. "faster" and "slower" say that the middle half of the speed-ups is beyond it.

    Parameters
    ----------
    speedup
        of the paired ratios PyTorch/ours
    noise
        of the paired ratios PyTorch/PyTorch, measured in the same rounds
    """
    factor = max(noise.high, 1.0 / noise.low, 1.0)
    if speedup.high < 1.0 / factor:
        return "slower"
    return "faster" if speedup.low > factor else "even"
