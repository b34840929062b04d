"""What is timed: a copy, ours, PyTorch's, and PyTorch's compiled, on the same tensors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import companion
from companion import functional
from companion._torch import compile_for_timing

from .suite import DTYPES, Case

PASSES = ("forward", "backward", "both", "fixed")
"""forward: in training, recording for autograd. backward: the gradients of input, weight and bias.
both: one after the other. fixed: forward with the running statistics, recording nothing."""

Call = Callable[[], Any]


class Tensors(NamedTuple):
    """What a call reads and a copy writes."""

    x: Tensor
    """Requires a gradient."""
    grad_y: Tensor
    target: Tensor


class Layer(NamedTuple):
    """One way to normalize; each has parameters and running statistics of its own."""

    train: Callable[[Tensor], Tensor]
    fixed: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor


def tensors(case: Case, device: str, seed: int = 0) -> Tensors:
    """Random tensors: `x` with mean 0.5 and standard deviation 2, `grad_y` standard normal."""
    generator = torch.Generator(device).manual_seed(seed)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    dtype = DTYPES[case.dtype]
    x, grad_y, target = (
        torch.empty(case.shape, dtype=dtype, device=device, memory_format=layout) for _ in range(3)
    )
    x.normal_(0.5, 2.0, generator=generator).requires_grad_()
    grad_y.normal_(generator=generator)
    return Tensors(x, grad_y, target.zero_())


def layers(case: Case, device: str, backend: str, compiled: bool) -> dict[str, Layer]:
    """All ways to normalize that are compared.

    "again" is "torch" once more: how they differ is noise. "native", on a GPU, is PyTorch's own
    kernels instead of cuDNN's.
    """
    if case.module:
        contenders = {
            "ours": _module(companion.BatchNorm1d, case),
            "torch": _module(nn.BatchNorm1d, case),
            "again": _module(nn.BatchNorm1d, case),
        }
        if compiled:
            contenders["compile"] = _module(nn.BatchNorm1d, case, compiled=True)
        return contenders

    # As users call it: one more function around it would count, with tiny tensors.
    ours: Callable[..., Tensor] = functional.batch_norm
    if backend != "auto":
        ours = partial(ours, backend=backend)
    contenders = {
        "ours": _function(ours, case, device),
        "torch": _function(F.batch_norm, case, device),
        "again": _function(F.batch_norm, case, device),
    }
    if device == "cuda":
        contenders["native"] = _function(_without_cudnn, case, device)
    if compiled:
        contenders["compile"] = _function(F.batch_norm, case, device, compiled=True)
    return contenders


def _without_cudnn(*arguments: Any) -> Tensor:
    with torch.backends.cudnn.flags(enabled=False):
        return F.batch_norm(*arguments)


def _parameters(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """Weight in [0.5, 1.5) and standard normal bias, float32 for half-precision activations."""
    generator = torch.Generator().manual_seed(1)
    dtype = torch.float64 if case.dtype == "float64" else torch.float32
    C = case.shape[1]
    weight = torch.rand(C, generator=generator, dtype=dtype) + 0.5
    bias = torch.randn(C, generator=generator, dtype=dtype)
    return weight.to(device).requires_grad_(), bias.to(device).requires_grad_()


def _function(
    batch_norm: Callable[..., Tensor], case: Case, device: str, *, compiled: bool = False
) -> Layer:
    weight, bias = _parameters(case, device)
    mean, var = torch.zeros_like(weight.detach()), torch.ones_like(weight.detach())

    def train(x: Tensor) -> Tensor:
        return batch_norm(x, mean, var, weight, bias, True)

    def fixed(x: Tensor) -> Tensor:
        return batch_norm(x, mean, var, weight, bias, False)

    return (
        _compile(Layer(train, fixed, weight, bias))
        if compiled
        else Layer(train, fixed, weight, bias)
    )


def _module(kind: Callable[..., nn.Module], case: Case, *, compiled: bool = False) -> Layer:
    weight, bias = _parameters(case, "cpu")
    train, fixed = (kind(case.shape[1], dtype=weight.dtype) for _ in range(2))
    for module in (train, fixed):
        module.weight, module.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    fixed.eval()
    layer = Layer(train, fixed, train.weight, train.bias)  # type: ignore[arg-type]
    return _compile(layer) if compiled else layer


def _compile(layer: Layer) -> Layer:
    """Compile for this very shape. Compiles when called, and may raise then."""
    compile_for_timing()
    return layer._replace(
        train=torch.compile(layer.train, dynamic=False),
        fixed=torch.compile(layer.fixed, dynamic=False),
    )


def forget_compiled() -> None:
    """Drop compiled code: so many versions of a function are kept, and no more compiled."""
    torch.compiler.reset()


def cannot_compile(device: str) -> str | None:
    """Why torch.compile cannot work here; None if it may."""
    if device == "cuda":
        from importlib.util import find_spec

        return None if find_spec("triton") else "Triton is not installed"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else "there is no C++ compiler"


def call_of(name: str, layer: Layer, given: Tensors) -> Call:
    """Prepare what a pass, of :data:`PASSES`, calls. To be called under :func:`recording`."""
    x, grad_y, _ = given
    train, fixed = layer.train, layer.fixed
    inputs = (x, layer.weight, layer.bias)
    if name == "forward":
        return lambda: train(x)
    if name == "backward":
        y = train(x)
        return lambda: torch.autograd.grad(y, inputs, grad_y, retain_graph=True)
    if name == "both":
        return lambda: torch.autograd.grad(train(x), inputs, grad_y)
    return lambda: fixed(x)


def copy_of(given: Tensors) -> Call:
    """Prepare the copy that the passes are compared with: one tensor read, one written."""
    source, target = given.x.detach(), given.target
    return lambda: target.copy_(source)


def recording(name: str) -> AbstractContextManager[object]:
    """Whether autograd records, for a pass."""
    return torch.no_grad() if name == "fixed" else nullcontext()
