"""What a compiled kernel module provides, and in which terms.

``cpu`` and ``cuda`` define the functions of :class:`Kernels` at module level. They compute, and do
not differentiate: ``companion.functional`` wires them to autograd. Arguments have been checked by
then. Throughout, an activation has shape ``(N, C, *)``, and

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
    weight: Tensor | None
    """Shape and type of the weight; None if there is none; as `bias`."""
    bias: Tensor | None
    residual: Tensor | None
    """As `x`; None where no residual was asked for."""


class Kernels(Protocol):
    """The functions of a kernel module. Activations are not empty."""

    def normalize(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        fixed: tuple[Tensor, Tensor] | None,
        running: Running | None,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor]:
        """Run the forward pass.

        Parameters
        ----------
        x
            ``(N, C, *)``, float16, bfloat16, float32 or float64
        weight, bias
            ``(C,)``, any floating-point type; 1 and 0 if None
        residual
            as `x`, added before the ReLU, or None
        fixed
            mean and variance to normalize with, ``(C,)``, any floating-point type, or None for
            those of the batch, which then has more than one value per channel
        running
            what the statistics of the batch move, and how, or None
        eps
            added to the variance, inside the root
        relu
            whether to apply max(·, 0), in which NaN stays NaN

        Returns
        -------
        y : Tensor
            shape, type and memory format of `x`
        statistics : Tensor
            mean and biased variance that normalized, float64, ``(2, C)``; a NaN or an infinity in a
            channel of the batch makes the variance NaN

        References
        ----------
        Eqs. (1) to (4) of the chapter `mini-batch-algorithm`; with `fixed`, Eq. (13), centred
        first.
        """

    def differentiate(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor | None,
        statistics: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        relu: bool,
        residual: bool,
        training: bool,
    ) -> Gradients:
        """Run the backward pass.

        Parameters
        ----------
        grad_y
            shape and type of `x`, any layout
        y
            the output, needed with both `relu` and `residual`; with `relu` alone, the sign of the
            activation is recomputed
        statistics
            what :meth:`normalize` returned
        residual
            whether there was one
        training
            whether the statistics were those of the batch, and depend on `x`
        x, weight, bias, eps, relu
            as given to :meth:`normalize`

        Returns
        -------
        Gradients
            through a ReLU as PyTorch has it, 0 where the activation is not positive; where it is
            NaN, the gradient passes

        References
        ----------
        Eq. (9) backprop/closed-form, exact for every ε; with fixed statistics, the derivatives of
        Eq. (13) mini-batch-algorithm/inference.
        """


class Halves(Protocol):
    """Each sweep of a pass by itself, for statistics and sums that come from elsewhere too.

    Only ``cpu`` has these functions besides those of :class:`Kernels`. Arguments are as there.
    """

    def moments(self, x: Tensor) -> Tensor:
        """Mean and biased variance of the batch, float64, ``(2, C)``."""

    def gradient_sums(self, grad_y: Tensor, x: Tensor, statistics: Tensor, eps: float) -> Tensor:
        """Σg and Σg·x̂, the gradients of bias and weight, float64, ``(2, C)``."""

    def project(
        self,
        grad_y: Tensor,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor | None,
        sums: Tensor,
        eps: float,
    ) -> Tensor:
        """The gradient of `x`, from `sums` that stand for those of all its m values per channel.

        Sums over n values instead are to be multiplied by m/n.
        """
