"""What :func:`companion.functional.batch_norm` refuses, and how it says so.

An error names the argument, what was expected and what came, and has the type that PyTorch raises
for the same mistake. Nothing here reads a tensor's values, so nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

from .kernels import eager
from .kernels.interface import Running

_PLAIN = (Tensor, torch.nn.Parameter)
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def obviously_fine(
    input: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    eps: float,
) -> bool:
    """Whether a few quick looks show that :func:`check_arguments` would find nothing.

    For a small batch the full check takes longer than the normalization.
    """
    mean, var, count, momentum, _ = running
    if torch.compiler.is_compiling() or type(input) is not Tensor or type(eps) is not float:
        return False
    if not (input.is_cpu and input.dtype is torch.float32 and input.ndim >= 2 and eps > 0.0):
        return False
    channels = input.shape[1]
    if input.layout is not torch.strided or (training and input.numel() <= channels):
        return False
    for value in (mean, var, weight, bias):
        if value is not None and not (
            type(value) in _PLAIN
            and value.dtype is torch.float32
            and value.is_cpu
            and value.ndim == 1
            and value.numel() == channels
            and value.is_contiguous()
        ):
            return False
    if mean is None or var is None:
        return mean is None and var is None and training and type(momentum) is float
    if mean.requires_grad or var.requires_grad or mean.is_inference() or var.is_inference():
        return False
    if count is None:
        return type(momentum) is float
    if type(count) is not Tensor or count.dtype is not torch.int64 or count.ndim != 0:
        return False
    return count.is_cpu and (momentum is None or type(momentum) is float)


def check_arguments(
    input: object,
    running: Running,
    weight: object,
    bias: object,
    training: bool,
    eps: object,
    *,
    alone: bool = True,
) -> None:
    """Raise what the arguments of a batch normalization deserve, or return.

    Parameters
    ----------
    input, weight, bias, training, eps : as given by the caller
    running : of what the caller gave as running statistics, count and momentum
    alone : whether the statistics are those of `input` alone, which then needs two values

    Raises
    ------
    TypeError, ValueError, RuntimeError, NotImplementedError, IndexError
        as listed in :func:`companion.functional.batch_norm`
    """
    statistics = {"running_mean": running.mean, "running_var": running.var}
    parameters = {"weight": weight, "bias": bias}
    count = running.num_batches_tracked
    x = _check_input(input, statistics, training)
    if alone and training and eager.values_per_channel(x) == 1:
        raise ValueError(
            "input: expected more than 1 value per channel when training, got shape "
            f"{tuple(x.shape)}"
        )
    _check_eps(eps, training)
    _check_momentum(running.momentum, count)
    _check_presence(statistics, training)
    for name, value in (*statistics.items(), *parameters.items()):
        if value is not None:
            _check_per_channel(x, name, value)
    for name, statistic in statistics.items():
        if isinstance(statistic, Tensor):
            _check_statistic(name, statistic, training)
    if isinstance(count, Tensor) and count.device != x.device:
        raise RuntimeError(
            f"num_batches_tracked: expected a tensor on the input's device, {x.device}, "
            f"got {count.device}"
        )


def check_residual(x: Tensor, residual: object) -> None:
    """Raise what a residual deserves that does not match the input `x`, or return."""
    if residual is None:
        return
    if not isinstance(residual, Tensor):
        raise TypeError(f"residual: expected a tensor or None, got {type(residual).__name__}")
    for name in ("shape", "dtype", "device"):
        expected, came = getattr(x, name), getattr(residual, name)
        if came != expected:
            raise RuntimeError(f"residual: expected the input's {name}, {expected}, got {came}")


def _check_input(value: object, statistics: Mapping[str, object], training: bool) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"input: expected a tensor, got {type(value).__name__}")
    shape = tuple(value.shape)
    if value.dtype not in _FLOATING or value.layout is not torch.strided:
        raise NotImplementedError(
            "input: expected a dense tensor of float16, bfloat16, float32 or float64, "
            f"got {value.dtype}, {value.layout}"
        )
    if value.ndim < 2:
        without = value.ndim == 0 or all(given is None for given in statistics.values())
        error = IndexError if training and without else RuntimeError
        raise error(f"input: expected at least 2 dimensions (N, C, ...), got {len(shape)}: {shape}")
    return value


def _check_eps(eps: object, training: bool) -> None:
    if not isinstance(eps, Real):
        raise TypeError(f"eps: expected a number, got {type(eps).__name__}")
    if eps < 0.0 or (training and eps == 0.0):
        expected = "a positive number in training" if training else "a number not below 0"
        raise ValueError(f"eps: expected {expected}, got {eps}")


def _check_momentum(momentum: object, num_batches_tracked: object) -> None:
    if momentum is None and num_batches_tracked is None:
        raise TypeError("momentum: expected a number where num_batches_tracked is None, got None")
    if momentum is not None and not isinstance(momentum, Real):
        raise TypeError(f"momentum: expected a number or None, got {type(momentum).__name__}")
    if num_batches_tracked is None:
        return
    if not isinstance(num_batches_tracked, Tensor):
        came = type(num_batches_tracked).__name__
        raise TypeError(f"num_batches_tracked: expected a tensor or None, got {came}")
    if num_batches_tracked.ndim != 0 or num_batches_tracked.is_floating_point():
        raise RuntimeError(
            "num_batches_tracked: expected an integer tensor of shape (), "
            f"got {num_batches_tracked.dtype} of shape {tuple(num_batches_tracked.shape)}"
        )


def _check_presence(statistics: Mapping[str, object], training: bool) -> None:
    missing = [name for name, value in statistics.items() if value is None]
    if missing and not training:
        raise RuntimeError(f"{missing[0]}: expected a tensor when not training, got None")
    if len(missing) == 1:
        raise ValueError(
            f"{missing[0]}: expected a tensor, since {' and '.join(statistics)} go together, "
            "got None"
        )


def _check_statistic(name: str, value: Tensor, training: bool) -> None:
    """Check that a running statistic can be moved in place, where training will move it."""
    if value.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"{name}: expected a tensor that does not require a gradient, got one that does"
        )
    if not training or torch.compiler.is_compiling():
        return
    if value.shape[0] > 1 and value.stride(0) == 0:
        raise RuntimeError(f"{name}: expected a tensor with its own memory, got an expanded one")
    if value.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{name}: expected a tensor to update in place, got one made in inference mode"
        )


def _check_per_channel(x: Tensor, name: str, value: object) -> None:
    """Check what has one value per channel against the input."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor or None, got {type(value).__name__}")
    if value.ndim != 1 or value.shape[0] != x.shape[1]:
        raise RuntimeError(
            f"{name}: expected shape ({x.shape[1]},), one value for each channel of the input "
            f"{tuple(x.shape)}, got {tuple(value.shape)}"
        )
    allowed = {x.dtype, eager.compute_dtype(x.dtype)}
    if value.dtype not in allowed:
        expected = " or ".join(sorted(str(dtype) for dtype in allowed))
        raise RuntimeError(
            f"{name}: expected {expected} with an input of {x.dtype}, got {value.dtype}"
        )
    if value.device != x.device:
        raise RuntimeError(
            f"{name}: expected a tensor on the input's device, {x.device}, got {value.device}"
        )
