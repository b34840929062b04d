"""BatchNormAct1d, 2d and 3d: normalization, residual and ReLU in one pass over memory."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ._torch import StandIn, called_by_tracer
from .functional import batch_norm_act, dispatch
from .modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm

__all__ = ["BatchNormAct1d", "BatchNormAct2d", "BatchNormAct3d"]


class _BatchNormAct(_CompanionBatchNorm):
    """What the three layers add to the plain ones."""

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
        relu: bool = True,
        bias: bool = True,
        skip_nonfinite: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            *(num_features, eps, momentum, affine, track_running_stats, device, dtype),
            bias=bias,
            skip_nonfinite=skip_nonfinite,
            backend=backend,
        )
        self.relu = relu

    def extra_repr(self) -> str:
        """The layer's text, and `relu` where it is off."""
        text = super().extra_repr()
        return text if self.relu else f"{text}, relu=False"

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input`, add `residual`, apply the ReLU; in training, track statistics.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1
        residual
            shape, type and device of `input`, or None

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            as :func:`companion.functional.batch_norm_act`; nothing is changed then
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input, residual)
        arguments = self._arguments(input, residual, self.relu)
        return dispatch(batch_norm_act, arguments, self.backend)


class BatchNormAct1d(_BatchNormAct):
    """Normalization of ``(N, C)`` or ``(N, C, L)``, residual and ReLU in one pass.

    y = max(0, BatchNorm(input) + residual), equal in value and gradient to the three operations
    one after the other, which read and write three more tensors forward and as many backward.

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
    relu
        whether there is a ReLU
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Notes
    -----
    See :class:`BatchNormAct2d`.

    References
    ----------
    :func:`companion.functional.batch_norm_act`.

    Examples
    --------
    >>> x, residual = torch.tensor([[2.0], [4.0]]), torch.tensor([[3.0], [-5.0]])
    >>> layer = BatchNormAct1d(1, eps=1e-12)
    >>> layer(x).tolist(), layer(x, residual).tolist()
    ([[0.0], [1.0]], [[2.0], [0.0]])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


class BatchNormAct2d(_BatchNormAct):
    """Normalization of ``(N, C, H, W)``, residual and ReLU in one pass.

    y = max(0, BatchNorm(input) + residual), equal in value and gradient to the three operations
    one after the other, which read and write three more tensors forward and as many backward.

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
    relu
        whether there is a ReLU
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Notes
    -----
    Parameters, buffers and state dictionary are those of PyTorch's layer, but the layer is no
    subclass of it: a tool that takes it for plain batch normalization, as
    ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` would, drops the ReLU without a word. Tools
    that ask ``isinstance`` leave it as it is; :func:`companion.convert_sync`,
    :func:`companion.update_precise`, :func:`companion.freeze` and :func:`companion.fold` serve it.
    ``torch.nn.utils.fuse_conv_bn_eval`` asks nothing, and does drop the ReLU: fold instead.

    References
    ----------
    :func:`companion.functional.batch_norm_act`.

    Examples
    --------
    >>> x, residual = torch.randn(2, 8, 3, 4, 4)
    >>> layer = BatchNormAct2d(3)
    >>> torch.allclose(layer(x, residual), torch.relu(BatchNorm2d(3)(x) + residual), atol=1e-6)
    True
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


class BatchNormAct3d(_BatchNormAct):
    """Normalization of ``(N, C, D, H, W)``, residual and ReLU in one pass.

    y = max(0, BatchNorm(input) + residual), equal in value and gradient to the three operations
    one after the other, which read and write three more tensors forward and as many backward.

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
    relu
        whether there is a ReLU
    skip_nonfinite
        leave running statistics and count alone when a batch has statistics that are not finite
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Notes
    -----
    See :class:`BatchNormAct2d`.

    References
    ----------
    :func:`companion.functional.batch_norm_act`.

    Examples
    --------
    >>> x, residual = torch.randn(2, 2, 3, 4, 4, 4)
    >>> BatchNormAct3d(3, relu=False)(x, residual).shape
    torch.Size([2, 3, 4, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts
