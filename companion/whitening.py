"""Whitening: a linear map after which every feature has variance 1 and no two are correlated.

:func:`whiten` subtracts the mean of a batch and multiplies by a matrix W with W Σ Wᵀ = I. There are
many such W; the three in use are ZCA, PCA and Cholesky whitening. ZCA's is Σ^(-1/2), and its
derivative is a closed form that stays finite where eigenvalues coincide.

Statistics, decompositions and products are float64 whatever the input is, on the CPU and on CUDA;
the result has the input's type.

Source: Kessy, Lewin & Strimmer (2018), "Optimal Whitening and Decorrelation"; the chapter
`whitening`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Method", "covariance", "gd_steps", "whiten", "whitening_matrix"]

Method = Literal["zca", "pca", "cholesky"]


class _Sylvester(torch.autograd.Function):
    """The solution Y of S Y + Y S = B, for a symmetric positive definite S.

    In the eigenbasis of S the equation is diagonal: Y_ij = B_ij/(s_i + s_j). The eigenvectors and
    eigenvalues come from the caller and count as constants: what Y owes to S is in the backward
    pass, which is a Sylvester equation again, so that all higher derivatives exist.
    """

    @staticmethod
    def forward(ctx: Any, root: Tensor, rhs: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
        rotated = vectors.T @ rhs @ vectors / (values[:, None] + values)
        solution: Tensor = vectors @ rotated @ vectors.T
        ctx.save_for_backward(root, solution, vectors, values)
        return solution

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        root, solution, vectors, values = ctx.saved_tensors
        (grad,) = grads
        grad_rhs = _Sylvester.apply(root, grad, vectors, values)
        return -(grad_rhs @ solution.T + solution.T @ grad_rhs), grad_rhs, None, None


class _InverseSqrt(torch.autograd.Function):
    """Σ^(-1/2) of a symmetric positive definite Σ, from its eigenvectors and eigenvalues.

    Backward: with S = Σ^(1/2), ∂L/∂Σ = -W Y W where S Y + Y S = ∂L/∂W; in the eigenbasis,
    Eq. (20) whitening/zca-gradient. It divides by sums of eigenvalues, never by differences.
    """

    @staticmethod
    def forward(ctx: Any, sigma: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
        inverse_root = vectors / values.sqrt() @ vectors.T
        ctx.save_for_backward(sigma, inverse_root, vectors, values)
        return inverse_root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sigma, inverse_root, vectors, values = ctx.saved_tensors
        root = sigma @ inverse_root
        solution = _Sylvester.apply(root, grads[0], vectors, values.sqrt())
        return -inverse_root @ solution @ inverse_root, None, None


def covariance(x: Tensor) -> Tensor:
    """Biased covariance matrix of the columns of `x`: X̃ᵀX̃/m, with X̃ the centred rows.

    Parameters
    ----------
    x : ``(m, d)``, one example a row; floating point

    Returns
    -------
    tensor ``(d, d)``, float64, in the square of the features' units

    Raises
    ------
    ValueError : not a matrix, or no rows or columns
    TypeError : not a floating-point tensor

    Source: Eq. (8) whitening/covariance-matrix.
    """
    _check_matrix("x", x)
    centred = _centred(x)
    return centred.T @ centred / len(x)


def whitening_matrix(covariance: Tensor, method: Method = "zca", eps: float = 0.0) -> Tensor:
    """A matrix W with W (Σ + εI) Wᵀ = I: rows of x become white by ``x @ W.T``.

    Parameters
    ----------
    covariance : Σ, symmetric, ``(d, d)``; floating point
    method : ``"zca"``: Σ^(-1/2), the one that moves the data least. ``"pca"``: Λ^(-1/2)Dᵀ,
        principal axes by decreasing variance, each with its largest entry (in size) positive.
        ``"cholesky"``: L^(-1) with Σ = LLᵀ; output i depends on inputs 1 to i
    eps : ε, added to every eigenvalue; in the square of the features' units

    Returns
    -------
    tensor ``(d, d)`` of the type of `covariance`. All three are differentiable; ZCA any number of
    times, and also where eigenvalues coincide, where the derivative of PCA does not exist

    Raises
    ------
    ValueError : another method; a negative `eps`; a matrix that is not square, symmetric and
        finite; a singular matrix: an eigenvalue plus ε within rounding error of 0 or below
    TypeError : not a floating-point tensor

    Source: Eqs. (11) to (13) of the chapter `whitening`.
    """
    return _whitening_matrix(covariance, method, eps)


def whiten(x: Tensor, method: Method = "zca", eps: float = 0.0) -> Tensor:
    """Centre the batch and multiply it by its whitening matrix.

    At ε = 0 the result has mean 0 and (biased) covariance I. With ε > 0 the variance along a
    principal axis of variance λ is λ/(λ+ε) for ZCA and PCA.

    Parameters
    ----------
    x : ``(m, d)``, one example a row; floating point; more than d rows if `eps` is 0
    method, eps : as in :func:`whitening_matrix`

    Returns
    -------
    tensor of the shape and type of `x`; differentiable, mean and covariance included

    Raises
    ------
    ValueError, TypeError : as :func:`covariance` and :func:`whitening_matrix`

    Source: Eq. (11) whitening/whitening-condition; Eq. (16) whitening/whitening-epsilon.
    """
    matrix = _whitening_matrix(covariance(x), method, eps, values=len(x))
    return (_centred(x) @ matrix.T).to(x.dtype)


def gd_steps(
    eigenvalues: Tensor,
    excess: Tensor,
    learning_rate: float | None = None,
    tolerance: float = 0.01,
) -> int:
    """Steps of gradient descent on a quadratic until its excess loss is a fraction of the first.

    Along an eigenvector of the Hessian with eigenvalue λ the excess shrinks by (1 - ηλ)² a step.
    The count is found by bisection, without taking the steps, and may be astronomical.

    Parameters
    ----------
    eigenvalues : ``(d,)`` of the Hessian, positive
    excess : ``(d,)``, the loss above its minimum along each eigenvector at the start, not negative
    learning_rate : η, below 2/λ_max; the best one, 2/(λ_min + λ_max), if None
    tolerance : the fraction of the excess at which to stop, between 0 and 1

    Returns
    -------
    the smallest number of steps after which the excess is at most `tolerance` times the first

    Raises
    ------
    ValueError : other shapes, eigenvalues or rates than described: the descent would not converge

    Source: Eqs. (4) and (5) of the chapter `whitening`.
    """
    values, energy = eigenvalues.to(torch.float64), excess.to(torch.float64)
    if values.ndim != 1 or values.shape != energy.shape or len(values) == 0:
        raise ValueError(
            "eigenvalues, excess: expected one number per direction each, "
            f"got shapes {tuple(values.shape)} and {tuple(energy.shape)}"
        )
    low, high = values.min().item(), values.max().item()
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"eigenvalues: expected positive numbers, got from {low} to {high}")
    rate = 2.0 / (low + high) if learning_rate is None else learning_rate
    if not 0.0 < rate * high < 2.0:
        raise ValueError(f"learning_rate: expected between 0 and {2.0 / high:.6g}, got {rate:.6g}")
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance: expected between 0 and 1, got {tolerance}")
    if not (energy.min().item() >= 0.0 and energy.sum().item() < math.inf):
        raise ValueError("excess: expected numbers not below 0, got a negative or infinite one")
    # log|1 - ηλ| without cancellation where ηλ is tiny.
    product = rate * values
    shrinkage = torch.where(product < 1.0, torch.log1p(-product), torch.log(product - 1.0))
    target = tolerance * energy.sum()

    def reached(steps: int) -> bool:
        # At 0 steps 0·(-inf) would be NaN for a direction that one step solves.
        left = energy * torch.exp(2.0 * steps * shrinkage) if steps else energy
        return bool(left.sum() <= target)

    return _first(reached)


def _first(reached: Any) -> int:
    """The smallest count for which a condition holds that, once it holds, keeps holding."""
    if reached(0):
        return 0
    above = 1
    while not reached(above):
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if reached(middle) else (middle, above)
    return above


def _check_matrix(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected a floating-point tensor, got {kind}")
    if value.ndim != 2 or value.numel() == 0:
        raise ValueError(f"{name}: expected a matrix (rows, d), got shape {tuple(value.shape)}")


def _centred(x: Tensor) -> Tensor:
    values = x.to(torch.float64)
    centred = values - values.mean(dim=0)
    # The rounding error of the mean is itself a mean: take it off.
    return centred - centred.mean(dim=0)


def _whitening_matrix(
    covariance: Tensor, method: Method, eps: float, values: int | None = None
) -> Tensor:
    _check_matrix("covariance", covariance)
    if method not in ("zca", "pca", "cholesky"):
        raise ValueError(f"method: expected 'zca', 'pca' or 'cholesky', got {method!r}")
    if not eps >= 0.0:
        raise ValueError(f"eps: expected a number not below 0, got {eps}")
    sigma = _symmetric(covariance)
    rounding = len(sigma) * torch.finfo(covariance.dtype).eps
    sigma = sigma + eps * torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
    decomposition = torch.linalg.eigh(sigma if method == "pca" else sigma.detach())
    _check_rank(decomposition.eigenvalues.detach(), eps, rounding, values)
    if method == "zca":
        matrix = _InverseSqrt.apply(sigma, decomposition.eigenvectors, decomposition.eigenvalues)
    elif method == "pca":
        matrix = _principal(decomposition.eigenvectors, decomposition.eigenvalues)
    else:
        identity = torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
        factor = torch.linalg.cholesky(sigma)
        matrix = torch.linalg.solve_triangular(factor, identity, upper=False)
    result: Tensor = matrix.to(covariance.dtype)
    return result


def _principal(vectors: Tensor, values: Tensor) -> Tensor:
    """Λ^(-1/2)Dᵀ, by decreasing eigenvalue, each row's largest entry (in size) positive."""
    vectors, values = vectors.flip(1), values.flip(0)
    largest = vectors.detach().abs().argmax(dim=0, keepdim=True)
    sign = vectors.detach().gather(0, largest).sign()
    return (vectors * sign / values.sqrt()).T


def _symmetric(covariance: Tensor) -> Tensor:
    """(Σ + Σᵀ)/2 in float64, refusing what is not a covariance matrix."""
    shape = tuple(covariance.shape)
    if shape[0] != shape[1]:
        raise ValueError(f"covariance: expected a square matrix, got shape {shape}")
    sigma = covariance.to(torch.float64)
    size = sigma.detach().abs().max().item()
    if not math.isfinite(size):
        raise ValueError("covariance: expected finite numbers, got NaN or infinity")
    asymmetry = (sigma - sigma.T).detach().abs().max().item()
    if asymmetry > math.sqrt(torch.finfo(covariance.dtype).eps) * size:
        raise ValueError(
            f"covariance: expected a symmetric matrix, got entries that differ from the "
            f"transposed ones by up to {asymmetry:.3g}"
        )
    return (sigma + sigma.T) / 2


def _check_rank(eigenvalues: Tensor, eps: float, rounding: float, values: int | None) -> None:
    """Refuse eigenvalues of Σ + εI, in ascending order, that rounding cannot tell from 0."""
    limit = rounding * eigenvalues[-1].item()
    if eigenvalues[0].item() > limit:
        return
    rank = int((eigenvalues - eps > limit).sum().item())
    reason = "" if values is None else f" ({values} examples: rank at most {values - 1})"
    raise ValueError(
        f"covariance: expected full rank, got rank {rank} in dimension {len(eigenvalues)}{reason} "
        f"with eps = {eps:g}; a larger eps divides by √(λ + eps) instead of by 0"
    )
