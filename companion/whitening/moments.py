"""Mean and covariance matrix of a batch, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from companion.whitening.checks import check_matrix


class Moments(NamedTuple):
    """What whitening needs to know of ``(*, d, m)`` values: d features of m examples."""

    centred: Tensor
    """The values less their mean, ``(*, d, m)``, float64."""
    mean: Tensor
    """``(*, d, 1)``, float64."""
    covariance: Tensor
    """Biased, ``(*, d, d)``, float64."""


def moments(values: Tensor) -> Moments:
    """Mean and biased covariance of the rows of `values`, ``(*, d, m)``; differentiable.

    Source: Eq. (8) whitening/covariance-matrix.
    """
    wide = values.to(torch.float64)
    mean = wide.mean(dim=-1, keepdim=True)
    centred = wide - mean
    # The rounding error of the mean is itself a mean: take it off.
    residue = centred.mean(dim=-1, keepdim=True)
    centred = centred - residue
    return Moments(centred, mean + residue, centred @ centred.mT / values.shape[-1])


def covariance(x: Tensor) -> Tensor:
    """Biased covariance matrix of the columns of `x`: X̃ᵀX̃/m, with X̃ the centred rows.

    Parameters
    ----------
    x
        ``(m, d)``, one example a row; floating point

    Returns
    -------
    Tensor
        ``(d, d)``, float64, in the square of the features' units

    Raises
    ------
    ValueError
        not a matrix, or no rows or columns
    TypeError
        not a floating-point tensor

    References
    ----------
    Eq. (8) whitening/covariance-matrix.

    Examples
    --------
    >>> import torch
    >>> from companion.whitening import covariance
    >>> covariance(torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0]]))
    tensor([[2.6667, 2.6667],
            [2.6667, 2.6667]], dtype=torch.float64)
    """
    check_matrix("x", x)
    return moments(x.mT).covariance
