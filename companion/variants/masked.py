"""Batch normalization of padded batches: statistics of the valid positions only.

Padding makes batches of sequences or images of different sizes. Its zeros pull the mean towards 0
and, where they are many, shrink the variance. Here a mask says which positions are valid; the
others are not read, and have no part in statistics or gradients.

Source: the sums of Ioffe & Szegedy (2015), arXiv:1502.03167, Algorithm 1, over valid values; for
sequences Laurent et al. (2015), arXiv:1510.01378, where they are called sequence-wise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from companion._torch import StandIn, called_by_tracer
from companion.functional import batch_norm
from companion.kernels.eager import values_per_channel
from companion.kernels.layouts import with_layout_of
from companion.modules import BatchNorm1d, BatchNorm2d, _CompanionBatchNorm
from companion.statistics.layers import activation_moments
from companion.statistics.moments import RunningMoments
from companion.ways import Call

__all__ = ["MaskedBatchNorm1d", "MaskedBatchNorm2d", "masked_batch_norm"]


def masked_batch_norm(
    x: Tensor,
    mask: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: Tensor | None = None,
    skip_nonfinite: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Normalize the valid positions of `x`, with their own statistics in training.

    At valid positions this is :func:`companion.functional.batch_norm` of the valid values alone,
    packed into ``(m, C)``: in value, in every derivative, and in what it does to the running
    statistics, whose variance has the factor m/(m-1) of the valid count m. At the others the output
    is 0, and so is the gradient; what `x` holds there, NaN included, has no effect.

    Parameters
    ----------
    x
        ``(N, C, *spatial)``, float16, bfloat16, float32 or float64
    mask
        boolean, True at valid positions; ``(N, *spatial)``, or with a channel axis of size 1,
        ``(N, 1, *spatial)``; any size may be 1, and is then repeated
    running_mean, running_var, weight, bias, training, momentum, eps, num_batches_tracked
        as in :func:`companion.functional.batch_norm`
    skip_nonfinite, backend
        as in :func:`companion.functional.batch_norm`

    Returns
    -------
    Tensor
        of the shape, type and memory format of `x`

    Raises
    ------
    TypeError
        a mask that is not boolean
    ValueError
        a mask of another shape or device; fewer than 2 valid positions in training
    Exception
        what :func:`companion.functional.batch_norm` raises

    Notes
    -----
    Every error comes before anything is changed.

    In training the number of valid positions decides a shape, so the host waits for the device,
    and neither ``torch.func.vmap`` nor a CUDA graph can hold the call. Outside training neither
    holds.

    Answers pytorch/pytorch#70529.

    References
    ----------
    Eqs. (1) to (4) and (13) of the chapter `mini-batch-algorithm`, over the valid values.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 3.0, 0.0]]])  # one sequence, padded
    >>> mask = torch.tensor([[True, True, False]])
    >>> masked_batch_norm(x, mask, None, None, training=True, eps=1e-12).tolist()
    [[[-1.0, 1.0, 0.0]]]
    """
    valid = _checked_mask(x, mask)
    options: dict[str, Any] = {
        "num_batches_tracked": num_batches_tracked,
        "skip_nonfinite": skip_nonfinite,
        "backend": backend,
    }
    arguments = (running_mean, running_var, weight, bias, training, momentum, eps)
    everywhere = valid.movedim(-1, 1)
    if not training or values_per_channel(x) == 0:
        # A fill value for what is not valid: the gradient of the weight would read it.
        y = batch_norm(torch.where(everywhere, x, 0.0), *arguments, **options)
        return torch.where(everywhere, y, 0.0)
    packed = _pack(x, valid)
    if len(packed) < 2:
        raise ValueError(
            f"mask: expected at least 2 valid positions when training, got {len(packed)} "
            f"for an input of {tuple(x.shape)}"
        )
    y = batch_norm(packed, *arguments, **options)
    blank = y.new_zeros([x.shape[axis] for axis in (0, *range(2, x.ndim), 1)])
    return with_layout_of(x, blank.masked_scatter(valid, y).movedim(-1, 1))


def _pack(x: Tensor, valid: Tensor) -> Tensor:
    """The valid values of `x`, ``(m, C)``."""
    return x.movedim(1, -1).masked_select(valid).unflatten(0, (-1, x.shape[1]))


def _checked_mask(x: Tensor, mask: Tensor) -> Tensor:
    """The mask with all axes of `x`, the channels last: ``(N, *spatial, C)``."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected torch.bool, got {mask.dtype}")
    if mask.device != x.device:
        raise ValueError(f"mask: expected a tensor on {x.device}, got {mask.device}")
    positions = (x.shape[0], *x.shape[2:])
    given = tuple(mask.shape)
    if x.ndim >= 2 and mask.ndim == x.ndim and mask.shape[1] == 1:
        mask = mask.squeeze(1)
    fits = mask.ndim == len(positions) and all(
        size in (1, expected) for size, expected in zip(mask.shape, positions, strict=True)
    )
    if not fits:
        raise ValueError(
            f"mask: expected shape {positions}, (N, *spatial) of an input of {tuple(x.shape)}, "
            f"with sizes of 1 where it repeats, got {given}"
        )
    return mask.unsqueeze(-1).expand(*positions, x.shape[1])


class _MaskedBatchNorm(_CompanionBatchNorm):
    """What the two layers add to batch normalization: a mask."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalize the valid positions of `input`, all of them without a mask.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1
        mask
            as in :func:`masked_batch_norm`

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`; 0 where the mask is False

        Raises
        ------
        Exception
            as the layer without a mask and as :func:`masked_batch_norm`; nothing is changed then
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input, mask)
        if mask is None:
            return super().forward(input)
        call = Call(*self._arguments(input))
        return masked_batch_norm(
            *(call.input, mask, *call[1:8]),
            num_batches_tracked=call.num_batches_tracked,
            skip_nonfinite=call.skip_nonfinite,
            backend=self.backend,
        )

    def input_moments(self, input: Tensor, mask: Tensor | None = None) -> RunningMoments:
        """Count, mean and M₂ of the values that a call with these arguments normalizes."""
        if mask is None:
            return activation_moments(input)
        return activation_moments(_pack(input.detach(), _checked_mask(input, mask)))


class MaskedBatchNorm1d(_MaskedBatchNorm):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)`` with a mask ``(N,)`` or ``(N, L)``.

    ``layer(x, mask=mask)`` leaves positions where the mask is False out of statistics and
    gradients, and returns 0 there; see :func:`masked_batch_norm`. Without a mask it is
    batch normalization, and so are parameters, buffers and options.

    Answers pytorch/pytorch#70529.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Examples
    --------
    >>> layer = MaskedBatchNorm1d(1, momentum=1.0)
    >>> y = layer(torch.tensor([[[1.0, 3.0, 0.0]]]), mask=torch.tensor([[True, True, False]]))
    >>> layer.running_mean.item(), layer.running_var.item()
    (2.0, 2.0)
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class MaskedBatchNorm2d(_MaskedBatchNorm):
    """Batch normalization of ``(N, C, H, W)`` with a mask ``(N, H, W)``.

    ``layer(x, mask=mask)`` leaves positions where the mask is False out of statistics and
    gradients, and returns 0 there; see :func:`masked_batch_norm`. Without a mask it is
    batch normalization, and so are parameters, buffers and options.

    Answers pytorch/pytorch#70529.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        weight of a batch in the running statistics; None averages all batches alike
    affine, bias
        whether there is a weight per channel, and a bias next to it
    track_running_stats
        whether to keep running statistics; without them the statistics of the batch are used in
        evaluation too
    device, dtype
        of parameters and statistics; the latter are float32 for half precision
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Examples
    --------
    >>> layer = MaskedBatchNorm2d(1)
    >>> x, mask = torch.randn(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    >>> mask[1, :, 2:] = False  # the second image is narrower
    >>> layer(x, mask=mask)[1, :, :, 2:].abs().max().item()
    0.0
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts
