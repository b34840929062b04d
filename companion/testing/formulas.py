"""Forward and backward pass, in training and with fixed statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.exercises.exercise import Case, Property
from companion.exercises.properties import (
    FIXED_LINE,
    FIXED_MEAN,
    FIXED_SLOPE,
    LINE,
    LINEAR_IN_GAMMA,
    LINEAR_IN_GRAD_Y,
    MEAN_IS_BETA,
    NO_MOVE,
    NO_STRETCH,
    SECOND_NO_MOVE,
    SLOPE,
    VALID_ALONE,
    VARIANCE,
)
from companion.functional import batch_norm
from companion.variants import masked_batch_norm

from .operation import Operation

EPS = 1e-5
SINGLE, HALF = 1e-6, 2e-3  # what rounding in float32 and in float16 may cost


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64, the same everywhere."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def _parameters(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.tensor([2.0, -1.0, 0.5], dtype=dtype), torch.tensor([0.5, 3.0, -2.0], dtype=dtype)


def _reading(law: Property, *places: int) -> Property:
    """A property of a result and some of the arguments, of one that takes more."""
    return replace(law, error=lambda result, *given: law.error(result, *(given[i] for i in places)))


# --- forward -------------------------------------------------------------------------------------


def _forward_cases() -> Iterator[Case]:
    rows = 1 + 2 * normal(8, 3)
    yield Case("eight rows of three channels", (rows, *_parameters(), EPS))
    images = normal(4, 3, 2, 3) + torch.arange(3).view(3, 1, 1) + torch.arange(3)
    yield Case("images as wide as they have channels", (images, *_parameters(), EPS))
    narrow = 1e-3 * normal(8, 3)
    yield Case("channels narrower than √ε", (narrow, *_parameters(), EPS))
    far = (1000 + normal(256, 3)).float()
    yield Case("float32 values around 1,000", (far, *_parameters(far.dtype), EPS), SINGLE)
    half = (99 + 2 * (torch.arange(3000).view(1000, 3) % 2)).half()
    yield Case("1,000 float16 values, 99 and 101", (half, *_parameters(half.dtype), EPS), HALF)


def _forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    return batch_norm(x, None, None, gamma, beta, True, eps=eps)


FORWARD = Operation(
    call="f(x, gamma, beta, eps) -> y",
    cases=_forward_cases,
    properties=(MEAN_IS_BETA, VARIANCE, LINE),
    own=_forward,
)


def _step_cases() -> Iterator[Case]:
    x, (weight, bias) = 1 + 2 * normal(8, 3), _parameters()
    running = torch.zeros_like(bias), torch.ones_like(weight)
    yield Case("buffers of their own", (x, *running, weight, bias, 0.1, EPS))
    shared = bias, weight.abs()
    yield Case("running statistics that are also β and γ", (x, *shared, *shared[::-1], 0.1, EPS))


def _step(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    return batch_norm(x, mean, var, weight, bias, True, momentum, eps)


TRAINING_STEP = Operation(
    call="f(x, mean, var, gamma, beta, momentum, eps) -> y",
    cases=_step_cases,
    properties=tuple(_reading(law, 0, 3, 4, 6) for law in (MEAN_IS_BETA, VARIANCE)),
    own=_step,
)


def _masked_cases() -> Iterator[Case]:
    mask = torch.ones(4, 10, dtype=torch.bool)
    mask[2:, 4:] = False
    x = (5 + normal(4, 3, 10)) * mask[:, None]
    yield Case("two of four sequences, padded with 0", (x, mask, EPS))


def _masked(x: Tensor, mask: Tensor, eps: float) -> Tensor:
    return masked_batch_norm(x, mask, None, None, training=True, eps=eps)


MASKED = Operation(
    call="f(x, mask, eps) -> y",
    cases=_masked_cases,
    properties=(VALID_ALONE,),
    own=_masked,
)


# --- backward ------------------------------------------------------------------------------------


def _backward_cases() -> Iterator[Case]:
    gamma, _ = _parameters()
    for what, eps in (("eight rows of three channels", EPS), ("the same, with ε = 0.3", 0.3)):
        yield Case(what, (normal(8, 3, seed=1), 1 + 2 * normal(8, 3), gamma, eps))


def _backward(grad_y: Tensor, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    x.requires_grad_()
    y = batch_norm(x, None, None, gamma, None, True, eps=eps)
    return torch.autograd.grad(y, x, grad_y)[0]


BACKWARD = Operation(
    call="f(grad_y, x, gamma, eps) -> grad_x",
    cases=_backward_cases,
    properties=(NO_MOVE, NO_STRETCH, SLOPE),
    own=_backward,
)


def _second_cases() -> Iterator[Case]:
    gamma, _ = _parameters()
    yield Case("eight rows", (normal(8, 3, seed=2), normal(8, 3, seed=1), normal(8, 3), gamma, 0.3))


def _second_derivatives(
    forward: Callable[..., Tensor], v: Tensor, grad_y: Tensor, x: Tensor, gamma: Tensor, eps: float
) -> Any:
    """Of φ = Σ v·∂L/∂x, by ∂L/∂y, x and γ."""
    for each in (grad_y, x, gamma):
        each.requires_grad_()
    y = forward(x, gamma, eps)
    (grad_x,) = torch.autograd.grad(y, x, grad_y, create_graph=True)
    return torch.autograd.grad((v * grad_x).sum(), (grad_y, x, gamma))


def _differentiable(x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    return batch_norm(x, None, None, gamma, None, True, eps=eps)


SECOND_DERIVATIVES = Operation(
    call="f(x, gamma, eps) -> y, differentiable twice",
    cases=_second_cases,
    properties=(LINEAR_IN_GRAD_Y, SECOND_NO_MOVE, LINEAR_IN_GAMMA),
    own=_differentiable,
    run=_second_derivatives,
)


# --- with fixed statistics -----------------------------------------------------------------------


def _inference_cases() -> Iterator[Case]:
    mean, var = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([4.0, 0.25, 1.0]).double()
    yield Case("eight rows", (normal(8, 3), mean, var, *_parameters(), EPS))
    dead = torch.zeros_like(var)
    yield Case("variances of 0", (normal(8, 3), mean, dead, *_parameters(), EPS))
    wide = (300 * normal(8, 3)).half(), mean.float(), (1e5 * torch.ones(3))
    yield Case("float16 values, variances of 10⁵", (*wide, *_parameters(torch.float), EPS), HALF)


def _inference(
    x: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> Tensor:
    return batch_norm(x, mean, var, gamma, beta, eps=eps)


INFERENCE = Operation(
    call="f(x, mean, var, gamma, beta, eps) -> y",
    cases=_inference_cases,
    properties=(FIXED_MEAN, FIXED_LINE),
    own=_inference,
)


def _fixed_cases() -> Iterator[Case]:
    for arguments in (case.arguments for case in _inference_cases() if not case.tolerance):
        x, mean, var, gamma, _, eps = arguments
        yield Case("eight rows", (normal(8, 3, seed=1), x, mean, var, gamma, eps))


def _fixed_backward(
    grad_y: Tensor, x: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, eps: float
) -> Tensor:
    x.requires_grad_()
    y = batch_norm(x, mean, var, gamma, eps=eps)
    return torch.autograd.grad(y, x, grad_y)[0]


INFERENCE_BACKWARD = Operation(
    call="f(grad_y, x, mean, var, gamma, eps) -> grad_x",
    cases=_fixed_cases,
    properties=(FIXED_SLOPE,),
    own=_fixed_backward,
)
