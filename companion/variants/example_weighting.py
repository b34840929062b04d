"""Inference example weighting: an example counts in its own statistics, as it did in training.

In a training batch of B examples each one makes up 1/B of the mean and the variance that normalize
it; at inference it makes up nothing. With small B the two modes differ, even with perfect running
statistics. Here the running statistics are mixed, at inference, with those of the example itself.

Source: Summers & Dinneen (2020), arXiv:1906.03548; Singh & Shrivastava (2019),
"EvalNorm", arXiv:1904.06031, which found the same cause and mixes likewise.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from companion._torch import StandIn, called_by_tracer
from companion.checks import check_arguments
from companion.kernels.interface import Running
from companion.kernels.layouts import with_layout_of
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm

from ._standardize import scale_and_shift

__all__ = ["ExampleWeightedBatchNorm1d", "ExampleWeightedBatchNorm2d", "ExampleWeightedBatchNorm3d"]


class _ExampleWeightedBatchNorm(_CompanionBatchNorm):
    """What the three layers add to batch normalization: the example's share at inference."""

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
        alpha: float,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The example's share, from 0 to 1; may be set, as a search on validation data does."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"alpha: expected a number from 0 to 1, got {value}")
        self._alpha = float(value)

    def extra_repr(self) -> str:
        """The text of the layer without weighting, and `alpha`."""
        return f"{super().extra_repr()}, alpha={self.alpha}"

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`; at inference each example with statistics that it shares in.

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
        ValueError, RuntimeError, NotImplementedError, TypeError
            as batch normalization; nothing is changed then

        References
        ----------
        Summers & Dinneen (2020), arXiv:1906.03548.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        mean, var = self.running_mean, self.running_var
        unmixed = self.training or self.alpha == 0.0 or not isinstance(input, Tensor)
        if unmixed or mean is None or var is None:
            return super().forward(input)
        self._check_input(input)
        running = Running(mean, var, None, 0.0, False)
        check_arguments(input, running, self.weight, self.bias, False, self.eps)
        return self._weighted(input, mean, var)

    def _weighted(self, input: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        """Normalize with α parts of each example and 1 - α parts of the running statistics."""
        alpha = self.alpha
        x = input.to(torch.float64).reshape(*input.shape[:2], input.shape[2:].numel())
        running_mean = running_mean.to(torch.float64)[:, None]
        running_var = running_var.to(torch.float64)[:, None]
        own_mean = x.mean(2, keepdim=True)
        own_var = (x - own_mean).square().mean(2, keepdim=True)
        mean = alpha * own_mean + (1.0 - alpha) * running_mean
        # What E[x²] - E[x]² of the mixture is, without its cancellation.
        between = alpha * (1.0 - alpha) * (own_mean - running_mean).square()
        var = alpha * own_var + (1.0 - alpha) * running_var + between
        x_hat = (x - mean) * (var + self.eps).rsqrt()
        y = scale_and_shift(x_hat, self.weight, self.bias)
        return with_layout_of(input, y.to(input.dtype).reshape(input.shape))


class ExampleWeightedBatchNorm1d(_ExampleWeightedBatchNorm):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)`` with example weighting at inference.

    At inference, with mean m_i and biased variance v_i of example i over its own positions,

        μ_i = α·m_i + (1 - α)·μ,
        σ²_i = α·v_i + (1 - α)·σ² + α(1 - α)(m_i - μ)²,
        y_i = γ·(x_i - μ_i)/√(σ²_i + ε) + β:

    the mean and variance of a mixture of the example, α of it, and the running distribution.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    alpha
        α, the example's share, from 0 to 1; an attribute too. 1/B makes up for training with
        batches (or ghost batches) of B examples; the paper searches it on validation data
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `alpha` outside of 0 to 1

    Notes
    -----
    *Limits.* α = 0 is ordinary inference, α = 1 instance normalization. With α = 1/B, and the mean
    and variance of the other B - 1 examples of a batch as running statistics, example i gets
    exactly the output of training on that batch.

    *Training* is batch normalization's. State dictionaries are, too: load those of a model that is
    trained already. `backend` has no effect where examples share.

    References
    ----------
    Summers & Dinneen (2020), arXiv:1906.03548; Singh & Shrivastava (2019), arXiv:1904.06031.

    Examples
    --------
    >>> layer, x = ExampleWeightedBatchNorm1d(1, alpha=0.5).eval(), torch.tensor([[2.0]])
    >>> layer(x).detach()  # mean 1, variance 0.5·0 + 0.5·1 + 0.25·4 = 1.5
    tensor([[0.8165]])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class ExampleWeightedBatchNorm2d(_ExampleWeightedBatchNorm):
    """Batch normalization of ``(N, C, H, W)`` with example weighting at inference.

    At inference, with mean m_i and biased variance v_i of example i over its own positions,

        μ_i = α·m_i + (1 - α)·μ,
        σ²_i = α·v_i + (1 - α)·σ² + α(1 - α)(m_i - μ)²,
        y_i = γ·(x_i - μ_i)/√(σ²_i + ε) + β:

    the mean and variance of a mixture of the example, α of it, and the running distribution.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    alpha
        α, the example's share, from 0 to 1; an attribute too. 1/B makes up for training with
        batches (or ghost batches) of B examples; the paper searches it on validation data
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `alpha` outside of 0 to 1

    Notes
    -----
    See :class:`ExampleWeightedBatchNorm1d`.

    References
    ----------
    Summers & Dinneen (2020), arXiv:1906.03548; Singh & Shrivastava (2019), arXiv:1904.06031.

    Examples
    --------
    >>> layer, x = ExampleWeightedBatchNorm2d(3, alpha=1.0).eval(), torch.randn(2, 3, 4, 4)
    >>> torch.allclose(layer(x), torch.nn.functional.instance_norm(x), atol=1e-5)
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


class ExampleWeightedBatchNorm3d(_ExampleWeightedBatchNorm):
    """Batch normalization of ``(N, C, D, H, W)`` with example weighting at inference.

    At inference, with mean m_i and biased variance v_i of example i over its own positions,

        μ_i = α·m_i + (1 - α)·μ,
        σ²_i = α·v_i + (1 - α)·σ² + α(1 - α)(m_i - μ)²,
        y_i = γ·(x_i - μ_i)/√(σ²_i + ε) + β:

    the mean and variance of a mixture of the example, α of it, and the running distribution.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    alpha
        α, the example's share, from 0 to 1; an attribute too. 1/B makes up for training with
        batches (or ghost batches) of B examples; the paper searches it on validation data
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `alpha` outside of 0 to 1

    Notes
    -----
    See :class:`ExampleWeightedBatchNorm1d`.

    References
    ----------
    Summers & Dinneen (2020), arXiv:1906.03548; Singh & Shrivastava (2019), arXiv:1904.06031.

    Examples
    --------
    >>> layer = ExampleWeightedBatchNorm3d(3, alpha=1 / 8).eval()
    >>> layer(torch.randn(1, 3, 2, 4, 4)).shape
    torch.Size([1, 3, 2, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts
