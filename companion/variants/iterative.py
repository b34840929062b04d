"""Iterative normalization: decorrelated batch normalization without an eigendecomposition.

Source: Huang et al. (2019), arXiv:1904.03441.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from companion.variants.decorrelated import _DecorrelatedBatchNorm
from companion.whitening.checks import check_count
from companion.whitening.newton_schulz import newton_schulz

__all__ = ["IterNorm1d", "IterNorm2d"]


class _ByIteration(_DecorrelatedBatchNorm):
    """The inverse root after some steps of the Newton–Schulz iteration."""

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
        steps: int = 5,
    ) -> None:
        check_count("steps", steps)
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            groups=groups,
        )
        self.steps = steps

    def extra_repr(self) -> str:
        """The number of channels and the options, `steps` last."""
        return f"{super().extra_repr()}, steps={self.steps}"

    def _whitening_matrix(self, sigma: Tensor) -> Tensor:
        return newton_schulz(sigma, self.steps)


class IterNorm1d(_ByIteration):
    """Iterative normalization of ``(N, C)`` or ``(N, C, L)``.

    y = weight·(Σ + εI)^(-1/2)(x - mean) + bias, in groups of channels, with T steps of the
    Newton–Schulz iteration for the root. A principal axis that holds the share a of its group's
    variance (with ε) comes out with the variance q_T², where q_0 = √a and q_(k+1) = q_k(3 -
    q_k²)/2: with few steps weak directions, the noisiest to estimate, stay weak.

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
    steps
        T, steps of the iteration; :func:`companion.whitening.whitening_matrix` says how many are
        needed

    Raises
    ------
    TypeError, ValueError
        a number of another kind, or out of its range

    Notes
    -----
    As for :class:`DecorrelatedBatchNorm1d`.

    References
    ----------
    Huang et al. (2019), arXiv:1904.03441, with a running covariance and the stable form of the
    iteration.

    Examples
    --------
    >>> import torch
    >>> from companion.variants.iterative import IterNorm1d
    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    >>> for steps in (5, 15):
    ...     y = IterNorm1d(4, steps=steps)(x)
    ...     print(torch.allclose(torch.cov(y.T, correction=0), torch.eye(4), atol=1e-3))
    False
    True
    """

    _layouts: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class IterNorm2d(_ByIteration):
    """Iterative normalization of ``(N, C, H, W)``.

    y = weight·(Σ + εI)^(-1/2)(x - mean) + bias, in groups of channels, with T steps of the
    Newton–Schulz iteration for the root; every position of every example is one value of a channel.

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
    steps
        T, steps of the iteration; :func:`companion.whitening.whitening_matrix` says how many are
        needed

    Raises
    ------
    TypeError, ValueError
        a number of another kind, or out of its range

    Notes
    -----
    As for :class:`DecorrelatedBatchNorm1d`.

    References
    ----------
    Huang et al. (2019), arXiv:1904.03441, with a running covariance and the stable form of the
    iteration.

    Examples
    --------
    >>> import torch
    >>> from companion.variants.iterative import IterNorm2d
    >>> IterNorm2d(32, groups=2)(torch.randn(4, 32, 5, 5)).shape
    torch.Size([4, 32, 5, 5])
    """

    _layouts: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}
