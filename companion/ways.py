"""How a checked call is served, by each :class:`.kernels.select.Way`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import differentiation, operators
from .kernels import eager, select
from .kernels.interface import Running
from .running import recomputing, update_running


class Call(NamedTuple):
    """The arguments of a call, in the order in which ``calls.cpp`` reads them."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float | None
    eps: float
    num_batches_tracked: Tensor | None
    skip_nonfinite: bool
    residual: Tensor | None
    relu: bool


def compiled(call: Call, running: Running, backend: str) -> Tensor:
    """The kernels, called from Python."""
    kernels = select.load(backend)
    x, _, _, weight, bias, training, _, eps, _, _, residual, relu = call
    moving = running if training and not recomputing() else None
    fixed = None if training else _fixed(call)
    if torch.is_grad_enabled():
        for value in (x, weight, bias, residual):
            if value is not None and value.requires_grad:
                y: Tensor = differentiation.apply_compiled(
                    x, weight, bias, residual, kernels, fixed, moving, eps, relu
                )
                return y
    return kernels.normalize(x, weight, bias, residual, fixed, moving, eps, relu)[0]


def as_operator(call: Call, running: Running, backend: str) -> Tensor:
    """The kernels, as torch.compile sees them."""
    x, mean, var = call.input, None, None
    if not call.training:
        mean, var = _fixed(call)
    y, statistics = operators.normalize(
        *(x, call.weight, call.bias, call.residual, mean, var),
        *(call.eps, call.relu, backend),
    )
    if call.training:
        batch_mean, batch_var = statistics
        update_running(running, batch_mean, batch_var, eager.values_per_channel(x))
    return y


def in_eager(call: Call, running: Running) -> Tensor:
    """PyTorch's operations; the residual and the ReLU are left to the caller."""
    x, weight, bias, eps = call.input, call.weight, call.bias, call.eps
    if not call.training:
        # Training may move them before the backward pass.
        mean, var = (value.to(torch.float64, copy=True) for value in _fixed(call))
        return differentiation.fixed_eager(x, mean, var, weight, bias, eps)
    m = eager.values_per_channel(x)
    batch_mean: Tensor | None = None
    batch_var: Tensor | None = None
    if m == 0:
        # Nothing to average; any statistics do, they touch no value.
        zeros = x.new_zeros(x.shape[1], dtype=torch.float64)
        y = differentiation.fixed_eager(x, zeros, zeros + 1.0, weight, bias, eps)
    else:
        y, batch_mean, batch_var = differentiation.batch_eager(x, weight, bias, eps)
    if not recomputing():
        update_running(running, batch_mean, batch_var, m)
    return y


def by_torch(call: Call) -> Tensor:
    """PyTorch's own function, and the count that its layer keeps; no residual, no ReLU."""
    if call.skip_nonfinite and call.training:
        raise ValueError("skip_nonfinite: expected False with backend 'torch', got True")
    mean, var = call.running_mean, call.running_var
    momentum, count = call.momentum, call.num_batches_tracked
    if momentum is None:
        momentum = 0.0 if count is None else 1.0 / (float(count) + 1.0)
    if call.training and recomputing():
        mean = var = count = None
    own = (mean, var)
    weight, bias = call.weight, call.bias
    if len({value.dtype for value in (mean, var, weight, bias) if value is not None}) > 1:
        # Its kernels want all but the input in one type: that of single precision, here.
        mean, var, weight, bias = (
            None if value is None else value.to(torch.float32) for value in (*own, weight, bias)
        )
    y = F.batch_norm(call.input, mean, var, weight, bias, call.training, momentum, call.eps)
    for former, moved in zip(own, (mean, var), strict=True):
        if call.training and former is not None and moved is not None and former is not moved:
            former.copy_(moved)
    if call.training and count is not None:
        count.add_(1)
    return y


def _fixed(call: Call) -> tuple[Tensor, Tensor]:
    """The statistics to normalize with, outside training."""
    # Checked already; these tell the type checker.
    assert call.running_mean is not None
    assert call.running_var is not None
    return call.running_mean, call.running_var
