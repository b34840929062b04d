"""The compiled kernels as operators that torch.compile puts into a graph unopened.

``torch.ops.companion.batch_forward`` and so on have the arguments of
:class:`companion.kernels.interface.Kernels` and the name of the backend. Running statistics are
moved outside, by tensor operations that the compiler fuses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .kernels import eager, select

_CHANNEL = "Tensor? weight, Tensor? bias"
_FORWARD = f"{_CHANNEL}, Tensor? residual, float eps, bool relu, str backend"
_BACKWARD = f"Tensor mean, Tensor var, {_CHANNEL}, float eps, bool relu, bool residual, str backend"


def _statistic(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float64)


@torch.library.custom_op(
    "companion::batch_forward",
    mutates_args=(),
    schema=f"(Tensor x, {_FORWARD}) -> (Tensor, Tensor, Tensor)",
)
def batch_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    relu: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean, biased variance."""
    kernels = select.load(backend)
    return kernels.batch_forward(x, weight, bias, residual, None, eps, relu)


@batch_forward.register_fake
def _batch_forward_fake(x: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return eager.empty_with_layout_of(x), _statistic(x), _statistic(x)


@torch.library.custom_op(
    "companion::fixed_forward",
    mutates_args=(),
    schema=f"(Tensor x, Tensor mean, Tensor var, {_FORWARD}) -> Tensor",
)
def fixed_forward(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    relu: bool,
    backend: str,
) -> Tensor:
    """y, with given statistics."""
    kernels = select.load(backend)
    return kernels.fixed_forward(x, mean, var, weight, bias, residual, eps, relu)


@fixed_forward.register_fake
def _fixed_forward_fake(x: Tensor, *_arguments: Any) -> Tensor:
    return eager.empty_with_layout_of(x)


@torch.library.custom_op(
    "companion::backward",
    mutates_args=(),
    schema=f"(Tensor grad_y, Tensor x, Tensor? y, {_BACKWARD}, bool training)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def backward(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
    backend: str,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual, the last empty where there is none."""
    kernels = select.load(backend)
    function = kernels.batch_backward if training else kernels.fixed_backward
    found = function(grad_y, x, y, mean, var, weight, bias, eps, relu, residual)
    grad_residual = x.new_empty(0) if found.residual is None else found.residual
    # An operator's results must not share memory with its arguments.
    copied = grad_residual.clone() if grad_residual is grad_y else grad_residual
    return found.x, found.weight, found.bias, copied


@backward.register_fake
def _backward_fake(
    _grad_y: Tensor, x: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    residual = arguments[7]
    grad_residual = eager.empty_with_layout_of(x) if residual else x.new_empty(0)
    return eager.empty_with_layout_of(x), _statistic(x), _statistic(x), grad_residual


def _save_batch(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, residual, *ctx.options = inputs
    y, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    _save(ctx, x, weight, bias, residual, mean, var, y)


def _save_fixed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mean, var, weight, bias, residual, *ctx.options = inputs
    _save(ctx, x, weight, bias, residual, mean, var, output)


def _save(
    ctx: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    y: Tensor,
) -> None:
    relu = ctx.options[1]
    ctx.residual = residual is not None
    ctx.save_for_backward(x, weight, bias, mean, var, y if relu and ctx.residual else None)


def _gradients(ctx: Any, grad_y: Tensor, training: bool) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, var, y = ctx.saved_tensors
    eps, relu, backend = ctx.options
    grad_x, grad_weight, grad_bias, grad_residual = backward(
        grad_y, x, y, mean, var, weight, bias, eps, relu, ctx.residual, backend, training
    )
    return (
        grad_x,
        None if weight is None else grad_weight.to(weight.dtype),
        None if bias is None else grad_bias.to(bias.dtype),
        grad_residual if ctx.residual else None,
    )


def _batch_backward(ctx: Any, grad_y: Tensor, *_unused: Any) -> tuple[Tensor | None, ...]:
    return *_gradients(ctx, grad_y, True), None, None, None


def _fixed_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, *others = _gradients(ctx, grad_y, False)
    return grad_x, None, None, *others, None, None, None


batch_forward.register_autograd(_batch_backward, setup_context=_save_batch)
fixed_forward.register_autograd(_fixed_backward, setup_context=_save_fixed)
