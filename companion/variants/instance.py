"""Instance normalization: each channel of each example on its own, over its positions.

Source: Ulyanov, Vedaldi & Lempitsky (2016), arXiv:1607.08022.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from companion._torch import StandIn, called_by_tracer
from companion.kernels.layouts import with_layout_of

from ._standardize import check_input, check_parameter, scale_and_shift, standardize

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "instance_norm"]


def instance_norm(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalize each channel of each example over its positions.

    y = (x - mean)/√(var + ε)·weight + bias, with the biased variance.

    Parameters
    ----------
    input
        ``(N, C, *)`` with at least one spatial axis; float16, bfloat16, float32 or float64
    weight, bias
        ``(C,)``, any floating-point type; 1 and 0 if None
    eps
        added to the variance, inside the root; positive

    Returns
    -------
    Tensor
        of the shape, type and memory format of `input`; computed in float64, rounded once

    Raises
    ------
    ValueError
        a rank under 3; 1 position; a parameter of another shape; `eps` is not positive
    TypeError
        not a floating-point tensor

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), arXiv:1607.08022.

    Examples
    --------
    >>> instance_norm(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    check_input(input, 3, "(N, C, ...)")
    check_parameter("weight", weight, (input.shape[1],))
    check_parameter("bias", bias, (input.shape[1],))
    x_hat = standardize(input, range(2, input.ndim), eps)
    return with_layout_of(input, scale_and_shift(x_hat, weight, bias).to(input.dtype))


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """What the three layers share: PyTorch's state, :func:`instance_norm`."""

    _layouts: ClassVar[dict[int, str]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if track_running_stats:
            raise ValueError(
                "track_running_stats: expected False, got True; a ghost batch normalization with "
                "ghost_size=1 is instance normalization with running statistics"
            )
        parent: Any = super()
        parent.__init__(num_features, eps, momentum, affine, False, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, with or without the batch axis; as :func:`instance_norm`.

        Raises
        ------
        ValueError, TypeError
            another rank or number of channels, and as :func:`instance_norm`
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        check_input(input, 1, "(N, C, ...)")
        if input.ndim not in type(self)._layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in type(self)._layouts.items())
            raise ValueError(
                f"input: expected dimensions {expected}, got {input.ndim}: {tuple(input.shape)}"
            )
        axis = input.ndim - min(type(self)._layouts)
        if input.shape[axis] != self.num_features:
            raise ValueError(
                f"input: expected {self.num_features} channels in dimension {axis}, "
                f"got {input.shape[axis]}: {tuple(input.shape)}"
            )
        batch = input if axis else input.unsqueeze(0)
        y = instance_norm(batch, self.weight, self.bias, self.eps)
        return y if axis else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """Instance normalization of ``(N, C, L)`` or ``(C, L)``, as PyTorch's layer.

    y = (x - mean)/√(var + ε)·weight + bias, with mean and biased variance of each example and
    channel.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect
    affine
        whether to learn a weight and a bias per channel
    track_running_stats
        False
    device, dtype
        of the parameters

    Raises
    ------
    ValueError
        `track_running_stats` is True

    Notes
    -----
    Constructor, parameters and state dictionary are PyTorch's. The statistics are float64.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), arXiv:1607.08022.

    Examples
    --------
    >>> InstanceNorm1d(3)(torch.randn(2, 3, 8)).mean().abs() < 1e-6
    tensor(True)
    """

    _layouts: ClassVar[dict[int, str]] = {2: "(C, L)", 3: "(N, C, L)"}


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """Instance normalization of ``(N, C, H, W)`` or ``(C, H, W)``, as PyTorch's layer.

    y = (x - mean)/√(var + ε)·weight + bias, with mean and biased variance of each example and
    channel.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect
    affine
        whether to learn a weight and a bias per channel
    track_running_stats
        False
    device, dtype
        of the parameters

    Raises
    ------
    ValueError
        `track_running_stats` is True

    Notes
    -----
    See :class:`InstanceNorm1d`.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), arXiv:1607.08022.

    Examples
    --------
    >>> image = torch.rand(1, 3, 8, 8)
    >>> layer = InstanceNorm2d(3)
    >>> torch.allclose(layer(0.3 * image + 0.5), layer(image), atol=1e-2)  # contrast is removed
    True
    """

    _layouts: ClassVar[dict[int, str]] = {3: "(C, H, W)", 4: "(N, C, H, W)"}


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """Instance normalization of ``(N, C, D, H, W)`` or ``(C, D, H, W)``, as PyTorch's layer.

    y = (x - mean)/√(var + ε)·weight + bias, with mean and biased variance of each example and
    channel.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect
    affine
        whether to learn a weight and a bias per channel
    track_running_stats
        False
    device, dtype
        of the parameters

    Raises
    ------
    ValueError
        `track_running_stats` is True

    Notes
    -----
    See :class:`InstanceNorm1d`.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), arXiv:1607.08022.

    Examples
    --------
    >>> InstanceNorm3d(3, affine=True)(torch.randn(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = {4: "(C, D, H, W)", 5: "(N, C, D, H, W)"}
