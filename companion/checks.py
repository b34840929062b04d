"""What :func:`companion.functional.batch_norm` refuses, and how it says so.

An error names the argument, what was expected and what came, and has the type that PyTorch raises
for the same mistake. Nothing here reads a tensor's values, so nothing here waits for a device.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .kernels import eager
from .kernels.interface import Running

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    """Check the arguments of a batch normalization; raise as documented.

    Where nothing is wrong this is quick: for a small batch it is a good part of the call.

    Parameters
    ----------
    input, weight, bias, training, eps
        as given by the caller
    running
        of what the caller gave as running statistics, count and momentum
    alone
        whether the statistics are those of `input` alone, which then needs two values

    Raises
    ------
    TypeError, ValueError, RuntimeError, NotImplementedError, IndexError
        as listed in :func:`companion.functional.batch_norm`
    """
    mean, var, count, momentum, _ = running
    x = _check_input(input)
    if x.shape == (0,) and weight is None and bias is None:
        # Nothing, of any number of channels: PyTorch takes it where no parameter says how many.
        return
    if x.ndim < 2:
        _refuse_rank(x, mean is None and var is None, training)
    # Asked in this order, the slow question is asked of few inputs.
    if alone and training and x.shape[0] == 1 and eager.values_per_channel(x) == 1:
        raise ValueError(
            "input: expected more than 1 value per channel when training, got shape "
            f"{tuple(x.shape)}"
        )
    _check_eps(eps, training)
    _check_momentum(momentum, count)
    if mean is None or var is None:
        _check_presence(mean, var, training)
    expected = (x.shape[1], x.dtype, x.device)
    moves = training and not torch.compiler.is_compiling()
    for name, statistic in (("running_mean", mean), ("running_var", var)):
        if statistic is not None:
            _check_per_channel(x, name, statistic, *expected)
            _check_statistic(name, statistic, moves)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            _check_per_channel(x, name, parameter, *expected)
    _check_saved(("input", x), ("weight", weight), ("bias", bias))
    if count is not None and count.device != x.device:
        raise RuntimeError(
            f"num_batches_tracked: expected a tensor on the input's device, {x.device}, "
            f"got {count.device}"
        )


def check_residual(x: Tensor, residual: object) -> None:
    """Check that a residual matches the input `x`; raise as documented."""
    if residual is None:
        return
    if not isinstance(residual, Tensor):
        raise TypeError(f"residual: expected a tensor or None, got {type(residual).__name__}")
    for name in ("shape", "dtype", "device"):
        expected, came = getattr(x, name), getattr(residual, name)
        if came != expected:
            raise RuntimeError(f"residual: expected the input's {name}, {expected}, got {came}")


def _check_input(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"input: expected a tensor, got {type(value).__name__}")
    if value.dtype not in _FLOATING or value.layout is not torch.strided:
        raise NotImplementedError(
            "input: expected a dense tensor of float16, bfloat16, float32 or float64, "
            f"got {value.dtype}, {value.layout}"
        )
    return value


def _refuse_rank(x: Tensor, without_statistics: bool, training: bool) -> None:
    shape = tuple(x.shape)
    missing = training and (x.ndim == 0 or without_statistics)
    error = IndexError if missing else RuntimeError
    raise error(f"input: expected at least 2 dimensions (N, C, ...), got {len(shape)}: {shape}")


def _check_eps(eps: object, training: bool) -> None:
    if type(eps) is not float and not isinstance(eps, Real):
        raise TypeError(f"eps: expected a number, got {type(eps).__name__}")
    if eps < 0.0 or (training and eps == 0.0):
        expected = "a positive number in training" if training else "a number not below 0"
        raise ValueError(f"eps: expected {expected}, got {eps}")


def _check_momentum(momentum: object, num_batches_tracked: object) -> None:
    if momentum is None and num_batches_tracked is None:
        raise TypeError("momentum: expected a number where num_batches_tracked is None, got None")
    if not (type(momentum) is float or momentum is None or isinstance(momentum, Real)):
        raise TypeError(f"momentum: expected a number or None, got {type(momentum).__name__}")
    if num_batches_tracked is None:
        return
    if not isinstance(num_batches_tracked, Tensor):
        came = type(num_batches_tracked).__name__
        raise TypeError(f"num_batches_tracked: expected a tensor or None, got {came}")
    # One that counts as PyTorch's layer makes it, or as its `type` or an old file has it.
    dtype, shape = num_batches_tracked.dtype, tuple(num_batches_tracked.shape)
    if shape not in ((), (1,)) or dtype is torch.bool or dtype.is_complex:
        raise RuntimeError(
            f"num_batches_tracked: expected one number, of shape (), got {dtype} of shape {shape}"
        )


def _check_presence(mean: object, var: object, training: bool) -> None:
    missing = "running_mean" if mean is None else "running_var"
    if not training:
        raise RuntimeError(f"{missing}: expected a tensor when not training, got None")
    if mean is not None or var is not None:
        raise ValueError(
            f"{missing}: expected a tensor, since running_mean and running_var go together, "
            "got None"
        )


def _check_statistic(name: str, value: Tensor, moves: bool) -> None:
    """Check that a running statistic can be moved in place, where this call will move it."""
    if value.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"{name}: expected a tensor that does not require a gradient, got one that does"
        )
    if not moves:
        return
    if not value.is_contiguous() and value.stride(0) == 0:
        raise RuntimeError(f"{name}: expected a tensor with its own memory, got an expanded one")
    if value.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{name}: expected a tensor to update in place, got one made in inference mode"
        )


def _check_saved(*named: tuple[str, Any]) -> None:
    """Check that autograd can save what it will need, if it will."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    if any(value is not None and value.requires_grad for _, value in named):
        for name, value in named:
            if value is not None and value.is_inference():
                raise RuntimeError(
                    f"{name}: expected a tensor that autograd can save, got one made in inference "
                    "mode; a clone of it is one"
                )


def _check_per_channel(
    x: Tensor, name: str, value: object, channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Check what has one value per channel against the input, and what has been read off it."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor or None, got {type(value).__name__}")
    if value.ndim != 1 or value.shape[0] != channels:
        raise RuntimeError(
            f"{name}: expected shape ({channels},), one value for each channel of the input "
            f"{tuple(x.shape)}, got {tuple(value.shape)}"
        )
    if value.dtype is not dtype and value.dtype is not eager.compute_dtype(dtype):
        allowed = {dtype, eager.compute_dtype(dtype)}
        expected = " or ".join(sorted(str(choice) for choice in allowed))
        raise RuntimeError(
            f"{name}: expected {expected} with an input of {dtype}, got {value.dtype}"
        )
    if value.device != device:
        raise RuntimeError(
            f"{name}: expected a tensor on the input's device, {device}, got {value.device}"
        )
