"""BatchNorm1d, BatchNorm2d and BatchNorm3d: drop-in replacements for the ones in ``torch.nn``.

They are subclasses of PyTorch's, so that whatever asks ``isinstance`` (averaging of weights,
sharding, conversion to synchronized layers) sees what it expects, and their buffers, state
dictionaries and versions are PyTorch's own. What they compute is ``companion.functional``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import init

from ._torch import BatchNormBase
from .functional import batch_norm, dispatch
from .kernels.eager import HALF_PRECISION
from .kernels.select import BACKENDS

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]

STATISTICS = ("running_mean", "running_var")


class _CompanionBatchNorm(BatchNormBase):
    """What the three layers share: ``torch.nn``'s state, this package's arithmetic."""

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
        if input.dim() not in self._layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in self._layouts.items())
            shape = tuple(input.shape)
            raise ValueError(f"input: expected dimensions {expected}, got {input.dim()}: {shape}")

    def _check_input(self, input: Tensor) -> None:
        self._check_input_dim(input)
        if input.shape[1] != self.num_features:
            raise RuntimeError(
                f"input: expected {self.num_features} channels in dimension 1, "
                f"got {input.shape[1]}: {tuple(input.shape)}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert as PyTorch does, but never turn statistics into half precision.

        In half precision a running average stops moving. A statistic that `fn` would convert
        keeps its values and its type, and goes where `fn` put it.
        """
        former = {name: getattr(self, name) for name in STATISTICS}
        parent: Any = super()
        result = parent._apply(fn, recurse)
        for name, buffer in former.items():
            if buffer is None or buffer.dtype in HALF_PRECISION:
                continue
            converted = getattr(self, name)
            if converted.dtype in HALF_PRECISION:
                setattr(self, name, buffer.to(converted.device))
        return result

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
        return dispatch(batch_norm, self._arguments(input), self.backend)

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
    ``torch.jit.script``, ``torch.fx``'s fusion) do not know these layers: call
    ``companion.convert(model, to="torch")`` first. To fuse a model for inference no other tool is
    needed: :func:`companion.inference.fold` folds these layers and PyTorch's.

    References
    ----------
    Algorithms 1 and 2 of Ioffe & Szegedy (2015), arXiv:1502.03167; Eqs. (1) to (4) and (13) of the
    chapter `mini-batch-algorithm`.

    Examples
    --------
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
    >>> volumes = torch.randn(2, 3, 4, 4, 4)
    >>> BatchNorm3d(3, momentum=None)(volumes).shape
    torch.Size([2, 3, 4, 4, 4])
    """

    _layouts: ClassVar[dict[int, str]] = {5: "(N, C, D, H, W)"}
