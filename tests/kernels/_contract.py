"""What every kernel module of :mod:`companion.kernels.interface` promises, held against the oracle.

A :class:`Case` says which pass, :func:`given` makes its arguments, :func:`ask_kernels` runs both
passes of some kernels, :func:`ask_oracle` computes the same by :mod:`companion.reference` in
float64, :func:`errors` compares, and :func:`check` does all this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from _layer import numpy64
from torch import Tensor

from companion import reference
from companion.kernels.interface import Kernels, Running
from companion.kernels.layouts import empty_with_layout_of

EPS = 1e-3
# What a quantity may be wrong by, see `errors`. Half precision is rounded once, at the end; sums of
# float32 values are kept in float64 sooner or later.
_ROUNDED = {torch.float64: 1e-12, torch.float16: 2**-11, torch.bfloat16: 2**-8}
_FLOAT32 = {"cpu": 3e-7, "cuda": 2e-6}
# Of a sum over a channel, per size of its terms: the parts are added in float64.
_SUM = {"cpu": 6e-8, "cuda": 2e-7}
_MEAN = {"cpu": 6e-8, "cuda": 2e-7}
_VAR = {"cpu": 6e-8, "cuda": 2e-6}
_ACTIVATIONS = {"y", "grad_x", "grad_residual"}
_SUMS = {"grad_weight", "grad_bias"}
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Case(NamedTuple):
    """One forward and one backward pass."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    relu: bool = False
    residual: bool = False
    affine: bool = True
    fixed: bool = False
    """Whether the statistics are given."""
    running: bool = False
    """Whether a training pass moves running statistics and a count."""
    momentum: float | None = 0.3

    def __str__(self) -> str:
        names = ("channels_last", "relu", "residual", "fixed", "running")
        options = [name for name in names if getattr(self, name)]
        options += [] if self.affine else ["no parameters"]
        options += [] if self.momentum is not None else ["cumulative"]
        size = "x".join(map(str, self.shape))
        return ", ".join([f"{size} {str(self.dtype).removeprefix('torch.')}", *options])


class Given(NamedTuple):
    """The arguments of a case."""

    x: Tensor
    grad_y: Tensor
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    fixed: tuple[Tensor, Tensor] | None
    running: Running | None


class Exact(NamedTuple):
    """What the oracle says, float64; None where there is nothing to say."""

    y: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    grad_x: np.ndarray
    grad_weight: np.ndarray | None = None
    grad_bias: np.ndarray | None = None
    grad_residual: np.ndarray | None = None
    running_mean: np.ndarray | None = None
    running_var: np.ndarray | None = None
    batches: np.ndarray | None = None


def random(shape, dtype, seed, *, device="cpu", offset=0.0, scale=1.5, channels_last=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset
    x = x.to(dtype).to(device)
    return x.contiguous(memory_format=_LAST[x.ndim]) if channels_last else x


def given(case: Case, device: str = "cpu") -> Given:
    """Arguments whose gradients are 0 where a rounding might decide about the ReLU."""
    shape, dtype, last = case.shape, case.dtype, case.channels_last
    channels = (shape[1],)
    own = torch.float64 if dtype is torch.float64 else torch.float32

    def parameter(seed, dtype=own):
        return random(channels, dtype, seed, device=device)

    def activation(seed, offset=0.0):
        return random(shape, dtype, seed, device=device, offset=offset, channels_last=last)

    running = Running(
        *(parameter(6), parameter(7).abs() + 0.5),
        *(torch.tensor(3, device=device), case.momentum, False),
    )
    arguments = Given(
        x=activation(0, offset=2.0),
        grad_y=activation(1, offset=-0.5),
        weight=parameter(2) + 1.0 if case.affine else None,
        bias=parameter(3) if case.affine else None,
        residual=activation(4) if case.residual else None,
        fixed=(parameter(5, torch.float64), parameter(8, torch.float64).abs() + 0.5)
        if case.fixed
        else None,
        running=running if case.running else None,
    )
    if case.relu:
        near = np.abs(_before_relu(arguments)[0]) < 0.02
        arguments.grad_y[torch.from_numpy(near).to(device)] = 0.0
    return arguments


def _arrays(*tensors):
    return [None if tensor is None else numpy64(tensor) for tensor in tensors]


def _before_relu(arguments):
    """What a ReLU is applied to, the batch (None where the statistics are given), and x̂."""
    x, weight, bias = _arrays(arguments.x, arguments.weight, arguments.bias)
    if arguments.fixed is None:
        batch = reference.forward(x, weight, bias, EPS)
        y, x_hat = batch.y, batch.x_hat
    else:
        batch = None
        y = reference.inference(x, *_arrays(*arguments.fixed), weight, bias, EPS)
        x_hat = reference.inference(x, *_arrays(*arguments.fixed), None, None, EPS)
    residual = 0.0 if arguments.residual is None else numpy64(arguments.residual)
    return y + residual, batch, x_hat


def ask_oracle(case: Case, arguments: Given) -> Exact:
    """The same passes in float64."""
    y, batch, x_hat = _before_relu(arguments)
    g = numpy64(arguments.grad_y) * (y > 0 if case.relu else 1.0)
    axes = reference.channel_axes(y.ndim)
    if batch is None:
        mean, var = _arrays(*arguments.fixed)
        weight = 1.0 if arguments.weight is None else numpy64(arguments.weight)
        slope = (weight / np.sqrt(var + EPS)).reshape(-1, *(1,) * (y.ndim - 2))
        grad_x, grad_weight, grad_bias = g * slope, (g * x_hat).sum(axes), g.sum(axes)
    else:
        mean, var = batch.batch_mean.ravel(), batch.batch_var.ravel()
        grad_x, grad_weight, grad_bias = reference.backward(g, batch)
    exact = Exact(
        y=np.maximum(y, 0.0) if case.relu else y,
        mean=mean,
        var=var,
        grad_x=grad_x,
        grad_weight=None if arguments.weight is None else grad_weight,
        grad_bias=None if arguments.bias is None else grad_bias,
        grad_residual=g if case.residual else None,
    )
    if arguments.running is None:
        return exact
    m = y.size // y.shape[1]
    share = 0.25 if case.momentum is None else case.momentum
    former = _arrays(arguments.running.mean, arguments.running.var)
    return exact._replace(
        running_mean=(1.0 - share) * former[0] + share * mean,
        running_var=(1.0 - share) * former[1] + share * var * m / (m - 1),
        batches=np.asarray(4.0),
    )


def ask_kernels(kernels: Kernels, case: Case, arguments: Given) -> dict[str, Tensor]:
    """Run both passes, which move what is in `arguments`; results by the names of `Exact`."""
    x, grad_y, weight, bias, residual, fixed, running = arguments
    y, statistics = kernels.normalize(x, weight, bias, residual, fixed, running, EPS, case.relu)
    assert y.dtype is x.dtype
    assert y.stride() == empty_with_layout_of(x).stride()
    assert (statistics.dtype, tuple(statistics.shape)) == (torch.float64, (2, x.shape[1]))
    output = y if case.relu and case.residual else None
    gradients = kernels.differentiate(
        *(grad_y, x, output, statistics, weight, bias, EPS, case.relu),
        *(case.residual, not case.fixed),
    )
    for gradient in (gradients.x, gradients.residual):
        assert gradient is None or (gradient.dtype, gradient.stride()) == (x.dtype, y.stride())
    for gradient, value in zip(gradients, (x, weight, bias, residual), strict=True):
        assert (gradient is None) == (value is None)
        assert gradient is None or (gradient.dtype, gradient.shape) == (
            value.dtype,
            value.shape,
        )
    results = {"y": y, "mean": statistics[0], "var": statistics[1], "grad_x": gradients.x}
    results |= {"grad_weight": gradients.weight, "grad_bias": gradients.bias}
    results["grad_residual"] = gradients.residual
    if running is not None:
        results["running_mean"], results["running_var"] = running.mean, running.var
        results["batches"] = running.num_batches_tracked
    return {name: value for name, value in results.items() if value is not None}


def errors(results: dict[str, Tensor], exact: Exact, arguments: Given) -> dict[str, float]:
    """Largest error by quantity, over the size of what it is computed from."""
    expected = {name: value for name, value in exact._asdict().items() if value is not None}
    assert results.keys() == expected.keys()
    spread = np.sqrt(exact.var + EPS)
    weight = 1.0 if arguments.weight is None else np.abs(numpy64(arguments.weight))
    g = np.abs(numpy64(arguments.grad_y))
    # A sum that cancels has the digits of its terms.
    terms = g.sum(reference.channel_axes(g.ndim)).max(initial=0.0)
    sizes = {
        # A mean near 0 has no digits of its own; nor has a gradient that cancels, of two values.
        "mean": np.abs(exact.mean) + spread,
        "running_mean": np.abs(exact.mean) + spread,
        "grad_x": g.max() * np.max(weight / spread),
    }
    result = {}
    for name, value in expected.items():
        difference = np.abs(numpy64(results[name]) - value)
        largest = max(1.0, np.abs(value).max(initial=0.0))
        size = max(largest, terms) if name in _SUMS else sizes.get(name, largest)
        error = (difference / size).max(initial=0.0)
        result[name] = float(error) if np.isfinite(error) else float("inf")
    return result


def _limit(name: str, backend: str, dtype: torch.dtype) -> float:
    if dtype is torch.float64:
        return _ROUNDED[dtype] if name in {*_ACTIVATIONS, "mean"} else 1e-11
    if name in {"mean", "var"}:
        return (_MEAN if name == "mean" else _VAR)[backend]
    if name in {"running_mean", "running_var"}:
        return max(_VAR[backend], 2e-7)
    if name in _SUMS:
        return _SUM[backend]
    if name not in _ACTIVATIONS:
        return 0.0
    # The interpreter of some versions of Triton cuts off where it should round.
    cut_off = backend == "cuda" and dtype is torch.bfloat16
    return _ROUNDED.get(dtype, _FLOAT32[backend]) * (2 if cut_off else 1)


def check(kernels: Kernels, case: Case, arguments: Given, slack: float = 1.0) -> dict[str, Tensor]:
    """Hold both passes against the oracle; `slack` widens the limits of the activations."""
    backend = kernels.__name__.rpartition(".")[2]
    exact = ask_oracle(case, arguments)
    results = ask_kernels(kernels, case, arguments)
    wrong = {}
    for name, error in errors(results, exact, arguments).items():
        limit = _limit(name, backend, case.dtype) * (slack if name in _ACTIVATIONS else 1.0)
        if name in _SUMS:
            # Rounded to the parameter's type.
            limit = max(limit, torch.finfo(results[name].dtype).eps)
        if error > limit:
            wrong[name] = error
    assert not wrong, wrong
    return results
