"""Weight standardization: the weights of each output unit at mean 0 and variance 1.

It standardizes weights where batch normalization standardizes activations, needs no batch, and is
used with group normalization where batches are too small.

Source: Qiao, Wang, Liu, Shen & Yuille (2019), arXiv:1903.10520.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._standardize import check_input, standardize

__all__ = ["WeightStandardization", "weight_standardize"]


def weight_standardize(weight: Tensor, eps: float = 1e-5) -> Tensor:
    """ŵ = (w - mean)/√(var + ε) for each output unit, over its inputs and kernel positions.

    Parameters
    ----------
    weight
        of a linear or convolution layer, ``(out, in, *kernel)``, floating point
    eps
        added to the biased variance, inside the root; positive

    Returns
    -------
    Tensor
        of the shape and type of `weight`; computed in float64. Row means are 0, row variances
        var/(var + ε)

    Raises
    ------
    ValueError
        a rank under 2; 1 weight per unit; `eps` is not positive
    TypeError
        not a floating-point tensor

    Notes
    -----
    The gradient with respect to w has mean 0 over each row, and at ε → 0 is orthogonal to w.

    References
    ----------
    Qiao et al. (2019), arXiv:1903.10520, with ε inside the root.

    Examples
    --------
    >>> import torch
    >>> weight_standardize(torch.tensor([[1.0, 3.0], [10.0, 30.0]]))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    check_input(weight, 2, "(out, in, ...)")
    return standardize(weight, range(1, weight.ndim), eps).to(weight.dtype)


class WeightStandardization(nn.Module):
    """:func:`weight_standardize` as a parametrization, for ``torch.nn.utils.parametrize``.

    Registered on a layer's weight: the layer learns w and computes with ŵ. Unlike weight
    normalization it changes the weight's value.

    Parameters
    ----------
    eps
        added to the variance, inside the root

    References
    ----------
    Qiao et al. (2019), arXiv:1903.10520.

    Examples
    --------
    >>> layer = nn.Conv2d(3, 8, 3)
    >>> parametrization = WeightStandardization()
    >>> _ = nn.utils.parametrize.register_parametrization(layer, "weight", parametrization)
    >>> bool(layer.weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6)
    True
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        """Return the standardized weight."""
        return weight_standardize(weight, self.eps)
