"""Batch normalization that decorrelates: each group of channels is whitened by its batch.

Decorrelated batch normalization takes the exact Σ^(-1/2) of an eigendecomposition; iterative
normalization, in ``iterative.py``, approaches it by matrix products.

Both keep a running mean and a running *covariance*, and whiten at inference by what that says. The
papers' code averages the whitening matrices instead. Averaging covariances is right: the unbiased
covariance of a batch is on average that of the population, whatever the batch size. The average of
Σ_B^(-1/2) is not Σ^(-1/2), since the inverse root is convex: it is larger, so that the outputs at
inference have variances above 1. Of one Gaussian channel and m values the factor is
E[σ/σ_B] = √(m/2)·Γ((m-2)/2)/Γ((m-1)/2), 1.20 at m = 8. Of d channels it is finite only for
m > d + 1. Groups of one channel are batch normalization exactly, running statistics included.

Source: Huang et al. (2018), arXiv:1804.08450.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import init

from companion._torch import StandIn, called_by_tracer
from companion.kernels.eager import values_per_channel
from companion.kernels.interface import Running
from companion.kernels.layouts import with_layout_of
from companion.running import recomputing, update_running
from companion.whitening.checks import check_count, check_groups
from companion.whitening.moments import Moments, moments
from companion.whitening.zca import inverse_root

__all__ = ["DecorrelatedBatchNorm1d", "DecorrelatedBatchNorm2d"]

_STATISTICS = ("running_mean", "running_covariance")


class _DecorrelatedBatchNorm(nn.Module):
    """What these layers and the iterative ones share; the inverse root is the exact one."""

    _layouts: ClassVar[dict[int, str]]
    num_features: int
    groups: int
    eps: float
    momentum: float | None
    affine: bool
    track_running_stats: bool
    running_mean: Tensor | None
    running_covariance: Tensor | None
    num_batches_tracked: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        groups: int = 1,
    ) -> None:
        super().__init__()
        check_count("num_features", num_features)
        check_groups(groups, num_features)
        for name, value in {"eps": eps, "momentum": momentum}.items():
            if not isinstance(value, Real) and not (value is None and name == "momentum"):
                raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
        if not eps > 0.0:
            raise ValueError(f"eps: expected a positive number, got {eps}")
        self.num_features, self.groups = num_features, groups
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name in ("weight", "bias"):
            empty = torch.empty(num_features, device=device, dtype=dtype) if affine else None
            self.register_parameter(name, None if empty is None else nn.Parameter(empty))
        size = num_features // groups
        shapes = {"running_mean": (num_features,), "running_covariance": (groups, size, size)}
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64, device=device)
            self.register_buffer(name, zeros if track_running_stats else None)
        count = torch.zeros((), dtype=torch.long, device=device)
        self.register_buffer("num_batches_tracked", count if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running covariance to I and the count to 0."""
        if self.running_mean is not None and self.running_covariance is not None:
            self.running_mean.zero_()
            self.running_covariance.copy_(_identity_like(self.running_covariance))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set statistics, weight and bias to their initial values."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """The number of channels and the options."""
        return (
            f"{self.num_features}, groups={self.groups}, eps={self.eps}, "
            f"momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert as PyTorch does, but keep the running statistics float64.

        The rounding of a covariance matrix in float32 is of the size of its smallest eigenvalues,
        by whose roots the layer divides.
        """
        former = {name: getattr(self, name) for name in _STATISTICS}
        parent: Any = super()
        result = parent._apply(fn, recurse)
        for name, buffer in former.items():
            if buffer is not None and getattr(self, name).dtype != buffer.dtype:
                setattr(self, name, buffer.to(getattr(self, name).device))
        return result

    def _whitening_matrix(self, sigma: Tensor) -> Tensor:
        """(Σ + εI)^(-1/2), from Σ + εI: ``(groups, d, d)``, float64."""
        values, vectors = torch.linalg.eigh(sigma.detach())
        # Σ has no negative eigenvalue: what is below ε is rounding.
        return inverse_root(sigma, vectors, values.clamp(min=self.eps))

    def forward(self, input: Tensor) -> Tensor:
        """Whiten `input` group by group; in training, track its statistics.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError
            another rank; one value per channel where the batch's statistics are used
        RuntimeError
            another number of channels, or another device than the layer's
        NotImplementedError
            integers, booleans or complex numbers
        TypeError
            not a tensor

        Notes
        -----
        Every error comes before anything is changed.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        self._check_input(input)
        m = values_per_channel(input)
        # (N, C, *) → (groups, d, m): a group's channels in rows, its examples in columns.
        size = self.num_features // self.groups
        values = input.transpose(0, 1).reshape(self.groups, size, m).to(torch.float64)
        batch = self._moments(values)
        sigma = _finite(batch.covariance)
        matrix = self._whitening_matrix(sigma + self.eps * _identity_like(sigma))
        y = (matrix @ batch.centred).reshape(self.num_features, m)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight.to(torch.float64)[:, None] + self.bias.to(torch.float64)[:, None]
        if self.training and self.track_running_stats and not recomputing():
            self._track(batch, m)
        shaped = y.reshape(input.transpose(0, 1).shape).transpose(0, 1).to(input.dtype)
        return with_layout_of(input, shaped)

    def _moments(self, values: Tensor) -> Moments:
        """Those of the batch, which are NaN if it is empty, or in evaluation the running ones."""
        if self.training or self.running_mean is None or self.running_covariance is None:
            return moments(values)
        mean = self.running_mean.reshape(self.groups, -1, 1)
        return Moments(values - mean, mean, self.running_covariance)

    def _track(self, batch: Moments, m: int) -> None:
        """Move the running statistics as batch normalization does: the unbiased covariance."""
        state = (self.running_mean, self.running_covariance, self.num_batches_tracked)
        mean, sigma = (batch.mean.reshape(-1), batch.covariance) if m > 0 else (None, None)
        update_running(Running(*state, self.momentum, False), mean, sigma, m)

    def _check_input(self, input: Tensor) -> None:
        if not isinstance(input, Tensor):
            raise TypeError(f"input: expected a tensor, got {type(input).__name__}")
        shape = tuple(input.shape)
        if not input.is_floating_point():
            raise NotImplementedError(f"input: expected a floating-point tensor, got {input.dtype}")
        if input.ndim not in type(self)._layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in type(self)._layouts.items())
            raise ValueError(f"input: expected dimensions {expected}, got {input.ndim}: {shape}")
        if shape[1] != self.num_features:
            raise RuntimeError(
                f"input: expected {self.num_features} channels in dimension 1, "
                f"got {shape[1]}: {shape}"
            )
        own = self.weight if self.weight is not None else self.running_mean
        if own is not None and own.device != input.device:
            raise RuntimeError(
                f"input: expected a tensor on the layer's device, {own.device}, got {input.device}"
            )
        fixed = not self.training and self.running_mean is not None
        if not fixed and values_per_channel(input) == 1:
            raise ValueError(
                f"input: expected more than 1 value per channel when training, got shape {shape}"
            )


def _identity_like(sigma: Tensor) -> Tensor:
    return torch.eye(sigma.shape[-1], dtype=sigma.dtype, device=sigma.device).expand_as(sigma)


def _finite(sigma: Tensor) -> Tensor:
    """I in place of a group's covariance that is not finite, which no decomposition takes.

    The centred values of that group are NaN already, and so its output is.
    """
    finite = torch.isfinite(sigma).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    return torch.where(finite, sigma, _identity_like(sigma))


class DecorrelatedBatchNorm1d(_DecorrelatedBatchNorm):
    """Decorrelated batch normalization of ``(N, C)`` or ``(N, C, L)``.

    y = weight·(Σ + εI)^(-1/2)(x - mean) + bias, in groups of channels.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        ε, added to every eigenvalue of the covariance, positive: the variance below which a
        direction counts as noise
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine
        whether to learn a weight and a bias per channel
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of the parameters
    groups
        into how many groups of C/`groups` neighbouring channels to cut the channels; each is
        whitened by itself. C groups are batch normalization

    Raises
    ------
    TypeError, ValueError
        a number of another kind, or out of its range

    Notes
    -----
    *State.* ``running_mean`` ``(C,)``, ``running_covariance`` ``(groups, C/groups, C/groups)``,
    unbiased, both float64 whatever the model is converted to, and ``num_batches_tracked``.

    *Types.* Everything is computed in float64; the output has the input's type.

    *Small batches.* A batch of m values per channel has a covariance of rank m - 1 at most. Where
    that is less than the size of a group, ε is all that keeps the matrix finite, and the outputs
    hardly say more than which example is which: use more groups.

    *NaN and infinity.* A group that holds one gets an output of NaN and running statistics that
    stay NaN or infinite. Other groups are not affected.

    *Empty batches, activation checkpointing.* As :func:`companion.functional.batch_norm`.

    These layers are not subclasses of PyTorch's batch normalization, so that no tool converts or
    folds them as if they were.

    References
    ----------
    Huang et al. (2018), arXiv:1804.08450, with a running covariance; Eq. (13)
    whitening/three-whitenings and Eq. (20) whitening/zca-gradient.

    Examples
    --------
    >>> import torch
    >>> from companion.variants.decorrelated import DecorrelatedBatchNorm1d
    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    >>> y = DecorrelatedBatchNorm1d(4)(x)
    >>> torch.allclose(torch.cov(y.T, correction=0), torch.eye(4), atol=1e-3)
    True
    """

    _layouts: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class DecorrelatedBatchNorm2d(_DecorrelatedBatchNorm):
    """Decorrelated batch normalization of ``(N, C, H, W)``.

    y = weight·(Σ + εI)^(-1/2)(x - mean) + bias, in groups of channels; every position of every
    example is one value of a channel.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        ε, added to every eigenvalue of the covariance, positive: the variance below which a
        direction counts as noise
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine
        whether to learn a weight and a bias per channel
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of the parameters
    groups
        into how many groups of C/`groups` neighbouring channels to cut the channels; each is
        whitened by itself. C groups are batch normalization

    Raises
    ------
    TypeError, ValueError
        a number of another kind, or out of its range

    Notes
    -----
    See :class:`DecorrelatedBatchNorm1d`.

    References
    ----------
    Huang et al. (2018), arXiv:1804.08450, with a running covariance; Eq. (13)
    whitening/three-whitenings and Eq. (20) whitening/zca-gradient.

    Examples
    --------
    >>> import torch
    >>> from companion.variants.decorrelated import DecorrelatedBatchNorm2d
    >>> DecorrelatedBatchNorm2d(32, groups=2)(torch.randn(4, 32, 5, 5)).shape
    torch.Size([4, 32, 5, 5])
    """

    _layouts: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}
