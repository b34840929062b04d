"""The exercises of the chapter `memory-speed`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from companion import reference
from companion.experiments import memory_traffic as traffic

from .exercise import Case, Exercise, Property
from .properties import MEAN_IS_BETA, NO_MOVE, NO_STRETCH, VARIANCE

CHAPTER = "memory-speed"
SHAPES = "A block has shape (N, channels, S): what each channel has one of needs (channels, 1)."
LAST_BLOCK = "The last block may have fewer channels than `block`; these channels count, too."


# --- bytes-moved ---------------------------------------------------------------------------------


def _byte_cases() -> Iterator[Case]:
    yield Case("one block, of which nothing stays in the cache", (1, 12, 12, 0))
    yield Case("five bytes of it stay", (1, 12, 12, 5))
    yield Case("the cache has room for more than the block", (1, 12, 12, 20))
    yield Case("three blocks, two bytes of each stay", (1, 12, 4, 2))
    yield Case("the same, with two tensors to sweep twice", (2, 12, 4, 2))
    yield Case("the last block has three bytes, the others five", (1, 13, 5, 2))
    yield Case("the same, with two tensors", (2, 13, 5, 2))
    tensor = 4 * 32 * 64 * 112**2
    yield Case("this chapter's tensor, 7 MB of it at a time", (2, tensor, 7_000_000, 8 * 2**20))


def _bytes(k: int, tensor: int, block: int, kept: int) -> int:
    return traffic.bytes_moved({1: "forward", 2: "backward"}[k], tensor, block, kept)


class _Pass(NamedTuple):
    """What `bytes_moved` is called with."""

    k: int
    T: int
    D: int
    K: int

    @property
    def least(self) -> int:
        return (self.k + 1) * self.T

    @property
    def again(self) -> int:
        """Bytes of a full block that the second sweep reads from memory."""
        return max(self.k * self.D - self.K, 0)

    @property
    def blocks(self) -> list[int]:
        return [self.D] * (self.T // self.D) + [self.T % self.D]


def _counted(count: Callable[[_Pass], float]) -> Callable[..., float]:
    return lambda *arguments: count(_Pass(*arguments))


BYTES_MOVED = Exercise(
    "bytes-moved",
    CHAPTER,
    "bytes that a pass in blocks reads and writes",
    _Pass._fields,
    oracle=_bytes,
    cases=_byte_cases,
    slips={
        "Count what is written, too: T bytes.": _counted(lambda a: _bytes(*a) - a.T),
        "Room in the cache beyond a block's size saves nothing: the second part is not under 0.": (
            _counted(lambda a: a.least + sum(a.k * D - a.K for D in a.blocks if D))
        ),
        "The cache keeps K bytes of every block, not of the whole pass.": (
            _counted(lambda a: a.least + max(a.k * a.T - a.K, 0))
        ),
        "K bytes are kept of a block's k tensors together, not of each.": (
            _counted(lambda a: a.least + a.k * sum(max(D - a.K, 0) for D in a.blocks))
        ),
        "All k tensors are swept a second time.": (
            _counted(lambda a: a.least + sum(max(D - a.K, 0) for D in a.blocks))
        ),
        "The bytes that are left after the full blocks are a block, too.": (
            _counted(lambda a: a.least + a.T // a.D * a.again)
        ),
        "Of the last block, as of the others, all k tensors are swept a second time.": (
            _counted(lambda a: a.least + a.T // a.D * a.again + max(a.T % a.D - a.K, 0))
        ),
        "The last block is smaller than D, and K bytes are a larger part of it: count it apart.": (
            _counted(lambda a: a.least + math.ceil(a.T / a.D) * a.again)
        ),
        "T/D is not a whole number here: count the last block apart.": (
            _counted(lambda a: a.least + a.T / a.D * a.again)
        ),
    },
)


# --- blocked-forward -----------------------------------------------------------------------------


def _activations(*shape: int) -> tuple[Any, Any, Any]:
    """x, γ and β; each channel lies elsewhere, and has another spread."""
    rng = np.random.default_rng(0)
    steps = np.arange(shape[1], dtype=float)
    x = rng.normal(size=shape) * (1 + steps[:, None]) + 10 * steps[:, None]
    return x, rng.normal(1, 0.5, size=shape[1]), rng.normal(size=shape[1])


def _forward_cases() -> Iterator[Case]:
    one, zero = np.ones(1), np.zeros(1)
    yield Case("one channel, two values", (np.array([[[1.0, 3.0]]]), one, zero, 0.0, 1))
    x = np.array([[[1.0], [0.0]], [[3.0], [8.0]]])
    gamma, beta = np.array([1.0, 2.0]), np.array([0.0, 10.0])
    yield Case("two channels, one at a time", (x, gamma, beta, 9.0, 1))
    x, gamma, beta = _activations(3, 4, 2)
    yield Case("four channels, two at a time", (x, gamma, beta, 1e-5, 2), advice=SHAPES)
    yield Case("a block larger than all channels", (x, gamma, beta, 1e-5, 7), advice=LAST_BLOCK)
    x, gamma, beta = _activations(2, 5, 3)
    yield Case("five channels, two at a time", (x, gamma, beta, 1e-5, 2), advice=LAST_BLOCK)
    single = (each.astype(np.float32) for each in (x, gamma, beta))
    yield Case("the same in float32", (*single, 1e-5, 2), tolerance=1e-5)
    yield Case("values around 10⁸", (x + 1e8, gamma, beta, 1e-5, 2), tolerance=1e-6)


def _normalized(x: Any, gamma: Any, beta: Any, eps: float, _block: int) -> Any:
    return reference.forward(x, gamma, beta, eps).y.astype(x.dtype)


def _leaving_out_the_last(x: Any, gamma: Any, beta: Any, eps: float, block: int) -> Any:
    y = _normalized(x, gamma, beta, eps, block)
    y[:, x.shape[1] // block * block :] = 0
    return y


def _with_first_parameters(x: Any, gamma: Any, beta: Any, eps: float, block: int) -> Any:
    channel = np.arange(x.shape[1]) % block
    return _normalized(x, gamma[channel], beta[channel], eps, block)


def _over(axes: Any, ddof: int = 0) -> Callable[..., Any]:
    """Statistics over other axes of a block, or with another divisor of the variance."""

    def forward(x: Any, gamma: Any, beta: Any, eps: float, block: int) -> Any:
        y = np.empty_like(x)
        for first in range(0, x.shape[1], block):
            some = slice(first, first + block)
            part = x[:, some]
            mean = part.mean(axis=axes, keepdims=True)
            var = part.var(axis=axes, keepdims=True, ddof=ddof)
            x_hat = (part - mean) / np.sqrt(var + eps)
            y[:, some] = gamma[some, None] * x_hat + beta[some, None]
        return y

    return forward


def _by_squares(x: Any, gamma: Any, beta: Any, eps: float, _block: int) -> Any:
    mean, square = (each.mean(axis=(0, 2), keepdims=True) for each in (x, x**2))
    x_hat = (x - mean) / np.sqrt(square - mean**2 + eps)
    return gamma[:, None] * x_hat + beta[:, None]


def _without_block(equation: Property, place: int | None = None) -> Property:
    """A property of a result, or of one of several, that was computed in blocks."""

    def error(result: Any, *arguments: Any) -> float:
        return equation.error(result if place is None else result[place], *arguments[:-1])

    return replace(equation, error=error, at_most=1e-5)


BLOCKED_FORWARD = Exercise(
    "blocked-forward",
    CHAPTER,
    "a forward pass in blocks of channels",
    ("x", "gamma", "beta", "eps", "block"),
    oracle=_normalized,
    cases=_forward_cases,
    properties=(_without_block(MEAN_IS_BETA), _without_block(VARIANCE)),
    slips={
        "The last block may have fewer channels than the others; it is normalized as they are.": (
            _leaving_out_the_last
        ),
        "Each channel has its own mean and variance, in a block with others, too.": (
            _over((0, 1, 2))
        ),
        "A channel's statistics go over all its values: over N and over S.": _over(0),
        "σ² is the biased variance, divided by N·S and not by N·S − 1.": _over((0, 2), ddof=1),
        "γ and β belong to channels: take of them what you take of x.": _with_first_parameters,
        "y has the type of x: in float64 it would have twice the bytes.": (
            lambda *arguments: _normalized(*arguments).astype(np.float64)
        ),
        "E[x²] − E[x]² loses its digits where the mean is large; take the mean off first.": (
            _by_squares
        ),
    },
)


# --- blocked-backward ----------------------------------------------------------------------------


def _backward_cases() -> Iterator[Case]:
    one = np.ones(1)
    x, grad_y = np.array([[[1.0, 1.0, -1.0, -1.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])
    yield Case("one channel, four values", (grad_y, x, one, 0.0, 1))
    x, grad_y = x.reshape(2, 1, 2), np.array([[[8.0, 0.0]], [[0.0, 4.0]]])
    yield Case("the same in two examples, ε = 3", (grad_y, x, one, 3.0, 1))
    x, gamma, _ = _activations(3, 4, 2)
    grad_y = np.cos(np.arange(24)).reshape(x.shape)
    yield Case("four channels, two at a time", (grad_y, x, gamma, 1e-5, 2), advice=SHAPES)
    yield Case("a block larger than all channels", (grad_y, x, gamma, 1e-5, 7), advice=LAST_BLOCK)
    x, gamma, _ = _activations(2, 5, 3)
    grad_y = np.cos(np.arange(30)).reshape(x.shape)
    yield Case("five channels, two at a time", (grad_y, x, gamma, 1e-5, 2), advice=LAST_BLOCK)
    yield Case("values around 10⁸", (grad_y, x + 1e8, gamma, 1e-5, 2), tolerance=1e-6)


def _differentiated(grad_y: Any, x: Any, gamma: Any, eps: float, _block: int) -> Any:
    return tuple(reference.backward(grad_y, reference.forward(x, gamma, eps=eps)))


def _gradient_less(*terms: str, m: Callable[..., int] | None = None) -> Callable[..., Any]:
    """Without the term with the mean of g, "mean", or of g·x̂, "var"; without γ; or another m."""

    def backward(grad_y: Any, x: Any, gamma: Any, eps: float, _block: int) -> Any:
        batch = reference.forward(x, gamma, eps=eps)
        grads = reference.backward(grad_y, batch)
        count = batch.m if m is None else m(*x.shape)
        grad_x = grad_y
        if "mean" not in terms:
            grad_x = grad_x - grads.beta[:, None] / count
        if "var" not in terms:
            grad_x = grad_x - batch.x_hat * grads.gamma[:, None] / count
        scale = batch.inv_std * (1 if "γ" in terms else batch.gamma)
        return scale * grad_x, grads.gamma, grads.beta

    return backward


def _averages(grad_y: Any, x: Any, gamma: Any, eps: float, block: int) -> Any:
    grad_x, *sums = _differentiated(grad_y, x, gamma, eps, block)
    return grad_x, *(each / (x.size // x.shape[1]) for each in sums)


def _gradients_leaving_out_the_last(*arguments: Any) -> Any:
    grad_x, *parameters = _differentiated(*arguments)
    block = arguments[-1]
    left = grad_x.shape[1] // block * block
    grad_x[:, left:] = 0
    for each in parameters:
        each[left:] = 0
    return grad_x, *parameters


def _of_x(grad_y: Any, x: Any, gamma: Any, eps: float, block: int) -> Any:
    grad_x, _, grad_beta = _differentiated(grad_y, x, gamma, eps, block)
    return grad_x, (grad_y * x).sum(axis=(0, 2)), grad_beta


BLOCKED_BACKWARD = Exercise(
    "blocked-backward",
    CHAPTER,
    "a backward pass in blocks of channels",
    ("grad_y", "x", "gamma", "eps", "block"),
    oracle=_differentiated,
    cases=_backward_cases,
    properties=(_without_block(NO_MOVE, 0), _without_block(NO_STRETCH, 0)),
    returns=("grad_x", "grad_gamma", "grad_beta"),
    slips={
        "Here μ and σ are constants; x moves both, which takes two terms off g.": (
            _gradient_less("mean", "var")
        ),
        "x moves σ as well: take x̂ times the mean of g·x̂ off.": _gradient_less("var"),
        "x moves μ as well: take the mean of g off.": _gradient_less("mean"),
        "A channel has m = N·S values, and the means of g and of g·x̂ are over all of them.": (
            _gradient_less(m=lambda N, _C, _S: N)
        ),
        "y = γx̂ + β: the gradient of x has the factor γ.": _gradient_less("γ"),
        "∂L/∂γ is the sum of g·x̂, not of g·x.": _of_x,
        "∂L/∂γ and ∂L/∂β are sums; the averages stand in the gradient of x alone.": _averages,
        "The last block may have fewer channels than the others; it has gradients as they have.": (
            _gradients_leaving_out_the_last
        ),
    },
)


# --- half-precision ------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What `least_time` is called with."""

    values: int
    itemsize: int
    sweeps: int
    operations: int
    bandwidth: float
    rate: float

    @property
    def moved(self) -> float:
        return self.sweeps * self.values * self.itemsize / self.bandwidth

    @property
    def computed(self) -> float:
        return self.operations * self.values / self.rate


def _time_cases() -> Iterator[Case]:
    yield Case("one value, a slow memory", (1, 4, 3, 7, 1.0, 10.0))
    yield Case("one value, slow arithmetic", (1, 4, 3, 7, 10.0, 1.0))
    yield Case("100 values, a slow memory", (100, 2, 3, 7, 2.0, 10.0))
    yield Case("100 values, slow arithmetic", (100, 2, 3, 7, 10.0, 2.0))
    yield Case("the machine of this exercise", (10**6, 2, 3, 7, 40e9, 35e9))


def _under_the_roof(*arguments: Any) -> float:
    """Operations over the speed that the roofline allows."""
    work = _Work(*arguments)
    operations = work.values * work.operations
    intensity = work.operations / (work.sweeps * work.itemsize)
    return operations / traffic.attainable(intensity, work.bandwidth, work.rate)


def _timed(time: Callable[[_Work], float]) -> Callable[..., float]:
    return lambda *arguments: time(_Work(*arguments))


HALF_PRECISION = Exercise(
    "half-precision",
    CHAPTER,
    "the least time of a pass, by memory and arithmetic",
    _Work._fields,
    oracle=_under_the_roof,
    cases=_time_cases,
    called="least_time",
    slips={
        "Moving and computing go on at the same time: the longer of the two counts, not the sum.": (
            _timed(lambda work: work.moved + work.computed)
        ),
        "Neither can be waived: the longer of the two counts, not the shorter.": (
            _timed(lambda work: min(work.moved, work.computed))
        ),
        "A value has itemsize bytes.": (
            _timed(lambda work: max(work.moved / work.itemsize, work.computed))
        ),
        "Every sweep moves all values.": (
            _timed(lambda work: max(work.moved / work.sweeps, work.computed))
        ),
        "The operations are those of one value.": (
            _timed(lambda work: max(work.moved, work.computed / work.values))
        ),
        "The operations of a value are those of the whole pass, not of one sweep.": (
            _timed(lambda work: max(work.moved, work.sweeps * work.computed))
        ),
        "A value takes as many operations in every type, whatever its bytes.": (
            _timed(lambda work: max(work.moved, work.itemsize * work.computed))
        ),
    },
)

EXERCISES = (BYTES_MOVED, BLOCKED_FORWARD, BLOCKED_BACKWARD, HALF_PRECISION)
