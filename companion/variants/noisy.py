"""Noisy batch normalization: a covariate shift put back on purpose after each layer.

At every step each channel draws a distribution of noise, and each activation draws its own scale
and shift from it. What the next layer sees is then less stable than without normalization; that
training hardly suffers is the experiment's argument.

Source: Santurkar, Tsipras, Ilyas & Mądry (2018), arXiv:1805.11604, section 2.1 and appendix.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from companion._torch import StandIn, called_by_tracer
from companion.kernels.eager import compute_dtype
from companion.kernels.layouts import with_layout_of
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm
from companion.running import recomputing

__all__ = ["NoisyBatchNorm1d", "NoisyBatchNorm2d", "NoisyBatchNorm3d"]


class _NoisyBatchNorm(_CompanionBatchNorm):
    """What the three layers add to batch normalization: the noise after it, in training."""

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
        shift_limit: float = 0.5,
        scale_limit: float = 1.25,
        shift_spread: float = 0.1,
        scale_spread: float = 0.1,
        generator: torch.Generator | None = None,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        for name, value, least in (
            ("shift_limit", shift_limit, 0.0),
            ("scale_limit", scale_limit, 1.0),
            ("shift_spread", shift_spread, 0.0),
            ("scale_spread", scale_spread, 0.0),
        ):
            if not value >= least:
                raise ValueError(f"{name}: expected a number not below {least}, got {value}")
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.shift_limit, self.scale_limit = shift_limit, scale_limit
        self.shift_spread, self.scale_spread = shift_spread, scale_spread
        self.generator = generator

    def extra_repr(self) -> str:
        """The text of the layer without noise, and the noise's four numbers."""
        return (
            f"{super().extra_repr()}, shift_limit={self.shift_limit}, "
            f"scale_limit={self.scale_limit}, shift_spread={self.shift_spread}, "
            f"scale_spread={self.scale_spread}"
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`; in training scale and shift each activation at random.

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
        RuntimeError
            a forward pass that activation checkpointing repeats, with a `generator`: it would draw
            other noise
        ValueError, RuntimeError, NotImplementedError, TypeError
            as batch normalization; nothing is changed then

        References
        ----------
        Santurkar et al. (2018), arXiv:1805.11604, appendix, "noisy" batch normalization.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        if self.training and self.generator is not None and recomputing():
            raise RuntimeError(
                "generator: expected None under activation checkpointing, which restores the "
                "default generator only, got one"
            )
        y = super().forward(input)
        if not self.training:
            return y
        scale, shift = self._noise(y)
        noisy = torch.addcmul(shift, y.to(scale.dtype), scale).to(y.dtype)
        return with_layout_of(y, noisy)

    def _noise(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """s and m for each activation, in the type of computation."""
        generator, dtype = self.generator, compute_dtype(y.dtype)
        device = y.device if generator is None else generator.device

        def uniform(low: Tensor | float, high: Tensor | float, size: torch.Size) -> Tensor:
            drawn = torch.rand(size, generator=generator, dtype=dtype, device=device)
            return low + (high - low) * drawn

        channels = torch.Size((y.shape[1], *(1,) * (y.ndim - 2)))
        mu = uniform(-self.shift_limit, self.shift_limit, channels)
        sigma = uniform(1.0, self.scale_limit, channels)
        shift = uniform(mu - self.shift_spread, mu + self.shift_spread, y.shape)
        drawn = torch.randn(y.shape, generator=generator, dtype=dtype, device=device)
        scale = sigma + self.scale_spread * drawn
        return scale.to(y.device), shift.to(y.device)


class NoisyBatchNorm1d(_NoisyBatchNorm):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)`` with noise after it.

    In training y = s·BatchNorm(x) + m. In every call each channel draws

        μ ~ U(-shift_limit, shift_limit) and σ ~ U(1, scale_limit),

    and each activation, of each example and position, draws from its channel's distribution

        m ~ U(μ - shift_spread, μ + shift_spread) and s ~ N(σ, scale_spread²).

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
    shift_limit, scale_limit
        n_μ and n_σ of the paper, at least 0 and 1
    shift_spread, scale_spread
        r_μ and r_σ of the paper, at least 0; the latter is taken as a standard deviation. The
        defaults of the four are the paper's
    generator
        what the noise is drawn with; PyTorch's default one if None
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        one of the four numbers is too low

    Notes
    -----
    *Limits.* With limits of 0 and 1 and spreads of 0 the layer is batch normalization.

    *Running statistics* are those of the input, as without noise. *Inference* has no noise.

    *Devices.* The noise is drawn on the generator's device and moved; one generator gives the same
    noise to every device.

    References
    ----------
    Santurkar, Tsipras, Ilyas & Mądry (2018), arXiv:1805.11604.

    Examples
    --------
    >>> x = torch.randn(8, 3)
    >>> runs = [
    ...     NoisyBatchNorm1d(3, generator=torch.Generator().manual_seed(0))(x) for _ in range(2)
    ... ]
    >>> torch.equal(*runs)
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class NoisyBatchNorm2d(_NoisyBatchNorm):
    """Batch normalization of ``(N, C, H, W)`` with noise after it.

    In training y = s·BatchNorm(x) + m. In every call each channel draws

        μ ~ U(-shift_limit, shift_limit) and σ ~ U(1, scale_limit),

    and each activation, of each example and position, draws from its channel's distribution

        m ~ U(μ - shift_spread, μ + shift_spread) and s ~ N(σ, scale_spread²).

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
    shift_limit, scale_limit
        n_μ and n_σ of the paper, at least 0 and 1
    shift_spread, scale_spread
        r_μ and r_σ of the paper, at least 0; the latter is taken as a standard deviation. The
        defaults of the four are the paper's
    generator
        what the noise is drawn with; PyTorch's default one if None
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        one of the four numbers is too low

    Notes
    -----
    See :class:`NoisyBatchNorm1d`.

    References
    ----------
    Santurkar, Tsipras, Ilyas & Mądry (2018), arXiv:1805.11604.

    Examples
    --------
    >>> layer, x = NoisyBatchNorm2d(3), torch.randn(2, 3, 4, 4)
    >>> torch.equal(layer(x), layer(x))  # other noise at every step
    False
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


class NoisyBatchNorm3d(_NoisyBatchNorm):
    """Batch normalization of ``(N, C, D, H, W)`` with noise after it.

    In training y = s·BatchNorm(x) + m. In every call each channel draws

        μ ~ U(-shift_limit, shift_limit) and σ ~ U(1, scale_limit),

    and each activation, of each example and position, draws from its channel's distribution

        m ~ U(μ - shift_spread, μ + shift_spread) and s ~ N(σ, scale_spread²).

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
    shift_limit, scale_limit
        n_μ and n_σ of the paper, at least 0 and 1
    shift_spread, scale_spread
        r_μ and r_σ of the paper, at least 0; the latter is taken as a standard deviation. The
        defaults of the four are the paper's
    generator
        what the noise is drawn with; PyTorch's default one if None
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        one of the four numbers is too low

    Notes
    -----
    See :class:`NoisyBatchNorm1d`.

    References
    ----------
    Santurkar, Tsipras, Ilyas & Mądry (2018), arXiv:1805.11604.

    Examples
    --------
    >>> layer, x = NoisyBatchNorm3d(3).eval(), torch.randn(2, 3, 2, 4, 4)
    >>> torch.equal(layer(x), layer(x))
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts
