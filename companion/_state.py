"""What the batch normalization layers of this package hold, apart from what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import init

from ._torch import NormBase
from .kernels.eager import HALF_PRECISION
from .kernels.select import BACKENDS

__all__ = ["STATISTICS", "BatchNormState"]

STATISTICS = ("running_mean", "running_var")


class BatchNormState(NormBase):
    """``torch.nn``'s parameters, running statistics and state dictionary, this package's options.

    What all layers of the family are below. Not ``torch.nn``'s batch normalization by inheritance:
    which of them are says :mod:`companion.modules`.
    """

    _layouts: ClassVar[dict[int, str]]
    # A default for layers that were converted, or pickled before the option existed.
    skip_nonfinite: bool = False
    backend: str = "auto"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        # `bias` is not handed on: PyTorch before 2.13 does not know it.
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        if backend not in BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        self.skip_nonfinite = skip_nonfinite
        self.backend = backend
        for name in STATISTICS:
            buffer = getattr(self, name)
            if buffer is not None and buffer.dtype in HALF_PRECISION:
                setattr(self, name, buffer.to(torch.float32))

    def reset_parameters(self) -> None:
        """Set statistics, weight and bias to their initial values."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            # PyTorch before 2.13 expects a bias here.
            if self.bias is not None:
                init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """PyTorch's text, and the options that are not as by default."""
        parent: Any = super()
        text = str(parent.extra_repr())
        if self.skip_nonfinite:
            text += ", skip_nonfinite=True"
        return text if self.backend == "auto" else f"{text}, backend={self.backend!r}"

    def _check_input_dim(self, input: Tensor) -> None:
        layouts = type(self)._layouts
        if input.dim() not in layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in layouts.items())
            shape = tuple(input.shape)
            raise ValueError(f"input: expected dimensions {expected}, got {input.dim()}: {shape}")

    def _check_input(self, input: Tensor) -> None:
        self._check_input_dim(input)
        if input.shape[1] == self.num_features:
            return
        # Who prunes channels by hand may leave `num_features` as it was: what is held counts.
        held = (self.weight, self.bias, self.running_mean, self.running_var)
        channels = next((len(value) for value in held if value is not None), self.num_features)
        if input.shape[1] != channels:
            raise RuntimeError(
                f"input: expected {channels} channels in dimension 1, "
                f"got {input.shape[1]}: {tuple(input.shape)}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert as PyTorch does, but never turn statistics into half precision.

        In half precision a running average stops moving, and a count stops counting, which
        ``layer.type(dtype)`` would convert too. What `fn` would convert so keeps its values and
        its type, and goes where `fn` put it.
        """
        former = {name: getattr(self, name, None) for name in (*STATISTICS, "num_batches_tracked")}
        parent: Any = super()
        result = parent._apply(fn, recurse)
        for name, buffer in former.items():
            if buffer is None or buffer.dtype in HALF_PRECISION:
                continue
            converted = getattr(self, name)
            counts = not buffer.is_floating_point()
            if converted.dtype in HALF_PRECISION or (counts and converted.is_floating_point()):
                setattr(self, name, buffer.to(converted.device))
        return result

    def _arguments(
        self, input: Tensor, residual: Tensor | None = None, relu: bool = False
    ) -> tuple[Any, ...]:
        """What the layer, in its mode, asks for: the fields of :class:`.ways.Call`."""
        if isinstance(input, Tensor):
            self._check_input(input)
        tracks = self.training and self.track_running_stats
        momentum = self.momentum
        if momentum is None and not (tracks and self.num_batches_tracked is not None):
            # Nothing to average over: as in PyTorch, statistics that are there do not move.
            momentum = 0.0
        fixed = not self.training and not (self.running_mean is None and self.running_var is None)
        used = tracks or fixed
        return (
            input,
            self.running_mean if used else None,
            self.running_var if used else None,
            self.weight,
            self.bias,
            not fixed,
            momentum,
            self.eps,
            self.num_batches_tracked if tracks else None,
            self.skip_nonfinite,
            residual,
            relu,
        )
