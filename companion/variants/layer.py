"""Layer normalization: each example, or each of its positions, on its own over its features.

Source: Ba, Kiros & Hinton (2016), arXiv:1607.06450.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from companion._torch import StandIn, called_by_tracer
from companion.kernels.layouts import with_layout_of

from ._standardize import check_input, check_parameter, standardize

__all__ = ["LayerNorm", "layer_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize over the last axes.

    y = (x - mean)/√(var + ε)·weight + bias, with mean and biased variance over the axes of
    `normalized_shape`, and a weight and bias for each of their elements.

    Parameters
    ----------
    input
        ``(*, *normalized_shape)``, float16, bfloat16, float32 or float64
    normalized_shape
        sizes of the last axes of `input`, at least one
    weight, bias
        of shape `normalized_shape`, any floating-point type; 1 and 0 if None
    eps
        added to the variance, inside the root; positive

    Returns
    -------
    Tensor
        of the shape, type and memory format of `input`; computed in float64, rounded once

    Raises
    ------
    ValueError
        other last axes; 1 value to normalize over; a parameter of another shape; `eps` is not
        positive
    TypeError
        not a floating-point tensor

    References
    ----------
    Ba, Kiros & Hinton (2016), arXiv:1607.06450; here with ε, and over any axes.

    Examples
    --------
    >>> layer_norm(torch.tensor([[1.0, 3.0], [10.0, 30.0]]), [2])
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    check_input(input, 1, "(..., *normalized_shape)")
    expected, count = tuple(normalized_shape), len(normalized_shape)
    if count == 0 or tuple(input.shape[-count:]) != expected:
        raise ValueError(
            f"normalized_shape: expected the sizes of the last axes of {tuple(input.shape)}, "
            f"at least one, got {expected}"
        )
    check_parameter("weight", weight, expected)
    check_parameter("bias", bias, expected)
    y = standardize(input, range(input.ndim - count, input.ndim), eps)
    if weight is not None:
        y = y * weight.to(torch.float64)
    if bias is not None:
        y = y + bias.to(torch.float64)
    return with_layout_of(input, y.to(input.dtype))


class LayerNorm(nn.LayerNorm):
    """Layer normalization: ``torch.nn.LayerNorm`` by :func:`layer_norm`.

    Constructor, parameters and state dictionary are PyTorch's. The statistics are float64; a single
    value to normalize over is refused, where PyTorch returns the bias.

    Parameters
    ----------
    normalized_shape
        sizes of the last axes of the input, at least one
    eps
        added to the variance, inside the root
    elementwise_affine, bias
        whether there is a weight per element, and a bias next to it
    device, dtype
        of the parameters

    References
    ----------
    Ba, Kiros & Hinton (2016), arXiv:1607.06450.

    Examples
    --------
    >>> LayerNorm(16)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, ``(*, *normalized_shape)``; as :func:`layer_norm`."""
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
