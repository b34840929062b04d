"""Batch normalization as a function: check, compute, differentiate, update the running statistics.

:func:`batch_norm` has the signature of ``torch.nn.functional.batch_norm`` and two more keyword
arguments. It is an implementation of its own: the arithmetic is in ``companion.kernels``, the
derivatives are the closed forms of the chapter `backprop`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .checks import check_arguments
from .kernels import eager

__all__ = ["batch_norm"]


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
        return eager.normalize(x, mean, var, weight, bias, eps), mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.eps = inputs
        _, mean, var = output
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.save_for_forward(x, weight, mean, var)

    @staticmethod
    def backward(
        ctx: Any, grad_y: Tensor | None, grad_mean: Tensor | None, grad_var: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        grads = eager.OutputGradients(grad_y, grad_mean, grad_var)
        found = eager.batch_backward(grads, x, mean, var, weight, ctx.eps)
        return found.x, _like(found.weight, weight), _like(found.bias, ctx.bias_dtype), None


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
        return eager.normalize(x, mean, var, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        x, mean, var, weight, bias, ctx.eps = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, mean, var, weight)
        ctx.save_for_forward(x, mean, var, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, var, weight = ctx.saved_tensors
        found = eager.fixed_backward(grad_y, x, mean, var, weight, ctx.eps)
        grad_weight, grad_bias = _like(found.weight, weight), _like(found.bias, ctx.bias_dtype)
        return found.x, found.mean, found.var, grad_weight, grad_bias, None


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


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: Tensor | None = None,
    skip_nonfinite: bool = False,
) -> Tensor:
    """Normalize each channel, as ``torch.nn.functional.batch_norm`` does, more accurately.

    y = (x - mean)/√(var + ε)·weight + bias. In training the statistics are those of the batch,
    over all axes but axis 1, with the biased variance; otherwise they are the running ones.

    Parameters
    ----------
    input : ``(N, C, *)``, float16, bfloat16, float32 or float64
    running_mean, running_var : ``(C,)``, updated in place in training, both or neither;
        needed when not training
    weight, bias : ``(C,)``; 1 and 0 if None
    training : whether to use, and track, the statistics of the batch
    momentum : weight of this batch in the running statistics. None: the average of all batches
        since the count was 0, which needs `num_batches_tracked`
    eps : added to the variance, inside the root; positive in training, not negative otherwise
    num_batches_tracked : integer tensor of shape ``()``, incremented in training
    skip_nonfinite : leave running statistics and count alone when any statistic of the batch is
        not finite

    Returns
    -------
    tensor of the shape, type and memory format of `input`

    Raises
    ------
    ValueError : one value per channel in training; `eps` too small; one running statistic without
        the other
    RuntimeError : a parameter or a running statistic of another shape, type or device than the
        input asks for; running statistics that require a gradient, or are missing
    NotImplementedError : an input of integers, booleans or complex numbers
    IndexError : an input without a channel axis, where PyTorch raises this
    TypeError : an argument of another kind

    Every error comes before anything is changed.

    Notes
    -----
    *Types.* Parameters and running statistics have the input's type; with a half-precision input
    they may each be float32, and should be: half-precision averages stop moving.

    *NaN and infinity.* A channel that holds one gets an output of NaN, and by default, as in
    PyTorch, running statistics that stay NaN or infinite. Other channels are not affected.

    *Overflow.* A running statistic too large for its type is stored as the largest finite value,
    since an infinity would never decay.

    *Empty batches.* The result is empty, the count moves, the running statistics do not.

    *Activation checkpointing.* A forward pass that runs during a backward pass, as recomputation
    does (and as one in a gradient hook would), leaves running statistics and count alone, so that
    no batch counts twice. A compiled module inside an eager checkpoint is the exception: it counts
    twice. Compile the function that checkpoints instead.

    *Function transforms.* Under ``torch.func`` a transformed function cannot change a tensor that
    it captured: running statistics must be among its arguments, else PyTorch's RuntimeError comes.

    *float64.* The sums are taken about the channel's first value. If that is an outlier, up to a
    factor m of float64's precision is lost; the squares of values beyond 1e154 overflow.

    Source: Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and
    (13) of the chapter `mini-batch-algorithm`.
    """
    tensors = (input, running_mean, running_var, weight, bias, num_batches_tracked)
    if has_torch_function(tensors):
        # Tensor subclasses, and the stand-ins with which torch.fx traces a model.
        return handle_torch_function(
            batch_norm,
            tensors,
            *(input, running_mean, running_var, weight, bias, training, momentum, eps),
            num_batches_tracked=num_batches_tracked,
            skip_nonfinite=skip_nonfinite,
        )
    statistics = {"running_mean": running_mean, "running_var": running_var}
    parameters = {"weight": weight, "bias": bias}
    check_arguments(
        input,
        statistics,
        parameters,
        num_batches_tracked,
        training=training,
        momentum=momentum,
        eps=eps,
    )
    if not training:
        return _normalize_fixed(input, running_mean, running_var, weight, bias, eps)
    m = eager.values_per_channel(input)
    if m == 0:
        # Nothing to average; any statistics do, they touch no value.
        zeros = input.new_zeros(input.shape[1], dtype=torch.float64)
        y, mean, var = _normalize_fixed(input, zeros, zeros + 1.0, weight, bias, eps), None, None
    else:
        y, mean, var = _normalize_batch(input, weight, bias, eps)
    if not _recomputing():
        state = (running_mean, running_var, num_batches_tracked)
        _update_running(state, mean, var, m, momentum, skip_nonfinite)
    return y


def _normalize_batch(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Eqs. (1) to (4) of the chapter mini-batch-algorithm: y, mean, biased variance."""
    if _nested_forward_mode():
        mean, var = eager.batch_stats(input)
        return eager.normalize(input, mean, var, weight, bias, eps), mean, var
    compiling = torch.compiler.is_compiling()
    apply: Any = (_BatchNorm if compiling else _BatchNormForwardMode).apply
    y, mean, var = apply(input, weight, bias, eps)
    return y, mean, var


def _normalize_fixed(
    input: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Eq. (13) mini-batch-algorithm/inference, centred first."""
    # Checked already; these tell the type checker.
    assert mean is not None
    assert var is not None
    # Copies, also of float64: training may move the running ones before the backward pass.
    statistics = mean.to(torch.float64, copy=True), var.to(torch.float64, copy=True)
    if _nested_forward_mode():
        return eager.normalize(input, *statistics, weight, bias, eps)
    compiling = torch.compiler.is_compiling()
    apply: Any = (_FixedNorm if compiling else _FixedNormForwardMode).apply
    y: Tensor = apply(input, *statistics, weight, bias, eps)
    return y


def _nested_forward_mode() -> bool:
    """Whether forward mode runs inside forward mode, as in ``jacfwd(jacfwd(f))``.

    PyTorch then loses the outer tangents of whatever an autograd.Function saved, and returns
    wrong second derivatives without a word. The kernels are differentiable as they are.
    """
    if torch.compiler.is_compiling():
        return False
    levels = torch._C._functorch.get_interpreter_stack() or ()
    forward_mode = torch._C._functorch.TransformType.Jvp
    return sum(level.key() == forward_mode for level in levels) > 1


def _recomputing() -> bool:
    """Whether this forward pass runs inside a backward pass, as recomputation does.

    Activation checkpointing, of either kind, runs a segment's forward pass a second time while
    autograd works on the backward pass, and autograd then has a current graph task. Compiled code
    needs no such test (the compiler moves the recomputation itself, and the update with the first
    forward pass stays where it is) and cannot trace it.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _update_running(
    state: tuple[Tensor | None, Tensor | None, Tensor | None],
    mean: Tensor | None,
    var: Tensor | None,
    m: int,
    momentum: float | None,
    skip_nonfinite: bool,
) -> None:
    """Move running statistics and count by one batch; `mean` is None for an empty batch.

    Only tensor arithmetic: no value is read on the host, so that nothing waits for the device and
    a compiler sees one graph.
    """
    running_mean, running_var, count = state
    counted: Tensor | int = 1
    updates = []
    if mean is not None and var is not None:
        # The running variance is the unbiased one: m/(m-1) times what normalized the batch.
        # Detached, not under no_grad: an exported program keeps the former only.
        mean, unbiased_var = mean.detach(), var.detach() * (m / (m - 1))
        finite = torch.isfinite(mean).all() & torch.isfinite(unbiased_var).all()
        factor: float | Tensor = 0.0 if momentum is None else momentum
        if momentum is None and count is not None:
            factor = (count.to(torch.float64) + 1.0).reciprocal()
        for running, batch in ((running_mean, mean), (running_var, unbiased_var)):
            if running is not None:
                moved = _moved(running, batch, factor)
                updates.append(
                    (running, torch.where(finite, moved, running) if skip_nonfinite else moved)
                )
        if skip_nonfinite and count is not None:
            counted = finite.to(count)
    for running, moved in updates:
        running.copy_(moved)
    if count is not None:
        count.add_(counted)


def _moved(running: Tensor, batch: Tensor, factor: float | Tensor) -> Tensor:
    """(1 - factor)·running + factor·batch, in float64, kept within the range of the type."""
    moved = (1.0 - factor) * running.to(torch.float64) + factor * batch
    largest = torch.finfo(running.dtype).max
    # A sum that is infinite already comes from an infinite value: that one is passed on.
    inside = torch.where(torch.isfinite(moved), moved.clamp(-largest, largest), moved)
    return inside.to(running.dtype)
