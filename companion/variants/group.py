"""Group normalization: each example on its own, over its positions and groups of its channels.

Source: Wu & He (2018), arXiv:1803.08494.
"""

from __future__ import annotations

from torch import Tensor, nn

from companion._torch import StandIn, called_by_tracer
from companion.kernels.layouts import with_layout_of

from ._standardize import check_input, check_parameter, scale_and_shift, standardize

__all__ = ["GroupNorm", "group_norm"]


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each group of channels of each example.

    y = (x - mean)/√(var + ε)·weight + bias, with mean and biased variance over the C/G channels of
    a group and all positions, and a weight and bias per channel.

    Parameters
    ----------
    input
        ``(N, C, *)``, float16, bfloat16, float32 or float64
    num_groups
        G, a divisor of C
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
        a rank under 2; G does not divide C; 1 value in a group; a parameter of another shape; `eps`
        is not positive
    TypeError
        not a floating-point tensor

    Notes
    -----
    G = 1 is layer normalization over ``(C, *)``, G = C instance normalization. An empty batch gives
    an empty result.

    References
    ----------
    Wu & He (2018), arXiv:1803.08494.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 3.0, 10.0, 30.0]])
    >>> group_norm(x, 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    check_input(input, 2, "(N, C, ...)")
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f"num_groups: expected a divisor of the {channels} channels, got {num_groups}"
        )
    check_parameter("weight", weight, (channels,))
    check_parameter("bias", bias, (channels,))
    grouped = input.unflatten(1, (num_groups, channels // num_groups))
    x_hat = standardize(grouped, range(2, grouped.ndim), eps).flatten(1, 2)
    return with_layout_of(input, scale_and_shift(x_hat, weight, bias).to(input.dtype))


class GroupNorm(nn.GroupNorm):
    """Group normalization of ``(N, C, *)``: ``torch.nn.GroupNorm`` by :func:`group_norm`.

    Constructor, parameters and state dictionary are PyTorch's. The statistics are float64; one
    value in a group is refused, where PyTorch returns the bias.

    Parameters
    ----------
    num_groups
        G, a divisor of C
    num_channels
        C
    eps
        added to the variance, inside the root
    affine, bias
        whether there is a weight per channel, and a bias next to it
    device, dtype
        of the parameters

    References
    ----------
    Wu & He (2018), arXiv:1803.08494.

    Examples
    --------
    >>> import torch
    >>> GroupNorm(2, 4)(torch.randn(8, 4, 5, 5)).shape
    torch.Size([8, 4, 5, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, ``(N, C, *)`` with C = `num_channels`; as :func:`group_norm`."""
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        check_input(input, 2, "(N, C, ...)")
        # Who prunes channels by hand may leave `num_channels` as it was: what is held counts.
        held = self.bias if self.weight is None else self.weight
        channels = self.num_channels if held is None else len(held)
        if input.shape[1] != channels:
            raise ValueError(
                f"input: expected {channels} channels in dimension 1, "
                f"got {input.shape[1]}: {tuple(input.shape)}"
            )
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
