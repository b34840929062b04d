"""Forward and backward pass of synchronized batch normalization, as operators.

``torch.ops.companion.sync_normalize`` and ``sync_differentiate`` are what autograd, checkpointing
and torch.compile see; each sends one message. torch.compile puts them into its graph unopened, so
that a compiled model sends the same messages, with the same errors, as an eager one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from companion.kernels import eager, select
from companion.kernels.interface import Halves
from companion.kernels.layouts import empty_with_layout_of

from . import channels, messages
from .channels import Call, Settings

# Which group and layer: `group` is channels.name_of's, the others are the fields of Call.
_CALL = "str group, str layer, str key, bool check"


@torch.library.custom_op(
    "companion::sync_normalize",
    mutates_args=(),
    schema="(Tensor x, Tensor? weight, Tensor? bias, float eps, float? momentum, str backend, "
    f"{_CALL}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def sync_normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    momentum: float | None,
    backend: str,
    group: str,
    layer: str,
    key: str,
    check: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and the count, mean and biased variance of all ranks together, float64."""
    call = Call(layer, key, check)
    channel = channels.channel(group, x.device)
    channel.agree(call, Settings(x.shape[1], x.dtype, eps, momentum), x.device)
    message = messages.local_moments(x, channel.next_tag(call), _halves(x, backend))
    statistics = messages.merged(channel.gather(message, call))
    if x.is_cpu and statistics.total.item() == 1.0:
        raise ValueError(
            "input: expected more than 1 value per channel when training, got 1 over all "
            f"{channel.size} ranks"
        )
    return _apply(x, weight, bias, statistics, eps, backend), *statistics


def _halves(x: Tensor, backend: str) -> Halves | None:
    """Kernels that sum up on their own; None: those of ``kernels.eager`` serve."""
    return cast(Halves, select.load("cpu")) if backend == "cpu" and x.numel() > 0 else None


def _apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: messages.Statistics,
    eps: float,
    backend: str,
) -> Tensor:
    _, mean, var = statistics
    if backend == "eager" or x.numel() == 0:
        return eager.normalize(x, mean, var, weight, bias, eps)
    kernels = select.load(backend)
    return kernels.normalize(x, weight, bias, None, (mean, var), None, eps, False)[0]


@sync_normalize.register_fake
def _sync_normalize_fake(x: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def statistic(*shape: int) -> Tensor:
        return x.new_empty(shape, dtype=torch.float64)

    y = empty_with_layout_of(x)
    return y, statistic(), statistic(x.shape[1]), statistic(x.shape[1])


@torch.library.custom_op(
    "companion::sync_differentiate",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor x, Tensor? weight, Tensor count, Tensor mean, Tensor var, "
    f"float eps, str backend, {_CALL}) -> (Tensor, Tensor, Tensor)",
)
def sync_differentiate(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    count: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    backend: str,
    group: str,
    layer: str,
    key: str,
    check: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and, of this rank's rows alone, float64, of weight and bias."""
    halves = _halves(x, backend)
    statistics = torch.stack([mean, var])
    if halves is None:
        local = torch.stack(eager.gradient_sums(grad_y, x, mean, var, eps))
    else:
        local = halves.gradient_sums(grad_y, x, statistics, eps)
    channel = channels.channel(group, x.device)
    grad_bias, grad_weight = (value.clone() for value in local)
    sums = channel.add(local.view(-1), Call(layer, key, check)).view_as(local)
    if halves is None:
        least = count.clamp(min=1.0)
        grad_x = eager.project(grad_y, x, mean, var, weight, eps, (sums[0], sums[1]), least)
    else:
        share = eager.values_per_channel(x) / count
        grad_x = halves.project(grad_y, x, statistics, weight, sums * share, eps)
    return grad_x, grad_weight, grad_bias


@sync_differentiate.register_fake
def _sync_differentiate_fake(
    _grad_y: Tensor, x: Tensor, _weight: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    mean = arguments[1]
    return empty_with_layout_of(x), torch.empty_like(mean), torch.empty_like(mean)


def _name(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    del output
    ctx.layer = inputs[-3]


def _refuse(ctx: Any, *_gradients: Any) -> Any:
    raise RuntimeError(
        f"{ctx.layer}: a second derivative through synchronized batch normalization was asked for, "
        "which is not defined; use companion.BatchNorm, or leave create_graph out"
    )


sync_differentiate.register_autograd(_refuse, setup_context=_name)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ctx.eps, _momentum, *ctx.call = inputs
    _, *statistics = output
    ctx.mark_non_differentiable(*statistics)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight, *statistics)


def _backward(ctx: Any, grad_y: Tensor, *_statistics: Any) -> tuple[Tensor | None, ...]:
    x, weight, count, mean, var = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = sync_differentiate(
        grad_y, x, weight, count, mean, var, ctx.eps, *ctx.call
    )
    return (
        grad_x,
        None if weight is None else grad_weight.to(weight.dtype),
        None if ctx.bias_dtype is None else grad_bias.to(ctx.bias_dtype),
        *(None,) * 7,
    )


sync_normalize.register_autograd(_backward, setup_context=_save)
