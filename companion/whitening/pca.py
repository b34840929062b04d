"""PCA whitening: W = Λ^(-1/2)Dᵀ, turn to the principal axes, rescale, and do not turn back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# How many roundings of float64, times d, two equal eigenvalues may be apart.
_EQUAL = 10.0


class _SymmetricEigen(torch.autograd.Function):
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix: Σ = D Λ Dᵀ."""

    @staticmethod
    def forward(ctx: Any, sigma: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(sigma)
        ctx.save_for_backward(values, vectors)
        return values, vectors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        grad_values, grad_vectors = grads
        inner = torch.diag_embed(grad_values) + _turning(grad_vectors, values, vectors)
        return vectors @ inner @ vectors.mT


def _turning(grad_vectors: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """∂L/∂(Dᵀ Σ D) off the diagonal: ½(M_ij - M_ji)/(λ_j - λ_i) with M = Dᵀ ∂L/∂D.

    Where two eigenvalues are equal (to rounding) D has no derivative, and the entry is NaN; except
    where the loss asks for none, M_ij = M_ji = 0 (to half of the digits): there it is 0.
    """
    rounding = torch.finfo(values.dtype).eps
    projected = vectors.mT @ grad_vectors
    gap = values[..., None, :] - values[..., :, None]
    largest = values.detach().abs().amax(dim=-1)[..., None, None]
    equal = gap.detach().abs() <= _EQUAL * values.shape[-1] * rounding * largest
    lengths = grad_vectors.detach().norm(dim=-2)
    nothing = projected.detach().abs() <= math.sqrt(rounding) * lengths[..., None, :]
    undefined = torch.where(nothing & nothing.mT, 0.0, torch.nan).to(values.dtype)
    # The diagonal is no pair.
    undefined = undefined.tril(-1) + undefined.triu(1)
    # Divide by 1 where nothing is to be divided: a NaN would come back through torch.where.
    quotient = (projected - projected.mT) / 2 / torch.where(equal, 1.0, gap)
    return torch.where(equal, undefined, quotient)


def principal_axes(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors, in columns; differentiable.

    Backward: Eq. (21) whitening/pca-differential, transposed. It divides by differences of
    eigenvalues. At equal ones any orthogonal axes of their plane are principal: there is no
    derivative, and the gradient is NaN. It is finite if the loss does not move, to first order,
    with a part of one such axis along the other, as with the directions that a batch of too few
    examples does not have, on which every example is 0.

    Parameters
    ----------
    sigma
        Σ, symmetric, ``(*, d, d)``, float64
    """
    values, vectors = _SymmetricEigen.apply(sigma)
    return values, vectors


def principal_components(values: Tensor, vectors: Tensor) -> Tensor:
    """Λ^(-1/2)Dᵀ, by decreasing eigenvalue, each row's largest entry (in size) positive.

    Source: Eq. (13) whitening/three-whitenings.
    """
    vectors, values = vectors.flip(-1), values.flip(-1)
    largest = vectors.detach().abs().argmax(dim=-2, keepdim=True)
    sign = vectors.detach().gather(-2, largest).sign()
    return (vectors * sign / values.sqrt()[..., None, :]).mT
