"""Cholesky whitening: W = L^(-1) with Σ = L Lᵀ, the Gram–Schmidt process feature by feature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _InverseFactor(torch.autograd.Function):
    """L^(-1), lower triangular with a positive diagonal, of a symmetric positive definite Σ.

    From W Σ Wᵀ = I: dW W^(-1) + (dW W^(-1))ᵀ = -W dΣ Wᵀ. The first term is lower triangular, so it
    is the lower half Φ(-W dΣ Wᵀ), which keeps half of the diagonal, and dW = -Φ(W dΣ Wᵀ) W.
    Transposed: ∂L/∂Σ = -Wᵀ sym(Φ(∂L/∂W Wᵀ)) W. Nothing is divided by.
    """

    @staticmethod
    def forward(ctx: Any, sigma: Tensor) -> Tensor:
        identity = torch.eye(sigma.shape[-1], dtype=sigma.dtype, device=sigma.device)
        factor = torch.linalg.cholesky(sigma)
        matrix = torch.linalg.solve_triangular(factor, identity, upper=False)
        ctx.save_for_backward(matrix)
        return matrix

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (matrix,) = ctx.saved_tensors
        lower = (grads[0] @ matrix.mT).tril()
        # Twice sym(Φ(.)): the diagonal, halved, comes twice.
        twice = lower.tril(-1) + lower.mT
        return -matrix.mT @ twice @ matrix / 2


def inverse_factor(sigma: Tensor) -> Tensor:
    """L^(-1) with Σ = L Lᵀ, differentiable any number of times, at equal eigenvalues too.

    Parameters
    ----------
    sigma
        Σ, symmetric positive definite, ``(*, d, d)``, float64

    References
    ----------
    Eq. (13) whitening/three-whitenings.
    """
    result: Tensor = _InverseFactor.apply(sigma)
    return result
