"""Batch normalization for autograd: the kernels, wired to their derivatives.

Two functions, one with the statistics of the batch and one with given statistics, each in two
forms. The *eager* form is made of differentiable operations and serves every transform and every
higher derivative. The *compiled* form calls the kernels of a backend, differentiates once, and
hands a second derivative to the eager form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _torch
from .kernels import eager
from .kernels.interface import Kernels, Running
from .kernels.layouts import is_fused


class _BatchNorm(torch.autograd.Function):
    """Normalize with the statistics of the batch: (x, weight, bias) → (y, mean, var).

    The statistics are outputs like any other: the backward pass accepts gradients for them, and
    it reads them back as outputs. That is what makes the second and every higher derivative
    right: the backward pass is made of differentiable operations on inputs and outputs only.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = eager.batch_stats(x)
        y, mean, var = _torch.apart(eager.normalize(x, mean, var, weight, bias, eps), mean, var)
        return y, mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(
        ctx: Any, grad_y: Tensor | None, grad_mean: Tensor | None, grad_var: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, eager.OutputGradients(grad_y, grad_mean, grad_var))


class _BatchNormForwardMode(_BatchNorm):
    """:class:`_BatchNorm` with forward mode and vmap, which torch.compile cannot trace."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, var = ctx.saved_tensors
        x_t, weight_t, bias_t = tangents[:3]
        if x_t is None:
            mean_t, var_t = torch.zeros_like(mean), torch.zeros_like(var)
        else:
            mean_t, var_t = eager.batch_stats_tangent(x_t, x, mean)
        along = eager.InputGradients(x_t, weight_t, bias_t, mean_t, var_t)
        return eager.normalize_tangent(along, x, mean, var, weight, ctx.eps), mean_t, var_t


class _BatchNormOnce(_BatchNorm):
    """:class:`_BatchNorm` for a compiler, which differentiates once.

    It would hand zeros for the statistics to the backward pass, which would add them up for every
    element.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_zeros: Any) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, eager.OutputGradients(grad_y))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """What :class:`_BatchNorm` needs backward; a compiler traces functions, not other methods."""
    x, weight, bias, ctx.eps = inputs
    _, mean, var = output
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, mean, var)
    ctx.save_for_forward(x, weight, mean, var)


def _differentiate(ctx: Any, grads: eager.OutputGradients) -> tuple[Tensor | None, ...]:
    """The backward pass of :class:`_BatchNorm`."""
    x, weight, mean, var = ctx.saved_tensors
    gradients = eager.batch_backward(grads, x, mean, var, weight, ctx.eps)
    return (
        gradients.x,
        _like(gradients.weight, weight),
        _like(gradients.bias, ctx.bias_dtype),
        None,
    )


class _FixedNorm(torch.autograd.Function):
    """Normalize with given statistics: (x, mean, var, weight, bias) → y."""

    @staticmethod
    def forward(
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        (y,) = _torch.apart(eager.normalize(x, mean, var, weight, bias, eps))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        x, mean, var, weight, bias, ctx.eps = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, mean, var, weight)
        ctx.save_for_forward(x, mean, var, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, var, weight = ctx.saved_tensors
        gradients = eager.fixed_backward(grad_y, x, mean, var, weight, ctx.eps)
        grad_weight, grad_bias = (
            _like(gradients.weight, weight),
            _like(gradients.bias, ctx.bias_dtype),
        )
        return gradients.x, gradients.mean, gradients.var, grad_weight, grad_bias, None


class _FixedNormForwardMode(_FixedNorm):
    """:class:`_FixedNorm` with forward mode and vmap, which torch.compile cannot trace."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, mean, var, weight = ctx.saved_tensors
        x_t, mean_t, var_t, weight_t, bias_t = tangents[:5]
        along = eager.InputGradients(x_t, weight_t, bias_t, mean_t, var_t)
        return eager.normalize_tangent(along, x, mean, var, weight, ctx.eps)


def _like(grad: Tensor | None, parameter: Tensor | torch.dtype | None) -> Tensor | None:
    """Round a float64 gradient to its parameter's type; None where there is no parameter."""
    if grad is None or parameter is None:
        return None
    return grad.to(parameter if isinstance(parameter, torch.dtype) else parameter.dtype)


def batch_eager(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Eqs. (1) to (4) of the chapter mini-batch-algorithm: y, mean, biased variance."""
    if _by_operations():
        mean, var = eager.batch_stats(x)
        return eager.normalize(x, mean, var, weight, bias, eps), mean, var
    function: type[_BatchNorm] = _BatchNormForwardMode
    if torch.compiler.is_compiling():
        function = _BatchNormOnce if is_fused() else _BatchNorm
    apply: Any = function.apply
    y, mean, var = apply(x, weight, bias, eps)
    return y, mean, var


def fixed_eager(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Eq. (13) mini-batch-algorithm/inference, centred first; `mean` and `var` are float64."""
    if _by_operations():
        return eager.normalize(x, mean, var, weight, bias, eps)
    compiling = torch.compiler.is_compiling()
    apply: Any = (_FixedNorm if compiling else _FixedNormForwardMode).apply
    y: Tensor = apply(x, mean, var, weight, bias, eps)
    return y


def act(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """What may follow a normalization: + residual, then a ReLU."""
    if residual is not None:
        y = y + residual
    return y.relu() if relu else y


def _by_operations() -> bool:
    """Whether PyTorch has to differentiate the elementary operations.

    Where forward mode runs inside forward mode, as in ``jacfwd(jacfwd(f))``, PyTorch loses the
    outer tangents of whatever an autograd.Function saved, and returns wrong second derivatives
    without a word. And where a transform is compiled, vmap may refuse an autograd.Function:
    https://github.com/pytorch/pytorch/issues/129845.
    """
    if torch.compiler.is_compiling():
        return _torch.in_transform()
    return _torch.forward_modes() > 1


class _Compiled(torch.autograd.Function):
    """Normalize by compiled kernels, with the statistics of the batch or with `fixed` ones.

    It defines `forward` with a context, in PyTorch's older style: for the newer one, PyTorch looks
    at the signature in every call, which takes longer than a small batch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        kernels: Kernels,
        fixed: tuple[Tensor, Tensor] | None,
        running: Running | None,
        eps: float,
        relu: bool,
    ) -> Tensor:
        y, statistics = kernels.normalize(x, weight, bias, residual, fixed, running, eps, relu)
        ctx.kernels, ctx.eps, ctx.relu, ctx.training = kernels, eps, relu, fixed is None
        output = y if relu and residual is not None else None
        ctx.save_for_backward(x, weight, bias, residual, statistics, output)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, residual, statistics, y = ctx.saved_tensors
        if torch.is_grad_enabled() or not _torch.is_plain(grad_y):
            gradients = differentiate_again(
                *(grad_y, x, weight, bias, residual, statistics),
                *(ctx.eps, ctx.relu, ctx.training, ctx.needs_input_grad[:4]),
            )
            return *gradients, *_NOTHING
        # Hooks of saved tensors may have given back another layout.
        gradients = ctx.kernels.differentiate(
            *(grad_y, x, y, statistics.contiguous(), weight, bias),
            *(ctx.eps, ctx.relu, residual is not None, ctx.training),
        )
        return gradients.x, gradients.weight, gradients.bias, gradients.residual, *_NOTHING


# The gradients of what is no tensor.
_NOTHING = (None,) * 5

apply_compiled = _torch.apply_without_transforms(_Compiled)


def differentiate_again(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor,
    eps: float,
    relu: bool,
    training: bool,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Run the backward pass of compiled kernels by PyTorch's operations.

    That is for gradients that are themselves differentiated, and for function transforms.

    Parameters
    ----------
    needs
        which of x, weight, bias and residual need a gradient
    grad_y, x, weight, bias, residual, statistics, eps, relu, training
        as for :meth:`companion.kernels.interface.Kernels.differentiate`

    Returns
    -------
    tuple[Tensor | None, ...]
        gradients of x, weight, bias and residual, or None
    """
    mean, var = statistics
    if not torch.is_grad_enabled():
        g = grad_y
        if relu:
            y = act(eager.normalize(x, mean, var, weight, bias, eps), residual, False)
            g = torch.where(y <= 0, torch.zeros_like(grad_y), grad_y)
        if training:
            gradients = eager.batch_backward(eager.OutputGradients(g), x, mean, var, weight, eps)
        else:
            gradients = eager.fixed_backward(g, x, mean, var, weight, eps)
        grad_weight, grad_bias = _like(gradients.weight, weight), _like(gradients.bias, bias)
        return gradients.x, grad_weight, grad_bias, None if residual is None else g
    if training:
        y, _, _ = batch_eager(x, weight, bias, eps)
    else:
        y = fixed_eager(x, mean, var, weight, bias, eps)
    y = act(y, residual, relu)
    inputs = zip((x, weight, bias, residual), needs, strict=True)
    wanted = [value for value, need in inputs if need and value is not None]
    grads = iter(torch.autograd.grad(y, wanted, grad_y, create_graph=True))
    return tuple(next(grads) if need else None for need in needs)
