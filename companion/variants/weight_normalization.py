"""Weight normalization: a weight as a length times a direction, learned apart.

It decouples the two as batch normalization does, without looking at data: no statistics, no
difference between training and inference, and nothing that keeps the activations' mean at 0.

Source: Salimans & Kingma (2016), arXiv:1602.07868.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WeightNorm", "weight_norm"]


def _length(v: Tensor, dim: int | None) -> Tensor:
    """‖v‖ of each slice along `dim`, in float64; the other axes stay, with size 1."""
    axes = tuple(axis for axis in range(v.ndim) if dim is None or axis != dim % v.ndim)
    wide = v.to(torch.float64)
    # An empty tuple of axes would mean all of them.
    return torch.linalg.vector_norm(wide, dim=axes, keepdim=True) if axes else wide.abs()


def weight_norm(v: Tensor, g: Tensor, dim: int | None = 0) -> Tensor:
    """w = g·v/‖v‖, with one length g for each slice of v along `dim`.

    Parameters
    ----------
    v
        the direction, any shape; a floating-point tensor without slices of zeros
    g
        the lengths: as v, with size 1 on all axes but `dim` (PyTorch's layout)
    dim
        the axis of the output units; None for one length for all of v, ``()`` or all sizes 1

    Returns
    -------
    Tensor
        of the shape and type of `v`; computed in float64, so that no square overflows

    Raises
    ------
    ValueError
        another shape of `g`
    TypeError
        `v` is not a floating-point tensor
    IndexError
        `dim` is not an axis of `v`

    Notes
    -----
    The gradient with respect to v is orthogonal to v, so that steps only lengthen it; that with
    respect to g is the component of ∂L/∂w along v.

    References
    ----------
    Salimans & Kingma (2016), arXiv:1602.07868, Eq. (2); gradients Eq. (3).

    Examples
    --------
    >>> weight_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]]))
    tensor([[6., 8.]])
    """
    if not v.is_floating_point():
        raise TypeError(f"v: expected a floating-point tensor, got {v.dtype}")
    if dim is not None and not -v.ndim <= dim < v.ndim:
        raise IndexError(f"dim: expected an axis of v, of shape {tuple(v.shape)}, got {dim}")
    length = _length(v, dim)
    if g.shape != length.shape and not (dim is None and g.ndim == 0):
        raise ValueError(f"g: expected shape {tuple(length.shape)}, got {tuple(g.shape)}")
    return (v.to(torch.float64) * (g.to(torch.float64) / length)).to(v.dtype)


class WeightNorm(nn.Module):
    """:func:`weight_norm` as a parametrization, for ``torch.nn.utils.parametrize``.

    Registered on a layer's weight it leaves the weight's value as it is, and the layer learns g and
    v. The state dictionary has the keys and values of
    ``torch.nn.utils.parametrizations.weight_norm``: ``original0`` is g, ``original1`` is v.

    Parameters
    ----------
    dim
        the axis of the output units; None for one length for the whole weight

    References
    ----------
    Salimans & Kingma (2016), arXiv:1602.07868, Eq. (2).

    Examples
    --------
    >>> layer = nn.Linear(4, 3)
    >>> _ = nn.utils.parametrize.register_parametrization(layer, "weight", WeightNorm())
    >>> [(name, tuple(value.shape)) for name, value in layer.named_parameters()][1:]
    [('parametrizations.weight.original0', (3, 1)), ('parametrizations.weight.original1', (3, 4))]
    """

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight."""
        return weight_norm(v, g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and v with which :meth:`forward` returns `weight`."""
        return _length(weight, self.dim).to(weight.dtype), weight
