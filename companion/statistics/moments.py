"""Count, mean and variance of data that come in parts: batch by batch, or device by device.

The state of a channel is three numbers: how many values there were, their mean μ, and the sum of
their squared deviations M₂ = Σ(x - μ)². Parts merge without a second look at their values, and
without the cancellation of E[x²] - E[x]².

Source: Welford (1962), "Note on a method for calculating corrected sums of squares and products";
Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance"; Eqs. (10) and (11) of
the chapter `mini-batch-algorithm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion.kernels.eager import reduced_axes, values_per_channel

__all__ = ["RunningMoments", "merge"]


@dataclass(frozen=True)
class RunningMoments:
    """Moments of C channels, each of `count` values.

    Parameters
    ----------
    count
        number of values per channel; 0 says that there is none yet
    mean
        ``(C,)``, float64
    m2
        Σ(x - mean)² per channel, ``(C,)``, float64, on the device of `mean`

    Raises
    ------
    ValueError
        a negative count, or tensors that are not float64 of one shape ``(C,)`` and one device

    Examples
    --------
    >>> moments = RunningMoments.of(torch.tensor([[2.0], [4.0]])).update(torch.tensor([[9.0]]))
    >>> moments.count, moments.mean.item(), moments.m2.item()
    (3, 5.0, 26.0)
    """

    count: int
    mean: Tensor
    m2: Tensor

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count: expected a number not below 0, got {self.count}")
        for name, value in (("mean", self.mean), ("m2", self.m2)):
            if value.ndim != 1 or value.dtype != torch.float64:
                shape = tuple(value.shape)
                raise ValueError(f"{name}: expected float64 (C,), got {value.dtype} {shape}")
        if self.mean.shape != self.m2.shape or self.mean.device != self.m2.device:
            raise ValueError(
                f"m2: expected shape {tuple(self.mean.shape)} on {self.mean.device}, as the mean, "
                f"got {tuple(self.m2.shape)} on {self.m2.device}"
            )

    @classmethod
    def empty(cls, channels: int, device: torch.device | str | None = None) -> RunningMoments:
        """No values yet: count, mean and M₂ are 0."""
        zeros = torch.zeros(channels, dtype=torch.float64, device=device)
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, values: Tensor) -> RunningMoments:
        """Moments of a batch, by two passes in float64 and Björck's correction.

        Parameters
        ----------
        values
            real tensor ``(m, C)`` or ``(N, C, *spatial)``, any device; no gradient passes

        Raises
        ------
        ValueError
            a rank under 2
        TypeError
            complex numbers

        References
        ----------
        Eq. (1) mini-batch-algorithm/batch-mean, Eq. (2) mini-batch-algorithm/batch-var.
        """
        if values.ndim < 2:
            shape = tuple(values.shape)
            raise ValueError(f"values: expected (m, C) or (N, C, *spatial), got shape {shape}")
        if values.is_complex():
            raise TypeError(f"values: expected real numbers, got {values.dtype}")
        count = values_per_channel(values)
        if count == 0:
            return cls.empty(values.shape[1], values.device)
        axes = reduced_axes(values.ndim)
        x = values.detach().to(torch.float64)
        mean = x.mean(axes, keepdim=True)
        centred = x - mean
        # The mean's rounding error is what is left of the sum of deviations: take it out again.
        residue = centred.sum(axes)
        m2 = (centred.square().sum(axes) - residue.square() / count).clamp(min=0.0)
        return cls(count, mean.reshape(-1) + residue / count, m2)

    def update(self, values: Tensor) -> RunningMoments:
        """Moments after another batch, of any size; with one row it is Welford's step.

        Parameters and errors as :meth:`of`; also a ValueError for another number of channels.

        Source: Eq. (10) mini-batch-algorithm/welford.
        """
        return merge(self, RunningMoments.of(values))

    @property
    def var(self) -> Tensor:
        """Biased variance M₂/n, ``(C,)``; a ValueError if there is no value."""
        return self._divided_by(self.count)

    @property
    def unbiased_var(self) -> Tensor:
        """Unbiased variance M₂/(n - 1), ``(C,)``; a ValueError if there are fewer than 2 values."""
        return self._divided_by(self.count - 1)

    def _divided_by(self, degrees: int) -> Tensor:
        if degrees < 1:
            least = self.count - degrees + 1
            raise ValueError(f"count: expected at least {least} values, got {self.count}")
        return self.m2 / degrees


def merge(*parts: RunningMoments) -> RunningMoments:
    """Moments of all values of all parts together, whatever the parts' sizes.

    Parameters
    ----------
    parts
        at least one; empty ones change nothing

    Returns
    -------
    RunningMoments
        independent of the order of the parts up to rounding. Their means carry a rounding error of
        float64's spacing at their own size: of 1e-8 at an offset of 1e8.

    Raises
    ------
    ValueError
        no part, or parts with different numbers of channels

    References
    ----------
    Eq. (11) mini-batch-algorithm/chan-merge, for any number of parts.

    Examples
    --------
    >>> low, high = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0]])
    >>> merge(RunningMoments.of(low), RunningMoments.of(high)).mean.item()
    4.0
    """
    if not parts:
        raise ValueError("parts: expected at least one, got none")
    channels = sorted({part.mean.numel() for part in parts})
    if len(channels) > 1:
        raise ValueError(f"parts: expected one number of channels, got {channels}")
    filled = [part for part in parts if part.count > 0]
    if len(filled) < 2:
        return filled[0] if filled else parts[0]
    means, m2 = (torch.stack([getattr(part, name) for part in filled]) for name in ("mean", "m2"))
    counts = means.new_tensor([part.count for part in filled])
    _, mean, m2 = merge_rows(counts, means, m2)
    return RunningMoments(sum(part.count for part in filled), mean, m2)


def merge_rows(counts: Tensor, means: Tensor, m2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`merge` of parts given as tensors, without reading a value on the host.

    Parameters
    ----------
    counts
        ``(p,)``, float64, values per channel; exact up to 2⁵³
    means, m2
        ``(p, C)``, float64; where the count is 0, anything finite

    Returns
    -------
    count, mean, m2 : Tensor
        ``()``, ``(C,)`` and ``(C,)``, float64; all 0 where all counts are 0

    References
    ----------
    Eq. (11) mini-batch-algorithm/chan-merge, for any number of parts.
    """
    total = counts.sum()
    filled = (counts > 0)[:, None]
    weights = (counts / total.clamp(min=1.0))[:, None]
    # Relative to the first mean, so that an offset common to all parts costs nothing. A finite
    # one: an infinite mean makes the mean infinite, not NaN.
    first = means.index_select(0, filled.to(torch.int64).argmax(0))
    first = torch.nan_to_num(first, nan=0.0, posinf=0.0, neginf=0.0)[0]
    means = torch.where(filled, means, first)
    mean = first + (weights * (means - first)).sum(0)
    between = total * (weights * (means - mean).square()).sum(0)
    return total, mean, m2.sum(0) + between
