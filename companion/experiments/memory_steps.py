"""The forward pass in four steps, from a program that reads as the paper to one that saves memory.

Written to be read, and to be timed on one core: activations are arrays ``(N, C, S)`` of S values
side by side, and results are written where the caller says, so that no new memory is mapped. The
package's own kernels, :mod:`companion.kernels.cpu`, do the same for every layout and type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from companion.bench import timing
from companion.bench.spread import Spread, paired_ratios, spread

try:
    from numba import njit
except ImportError as error:
    raise ImportError(
        "this chapter's steps are compiled by Numba: pip install 'batchnorm-companion[cpu]'"
    ) from error

from companion.kernels.cpu import _numba, machine_code, runtime, vectors, workers
from companion.kernels.cpu.steps import CHAIN

Array = NDArray[np.float32]

# Compiled, which type checkers do not know.
address_of: Any = _numba.address_of
finish_streaming: Any = runtime.finish_streaming
load: Any = vectors.load
multiply_add: Any = vectors.multiply_add
splat: Any = vectors.splat
store: Any = vectors.store
sum_of_lanes: Any = vectors.total
wide: Any = vectors.wide

_DEPENDENCIES = machine_code.dependencies_of([Path(__file__), *workers.SOURCES])

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile when first called, or take what was compiled before from the disk.

    Sums may be reordered, which vector instructions need.
    """
    machine_code.keep(function, _DEPENDENCIES)
    return cast(Function, njit(cache=True, fastmath={"reassoc", "contract"})(function))


LANES = vectors.LANES
LINE = 64
"""Bytes of a cache line."""


@compiled
def sum_of(x: Array) -> Any:
    """Read a flat array, and do as little as possible with it."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i]
    return total


@compiled
def moments(x: Array, shift: float) -> Any:
    """Σ(x - shift) and Σ(x - shift)², in float64."""
    total, squares = 0.0, 0.0
    for i in range(len(x)):
        shifted = np.float64(x[i]) - shift
        total += shifted
        squares += shifted * shifted
    return total, squares


@compiled
def moments_float32(x: Array, shift: float) -> Any:
    """As :func:`moments`, in float32."""
    total, squares = np.float32(0), np.float32(0)
    for i in range(len(x)):
        shifted = x[i] - np.float32(shift)
        total += shifted
        squares += shifted * shifted
    return total, squares


@compiled
def moments_chains(x: Array, shift: float) -> Any:
    """As :func:`moments`; chains of sixteen vectors are in float32."""
    address, step = address_of(x), LANES * x.itemsize
    away, nothing = splat(np.float32(shift)), splat(np.float32(0))
    total, squares = splat(0.0), splat(0.0)
    chains = len(x) // (CHAIN * LANES)
    for _ in range(chains):
        a, a_squares, b, b_squares = nothing, nothing, nothing, nothing
        for _ in range(CHAIN):
            shifted = load(address, x, LANES) - away
            more = a + shifted
            more_squares = multiply_add(shifted, shifted, a_squares)
            # Every other vector goes to the other half.
            a, a_squares, b, b_squares = b, b_squares, more, more_squares
            address += step
        total = total + wide(a + b)
        squares = squares + wide(a_squares + b_squares)
    rest, rest_squares = moments(x[chains * CHAIN * LANES :], shift)
    return sum_of_lanes(total) + rest, sum_of_lanes(squares) + rest_squares


@compiled
def normalize(x: Array, mean: Any, slope: Any, beta: Any, stream: bool, y: Array) -> None:
    """(x - mean)·slope + beta, by vectors; with `stream`, whole cache lines go past the cache."""
    count, item = len(x), x.itemsize
    first = min(-address_of(y) % LINE // item, count) if stream else 0
    last = first + (count - first) // LANES * LANES
    for i in range(first):
        y[i] = (x[i] - mean) * slope + beta
    for i in range(first, last, LANES):
        centred = load(address_of(x) + i * item, x, LANES) - splat(mean)
        result = multiply_add(centred, splat(slope), splat(beta))
        store(address_of(y) + i * item, y, result, LANES, stream)
    for i in range(last, count):
        y[i] = (x[i] - mean) * slope + beta


@compiled
def first_sweep(x: Array, first: int, last: int, sums: Any) -> None:
    """Sum up channels `first` to `last`, shifted by the first value of each."""
    for n in range(x.shape[0]):
        for c in range(first, last):
            total, squares = moments(x[n, c], np.float64(x[0, c, 0]))
            sums[0, c] += total
            sums[1, c] += squares


@compiled
def second_sweep(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    first: int,
    last: int,
    sums: Any,
    stream: bool,
    y: Array,
) -> None:
    """Normalize channels `first` to `last`; with `stream`, write past the cache."""
    m = x.shape[0] * x.shape[2]
    for n in range(x.shape[0]):
        for c in range(first, last):
            offset = sums[0, c] / m
            var = sums[1, c] / m - offset * offset
            mean = np.float32(x[0, c, 0] + offset)
            slope = np.float32(gamma[c] / np.sqrt(var + eps))
            normalize(x[n, c], mean, slope, beta[c], stream, y[n, c])
    if stream:
        finish_streaming()


@compiled
def forward(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    block: int,
    stream: bool,
    y: Array,
) -> None:
    """Normalize `block` channels at a time, while their values are cached."""
    C = x.shape[1]
    sums = np.zeros((2, C))
    for first in range(0, C, block):
        last = min(first + block, C)
        first_sweep(x, first, last, sums)
        second_sweep(x, gamma, beta, eps, first, last, sums, stream, y)


def textbook(x: Array, gamma: Array, beta: Array, eps: float, y: Array, scratch: Array) -> None:
    """Algorithm 1, an operation a line; each is a pass over memory by PyTorch.

    Parameters
    ----------
    x, y
        ``(N, C, S)``
    gamma, beta
        ``(C,)``
    eps
        ε, added to the variance, inside the root
    scratch
        as `x`, for what is computed in between
    """
    values, squares, centred = (torch.from_numpy(array) for array in (x, scratch, y))
    scale, shift = (torch.from_numpy(array)[:, None] for array in (gamma, beta))
    batch_mean = values.mean(dim=(0, 2), keepdim=True)
    torch.sub(values, batch_mean, out=centred)
    torch.square(centred, out=squares)
    batch_var = squares.mean(dim=(0, 2), keepdim=True)
    centred.mul_((batch_var + eps).rsqrt())
    centred.mul_(scale)
    centred.add_(shift)


def pytorch(x: Tensor, gamma: Array, beta: Array, eps: float, y: Tensor) -> None:
    """PyTorch's own kernel, in training, without autograd around it; `x` and `y` are 4-D."""
    saved = torch.empty(2, x.shape[1])
    torch.ops.aten.native_batch_norm.out(
        *(x, torch.from_numpy(gamma), torch.from_numpy(beta), None, None, True, 0.1, eps),
        out=y,
        save_mean=saved[0],
        save_invstd=saved[1],
    )


class Timings(NamedTuple):
    """What was measured, by name."""

    seconds: dict[str, Spread]
    ratios: dict[str, Spread]
    """Over the time of the unit in the same round; the unit itself is left out."""


def measure(
    contenders: Mapping[str, Callable[[], Any]], unit: str = "copy", seconds: float = 2.0
) -> Timings:
    """Time functions on one core, in turns, and relative to one of them.

    Parameters
    ----------
    contenders
        by name
    unit
        the name of the one that others are compared with
    seconds
        to spend at least; every function is called six times or more

    Raises
    ------
    ValueError
        the unit is not among the contenders
    """
    if unit not in contenders:
        raise ValueError(f"unit: expected one of {', '.join(contenders)}, got {unit!r}")
    timers = {name: timing.host_timer(call) for name, call in contenders.items()}
    with _one_thread():
        samples_of = timing.measure(timers, timing.Limits(seconds)).seconds
    return Timings(
        seconds={name: spread(samples) for name, samples in samples_of.items()},
        ratios={
            name: spread(paired_ratios(samples, samples_of[unit]))
            for name, samples in samples_of.items()
            if name != unit
        },
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
