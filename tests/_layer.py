"""Shared by the tests of the layer: devices, layouts, the oracle's answer, relative errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from companion import reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]
HALVES = (torch.float16, torch.bfloat16)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

# Half of the distance between 1 and the next number, with room for a few operations.
ROUNDING = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.bfloat16: 2**-8 * 1.01,
    torch.float16: 2**-11 * 1.01,
}


def numpy64(value: Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()


def relative_error(value: Tensor, exact: np.ndarray) -> float:
    """Largest error over the largest exact value; infinite where a value is not finite."""
    values, exact = numpy64(value).ravel(), np.asarray(exact, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        return float("inf")
    scale = np.abs(exact).max(initial=0.0)
    return float(np.abs(values - exact).max(initial=0.0) / (scale if scale > 0 else 1.0))


def max_difference(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).abs().max())


def uniform_parameters(channels: int, like: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    return weight.to(like), bias.to(like)


@dataclass
class Answer:
    """What one implementation said about one training batch, with momentum 1."""

    y: Tensor
    mean: Tensor
    var: Tensor
    grad_x: Tensor
    grad_weight: Tensor
    grad_bias: Tensor

    def errors(self, exact: Exact) -> dict[str, float]:
        relative_errors = {
            name: relative_error(getattr(self, name), value) for name, value in vars(exact).items()
        }
        # A mean near 0 has no digits of its own: its error is measured by the values it is of.
        size = float(np.abs(exact.mean).max(initial=0.0))
        if size > 0:
            relative_errors["mean"] *= size / max(size, float(np.sqrt(exact.var.max())))
        return relative_errors


@dataclass
class Exact:
    """The oracle's values under the names of :class:`Answer`."""

    y: np.ndarray = field(repr=False)
    mean: np.ndarray
    var: np.ndarray
    grad_x: np.ndarray = field(repr=False)
    grad_weight: np.ndarray
    grad_bias: np.ndarray


def ask_oracle(x: Tensor, grad_y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Exact:
    batch = reference.forward(numpy64(x), numpy64(weight), numpy64(bias), eps)
    grads = reference.backward(numpy64(grad_y), batch)
    unbiased = batch.batch_var.ravel() * batch.m / (batch.m - 1)
    return Exact(batch.y, batch.batch_mean.ravel(), unbiased, grads.x, grads.gamma, grads.beta)


def ask_layer(cls, x: Tensor, grad_y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Answer:
    layer = cls(x.shape[1], eps=eps, momentum=1.0, device=x.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    x = x.detach().requires_grad_()
    y = layer(x)
    grads = torch.autograd.grad(y, (x, layer.weight, layer.bias), grad_y)
    return Answer(y, layer.running_mean, layer.running_var, *grads)


def compare(ours, theirs, x: Tensor, eps: float = 1e-5, seed: int = 3):
    """Errors of our layer and of PyTorch's on the same batch, by quantity."""
    generator = torch.Generator().manual_seed(seed)
    grad_y = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    grad_y = torch.empty_like(x).copy_(grad_y)
    parameter_type = torch.float32 if x.dtype in HALVES else x.dtype
    like = torch.empty((), dtype=parameter_type, device=x.device)
    weight, bias = uniform_parameters(x.shape[1], like)
    exact = ask_oracle(x, grad_y, weight, bias, eps)
    return tuple(
        ask_layer(cls, x, grad_y, weight, bias, eps).errors(exact) for cls in (ours, theirs)
    )


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values as `x` in every layout worth a test."""
    last = x.ndim - 1
    inputs = {
        "contiguous": x.contiguous(),
        "transposed": x.transpose(0, last).contiguous().transpose(0, last),
        "strided": torch.stack([x, x], -1).flatten(-2)[..., ::2],
        "channels between": x.movedim(1, 0).contiguous().movedim(0, 1),
    }
    if x.ndim in (4, 5):
        form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        inputs["channels last"] = x.contiguous(memory_format=form)
        wide = torch.cat([x, x], 2).contiguous(memory_format=form)
        inputs["part of channels last"] = wide[:, :, : x.shape[2]]
        doubled = torch.stack([x, x], 3).flatten(2, 3).contiguous(memory_format=form)
        inputs["every other row of channels last"] = doubled[:, :, ::2]
    return inputs


@st.composite
def batches(draw, dtypes=(torch.float32,)):
    """A tensor of rank 2 to 5 with at least two values per channel, in some layout and type."""
    rank = draw(st.integers(2, 5))
    shape = [draw(st.integers(1, 6)) for _ in range(rank)]
    if int(np.prod(shape)) // shape[1] == 1:
        shape[0] += 1
    dtype = draw(st.sampled_from(dtypes))
    offset = draw(st.sampled_from([0.0, 1.0, -100.0, 1e4]))
    scale = draw(st.sampled_from([1e-2, 1.0, 30.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset
    choice = layouts(x.to(dtype))
    return choice[draw(st.sampled_from(sorted(choice)))]
