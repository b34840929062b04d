"""ZCA whitening: W = Σ^(-1/2), the one whitening matrix that is symmetric and positive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Sylvester(torch.autograd.Function):
    """The solution Y of S Y + Y S = B, for a symmetric positive definite S.

    In the eigenbasis of S the equation is diagonal: Y_ij = B_ij/(s_i + s_j). The eigenvectors and
    eigenvalues come from the caller and count as constants: what Y owes to S is in the backward
    pass, which is a Sylvester equation again, so that all higher derivatives exist.
    """

    @staticmethod
    def forward(ctx: Any, root: Tensor, rhs: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
        sums = values[..., :, None] + values[..., None, :]
        solution: Tensor = vectors @ (vectors.mT @ rhs @ vectors / sums) @ vectors.mT
        ctx.save_for_backward(root, solution, vectors, values)
        return solution

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        root, solution, vectors, values = ctx.saved_tensors
        (grad,) = grads
        grad_rhs = _Sylvester.apply(root, grad, vectors, values)
        return -(grad_rhs @ solution.mT + solution.mT @ grad_rhs), grad_rhs, None, None


class _InverseRoot(torch.autograd.Function):
    """Σ^(-1/2) of a symmetric positive definite Σ, from its eigenvectors and eigenvalues."""

    @staticmethod
    def forward(ctx: Any, sigma: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
        root: Tensor = vectors / values.sqrt()[..., None, :] @ vectors.mT
        ctx.save_for_backward(sigma, root, vectors, values)
        return root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sigma, inverse_root, vectors, values = ctx.saved_tensors
        root = sigma @ inverse_root
        solution = _Sylvester.apply(root, grads[0], vectors, values.sqrt())
        return -inverse_root @ solution @ inverse_root, None, None


def inverse_root(sigma: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
    """Σ^(-1/2), symmetric, differentiable any number of times.

    Backward: with S = Σ^(1/2), ∂L/∂Σ = -W Y W where S Y + Y S = ∂L/∂W; in the eigenbasis,
    Eq. (20) whitening/zca-gradient. It divides by sums of eigenvalues, never by differences, and
    so is finite where they coincide.

    Parameters
    ----------
    sigma
        Σ, symmetric positive definite, ``(*, d, d)``, float64
    vectors, values
        what ``torch.linalg.eigh`` says of it, without a gradient

    References
    ----------
    Eq. (13) whitening/three-whitenings; Eq. (18) whitening/sylvester.
    """
    result: Tensor = _InverseRoot.apply(sigma, vectors, values)
    return result
