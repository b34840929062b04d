"""The whitening matrix of a covariance matrix, by any of the methods."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from companion.whitening.checks import check_count, check_floating_point
from companion.whitening.cholesky import inverse_factor
from companion.whitening.newton_schulz import newton_schulz
from companion.whitening.pca import principal_axes, principal_components
from companion.whitening.zca import inverse_root

__all__ = ["Method", "whitening_matrix"]

Method = Literal["zca", "pca", "cholesky", "newton-schulz"]


def whitening_matrix(
    covariance: Tensor, method: Method = "zca", eps: float = 0.0, *, steps: int = 15
) -> Tensor:
    """A matrix W with W (Σ + εI) Wᵀ = I: rows of x become white by ``x @ W.mT``.

    Parameters
    ----------
    covariance
        Σ, symmetric, ``(*, d, d)``; floating point
    method
        ``"zca"``: Σ^(-1/2), the one that moves the data least. ``"pca"``: Λ^(-1/2)Dᵀ, principal
        axes by decreasing variance, each with its largest entry (in size) positive. ``"cholesky"``:
        L^(-1) with Σ = LLᵀ; output i depends on inputs 1 to i. ``"newton-schulz"``: ZCA's matrix,
        approached by matrix products
    eps
        ε, added to every eigenvalue; in the square of the features' units
    steps
        T, of the Newton–Schulz iteration; the other methods need none

    Returns
    -------
    Tensor
        of the shape and type of `covariance`. All methods are differentiable any number of times,
        and all but PCA also where eigenvalues coincide

    Raises
    ------
    ValueError
        another method; a negative `eps`; `steps` under 1; a matrix that is not square, symmetric
        and finite; a singular matrix: an eigenvalue plus ε within rounding error of 0 or below
    TypeError
        not a floating-point tensor; `steps` not an integer

    Notes
    -----
    *Equal eigenvalues.* Any orthogonal axes of the plane that belongs to equal eigenvalues are
    principal, so that PCA's W is not unique there and has no derivative. Its gradient is then NaN,
    rather than a large number without a meaning. The exception are axes whose couplings the loss
    does not have, above all those that a batch of too few examples lacks: with ε their eigenvalues
    are all ε, and the gradient of the batch is right.

    *Newton–Schulz.* How near to W Σ Wᵀ = I the result is depends on `steps` and on the smallest
    share λ_min/tr(Σ) of an eigenvalue: with 15 steps the error is under 1e-8 from a share of
    1.32e-4 on, with 5 steps under 1e-3 from a share of 0.133 on. Here Σ stands for Σ + εI.

    References
    ----------
    Eqs. (11) to (13) of the chapter `whitening`; Huang et al. (2019), arXiv:1904.03441.

    Examples
    --------
    >>> import torch
    >>> from companion.whitening import whitening_matrix
    >>> sigma = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> w = whitening_matrix(sigma)
    >>> torch.allclose(w @ sigma @ w.T, torch.eye(2), atol=1e-6)
    True
    >>> torch.allclose(whitening_matrix(sigma, "newton-schulz"), w)
    True
    """
    return whitening_matrix_of(covariance, method, eps, steps)


def whitening_matrix_of(
    covariance: Tensor, method: Method, eps: float, steps: int, values: int | None = None
) -> Tensor:
    """:func:`whitening_matrix` for the covariance matrix of `values` examples."""
    _check_options(method, eps, steps)
    sigma = _symmetric(covariance)
    size = sigma.shape[-1]
    rounding = size * torch.finfo(covariance.dtype).eps
    sigma = sigma + eps * torch.eye(size, dtype=sigma.dtype, device=sigma.device)
    if method == "pca":
        eigenvalues, axes = principal_axes(sigma)
        _check_rank(eigenvalues.detach(), eps, rounding, values)
        matrix = principal_components(eigenvalues, axes)
    elif method == "zca":
        eigenvalues, axes = torch.linalg.eigh(sigma.detach())
        _check_rank(eigenvalues, eps, rounding, values)
        matrix = inverse_root(sigma, axes, eigenvalues)
    else:
        _check_rank(torch.linalg.eigvalsh(sigma.detach()), eps, rounding, values)
        by_cholesky = method == "cholesky"
        matrix = inverse_factor(sigma) if by_cholesky else newton_schulz(sigma, steps)
    return matrix.to(covariance.dtype)


def _check_options(method: str, eps: float, steps: int) -> None:
    if method not in get_args(Method):
        *first, last = (repr(name) for name in get_args(Method))
        raise ValueError(f"method: expected {', '.join(first)} or {last}, got {method!r}")
    if not eps >= 0.0:
        raise ValueError(f"eps: expected a number not below 0, got {eps}")
    check_count("steps", steps)


def _symmetric(covariance: Tensor) -> Tensor:
    """(Σ + Σᵀ)/2 in float64, refusing what is not a covariance matrix."""
    check_floating_point("covariance", covariance)
    shape = tuple(covariance.shape)
    if covariance.ndim < 2 or shape[-1] != shape[-2] or covariance.numel() == 0:
        raise ValueError(f"covariance: expected a square matrix (*, d, d), got shape {shape}")
    sigma = covariance.to(torch.float64)
    size = sigma.detach().abs().amax(dim=(-2, -1))
    if not torch.isfinite(size).all():
        raise ValueError("covariance: expected finite numbers, got NaN or infinity")
    asymmetry = (sigma - sigma.mT).detach().abs().amax(dim=(-2, -1))
    if (asymmetry > math.sqrt(torch.finfo(covariance.dtype).eps) * size).any():
        raise ValueError(
            f"covariance: expected a symmetric matrix, got entries that differ from the "
            f"transposed ones by up to {asymmetry.max().item():.3g}"
        )
    return (sigma + sigma.mT) / 2


def _check_rank(eigenvalues: Tensor, eps: float, rounding: float, values: int | None) -> None:
    """Refuse eigenvalues of Σ + εI, in ascending order, that rounding cannot tell from 0."""
    limit = rounding * eigenvalues[..., -1:]
    singular = (eigenvalues[..., :1] <= limit).squeeze(-1)
    if not singular.any():
        return
    rank = int((eigenvalues - eps > limit).sum(dim=-1)[singular].min().item())
    reason = "" if values is None else f" ({values} examples: rank at most {values - 1})"
    raise ValueError(
        f"covariance: expected full rank, got rank {rank} in dimension {eigenvalues.shape[-1]}"
        f"{reason} with eps = {eps:g}; a larger eps divides by √(λ + eps) instead of by 0"
    )
