"""Whitening of a batch by its own mean and covariance, all features together or in groups."""

from __future__ import annotations

from torch import Tensor

from companion.whitening.checks import check_groups, check_matrix
from companion.whitening.matrix import Method, whitening_matrix_of
from companion.whitening.moments import moments

__all__ = ["whiten"]


def whiten(
    x: Tensor, method: Method = "zca", eps: float = 0.0, *, groups: int = 1, steps: int = 15
) -> Tensor:
    """Centre the batch and multiply it by its whitening matrix.

    At ε = 0 the result has mean 0 and (biased) covariance I. With ε > 0 the covariance of the
    result has the eigenvalues λ/(λ+ε), where λ are those of the covariance of `x`; with ZCA and PCA
    its principal axes are the same, or the coordinate axes. A direction that the batch does not
    have, λ = 0, stays 0. ε is thus the variance below which a direction counts as noise.

    Parameters
    ----------
    x
        ``(m, d)``, one example a row; floating point; more than d/`groups` rows if `eps` is 0
    method, eps, steps
        as in :func:`whitening_matrix`
    groups
        into how many groups of d/`groups` neighbouring features to cut the features; each is
        whitened by itself. With d groups this is standardization

    Returns
    -------
    Tensor
        of the shape and type of `x`; differentiable, mean and covariance included

    Raises
    ------
    ValueError, TypeError
        as :func:`covariance` and :func:`whitening_matrix`; also `groups` that is not an integer and
        a divisor of d

    References
    ----------
    Eq. (11) whitening/whitening-condition; Eq. (16) whitening/whitening-epsilon; groups: Huang et
    al. (2018), arXiv:1804.08450.

    Examples
    --------
    >>> import torch
    >>> from companion.whitening import covariance, whiten
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 4.0], [5.0, 2.0]], dtype=torch.float64)
    >>> torch.allclose(covariance(whiten(x)), torch.eye(2, dtype=torch.float64))
    True
    """
    check_matrix("x", x)
    m, d = x.shape
    check_groups(groups, d)
    batch = moments(x.mT.reshape(groups, d // groups, m))
    matrix = whitening_matrix_of(batch.covariance, method, eps, steps, values=m)
    return (matrix @ batch.centred).reshape(d, m).mT.to(x.dtype)
