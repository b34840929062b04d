"""What a compiled kernel module provides, and in which terms.

``cpu`` and ``cuda`` define the functions of :class:`Kernels` at module level. They compute, and do
not differentiate: ``companion.functional`` wires them to autograd. Arguments have been checked by
then. Throughout, an activation has shape ``(N, C, *)``, statistics and the gradients of weight and
bias are float64 of shape ``(C,)``, and

    y = act((x - mean)/√(var + ε)·weight + bias + residual),

where act is the identity or, with `relu`, max(·, 0), in which NaN stays NaN.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Running(NamedTuple):
    """State that a training pass moves in place, and how."""

    mean: Tensor | None
    """``(C,)``, any floating-point type, as `var`; both or neither."""
    var: Tensor | None
    num_batches_tracked: Tensor | None
    """Integer tensor of shape ``()``; None: nothing is counted."""
    momentum: float | None
    """Weight of this batch; None: 1/(num_batches_tracked + 1), the average of all batches."""
    skip_nonfinite: bool
    """Leave all of the state alone when any statistic of the batch is not finite."""


class Gradients(NamedTuple):
    """What a backward pass returns."""

    x: Tensor
    """Shape, type and layout of the input."""
    weight: Tensor
    """``(C,)``, float64, whether or not there is a weight; as `bias`."""
    bias: Tensor
    residual: Tensor | None
    """As `x`; None where no residual was asked for."""


class Kernels(Protocol):
    """The functions of a kernel module. Results have the input's type and memory format."""

    def batch_forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        running: Running | None,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize with the batch's own statistics: y, mean, biased variance."""

    def batch_backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor | None,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        relu: bool,
        residual: bool,
    ) -> Gradients:
        """Differentiate :meth:`batch_forward`.

        With `relu`, the sign of the activation is recomputed from `x`, or, with a `residual`,
        read from the output `y`.
        """

    def fixed_forward(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        relu: bool,
    ) -> Tensor:
        """Normalize with given statistics."""

    def fixed_backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor | None,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        relu: bool,
        residual: bool,
    ) -> Gradients:
        """Differentiate :meth:`fixed_forward`, with the statistics held fixed."""
