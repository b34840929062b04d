"""The compiled kernels as operators that torch.compile puts into a graph unopened.

``torch.ops.companion.normalize`` and ``differentiate`` have the arguments of
:class:`companion.kernels.interface.Kernels` and the name of the backend. Running statistics are
moved outside, by tensor operations that the compiler fuses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .kernels import select
from .kernels.layouts import empty_with_layout_of

_PARAMETERS = "Tensor? weight, Tensor? bias"
_OPTIONS = "float eps, bool relu, str backend"


@torch.library.custom_op(
    "companion::normalize",
    mutates_args=(),
    schema=f"(Tensor x, {_PARAMETERS}, Tensor? residual, Tensor? mean, Tensor? var, {_OPTIONS})"
    " -> (Tensor, Tensor)",
    tags=(torch.Tag.flexible_layout,),
)
def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    relu: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """y and the statistics, of the batch unless a mean and a variance are given."""
    fixed = None if mean is None or var is None else (mean, var)
    kernels = select.load(backend)
    return kernels.normalize(x, weight, bias, residual, fixed, None, eps, relu)


@normalize.register_fake
def _normalize_fake(x: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor]:
    statistics = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    return empty_with_layout_of(x), statistics


@torch.library.custom_op(
    "companion::differentiate",
    mutates_args=(),
    schema=f"(Tensor grad_y, Tensor x, Tensor? y, Tensor statistics, {_PARAMETERS}, {_OPTIONS}, "
    "bool residual, bool training) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.flexible_layout,),
)
def differentiate(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    backend: str,
    residual: bool,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual, empty where there is none."""
    gradients = select.load(backend).differentiate(
        grad_y, x, y, statistics, weight, bias, eps, relu, residual, training
    )
    others = [
        x.new_empty(0) if gradient is None else gradient
        for gradient in (gradients.weight, gradients.bias, gradients.residual)
    ]
    if others[2] is grad_y:
        # An operator's results must not share memory with its arguments.
        others[2] = empty_with_layout_of(x).copy_(grad_y)
    return gradients.x, others[0], others[1], others[2]


@differentiate.register_fake
def _differentiate_fake(
    _grad_y: Tensor,
    x: Tensor,
    _y: Tensor | None,
    _statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    residual = options[3]
    return (
        empty_with_layout_of(x),
        x.new_empty(0) if weight is None else torch.empty_like(weight),
        x.new_empty(0) if bias is None else torch.empty_like(bias),
        empty_with_layout_of(x) if residual else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, mean, _, *ctx.options = inputs
    y, statistics = output
    ctx.mark_non_differentiable(statistics)
    ctx.residual, ctx.training = residual is not None, mean is None
    needed = y if ctx.options[1] and ctx.residual else None
    ctx.save_for_backward(x, weight, bias, statistics, needed)


def _backward(ctx: Any, grad_y: Tensor, _grad_statistics: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, statistics, y = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_residual = differentiate(
        grad_y, x, y, statistics, weight, bias, *ctx.options, ctx.residual, ctx.training
    )
    return (
        grad_x,
        None if weight is None else grad_weight,
        None if bias is None else grad_bias,
        grad_residual if ctx.residual else None,
        *(None,) * 5,
    )


normalize.register_autograd(_backward, setup_context=_save)
