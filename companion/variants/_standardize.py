"""What the normalizations over other axes share: statistics in two float64 passes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def standardize(x: Tensor, axes: Iterable[int], eps: float) -> Tensor:
    """(x - mean)/√(var + ε), with the mean and biased variance over `axes`.

    Parameters
    ----------
    x
        floating-point tensor
    axes
        what mean and variance run over, at least 2 values each
    eps
        added to the variance, inside the root; positive

    Returns
    -------
    Tensor
        float64 tensor of the shape of `x`. Centred before it is squared, so that an offset costs no
        more than float64's rounding of it; differentiable, statistics included, by autograd

    Raises
    ------
    ValueError
        1 value behind each mean; `eps` is not positive
    """
    axes = tuple(axes)
    values = 1
    for axis in axes:
        values *= x.shape[axis]
    if values == 1:
        raise ValueError(
            f"input: expected more than 1 value behind each mean, got shape {tuple(x.shape)}"
        )
    if not eps > 0.0:
        raise ValueError(f"eps: expected a positive number, got {eps}")
    wide = x.to(torch.float64)
    centred = wide - wide.mean(axes, keepdim=True)
    var = centred.square().mean(axes, keepdim=True)
    return centred * (var + eps).rsqrt()


def scale_and_shift(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ·x̂ + β with one γ and β for each channel, axis 1; float64, as `x_hat`."""
    per_channel = (-1, *(1,) * (x_hat.ndim - 2))
    if weight is not None:
        x_hat = x_hat * weight.to(torch.float64).view(per_channel)
    return x_hat if bias is None else x_hat + bias.to(torch.float64).view(per_channel)


def check_input(x: object, least: int, layout: str) -> None:
    """Refuse what is not a floating-point tensor of rank `least` or more."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input: expected a tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATING:
        raise TypeError(f"input: expected float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.layout is not torch.strided:
        raise TypeError(f"input: expected a dense tensor, got {x.layout}")
    if x.ndim < least:
        raise ValueError(
            f"input: expected at least {least} dimensions {layout}, got {x.ndim}: {tuple(x.shape)}"
        )


def check_parameter(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a weight or bias of another shape than `shape`."""
    if value is not None and tuple(value.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
