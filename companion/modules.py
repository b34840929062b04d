"""BatchNorm1d, BatchNorm2d and BatchNorm3d: drop-in replacements for the ones in ``torch.nn``.

They are subclasses of PyTorch's, so that whatever asks ``isinstance`` (averaging of weights,
sharding, conversion to synchronized layers) sees what it expects, and their buffers, state
dictionaries and versions are PyTorch's own. What they compute is ``companion.functional``.

Layers of this package that do more (a ReLU, ghost batches, a mask) share a base with these, and are
no subclasses of PyTorch's: its tools would take them for plain ones, and drop the rest unsaid.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ._state import BatchNormState
from ._torch import StandIn, called_by_tracer
from .functional import batch_norm, dispatch

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class _CompanionBatchNorm(BatchNormState):
    """What all layers of the family share: ``torch.nn``'s state, this package's arithmetic."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`; in training, track its statistics.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            for an input of the wrong rank or channel count, and as
            :func:`companion.functional.batch_norm`; nothing is changed then
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input)
        return dispatch(batch_norm, self._arguments(input), self.backend)


class BatchNorm1d(_CompanionBatchNorm, nn.BatchNorm1d):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)``, as ``torch.nn.BatchNorm1d``.

    y = (x - mean)/√(var + ε)·weight + bias. In training the statistics of a channel are those of
    the batch, with the biased variance, and move the running ones; in evaluation the running ones.

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

    Notes
    -----
    See :class:`BatchNorm2d`.

    References
    ----------
    Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and (13) of the
    chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> import torch
    >>> layer = BatchNorm1d(1, eps=1e-12)
    >>> layer(torch.tensor([[2.0], [4.0]])).tolist()
    [[-1.0], [1.0]]
    >>> layer.running_mean, layer.running_var
    (tensor([0.3000]), tensor([1.1000]))
    """

    _layouts: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_CompanionBatchNorm, nn.BatchNorm2d):
    """Batch normalization of ``(N, C, H, W)``, as ``torch.nn.BatchNorm2d``.

    y = (x - mean)/√(var + ε)·weight + bias. In training the statistics of a channel are those of
    the batch, with the biased variance, and move the running ones; in evaluation the running ones.

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

    Notes
    -----
    Defaults, buffers, state dictionary, and behaviour are those of PyTorch's layer of this name.
    Differences: statistics do not become half precision by ``.half()`` and its like; an input of
    the wrong number of channels is refused even where neither parameters nor statistics exist; a
    refused input leaves ``num_batches_tracked`` as it was. For types, NaN, overflow, empty batches
    and checkpointing see :func:`companion.functional.batch_norm`.

    Tools that ask for PyTorch's exact class (``torch.ao.quantization``'s fusers,
    ``torch.jit.script``, ``torch.fx``'s fusion) do not know these layers, and those that move their
    state into one of PyTorch's (``convert_sync_batchnorm``) make a layer of half-precision weights
    and float32 statistics, which does not run: call ``companion.convert(model, to="torch")`` first.
    ``torch.fx`` sees a layer as one call, as it does PyTorch's. To fuse a model for inference no
    other tool is needed: :func:`companion.inference.fold` folds these layers and PyTorch's.

    References
    ----------
    Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and (13) of the
    chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> import torch
    >>> images = 3.0 + 5.0 * torch.randn(8, 2, 4, 4)
    >>> y = BatchNorm2d(2)(images)
    >>> torch.allclose(y.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-6)
    True
    """

    _layouts: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class BatchNorm3d(_CompanionBatchNorm, nn.BatchNorm3d):
    """Batch normalization of ``(N, C, D, H, W)``, as ``torch.nn.BatchNorm3d``.

    y = (x - mean)/√(var + ε)·weight + bias. In training the statistics of a channel are those of
    the batch, with the biased variance, and move the running ones; in evaluation the running ones.

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

    Notes
    -----
    See :class:`BatchNorm2d`.

    References
    ----------
    Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and (13) of the
    chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> import torch
    >>> volumes = torch.randn(2, 3, 4, 4, 4)
    >>> BatchNorm3d(3, momentum=None)(volumes).shape
    torch.Size([2, 3, 4, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = {5: "(N, C, D, H, W)"}
