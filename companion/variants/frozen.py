"""Frozen batch normalization: one affine map per channel that no training touches any more.

Fine-tuning a detector or a small data set often keeps the statistics and parameters of the
pretrained model. ``layer.eval()`` does not last: the next ``model.train()`` undoes it without a
word, the parameters learn on, and tools that look for batch normalization layers reset or
synchronize their statistics. A layer of this file has no mode, no parameters, and is not found.

Source: He, Zhang, Ren & Sun (2016), arXiv:1512.03385, appendix A, which fine-tunes so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from companion._torch import StandIn, called_by_tracer
from companion.conversion.recognition import following
from companion.functional import batch_norm_act, dispatch
from companion.kernels.eager import HALF_PRECISION
from companion.kernels.select import BACKENDS
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d

from .synchronized import copied_in_group

__all__ = ["FrozenBatchNorm", "FrozenBatchNorm1d", "FrozenBatchNorm2d", "FrozenBatchNorm3d"]


class Former(NamedTuple):
    """What a layer was before it was frozen: its class and its parameters."""

    cls: type[nn.Module]
    weight: nn.Parameter | None
    bias: nn.Parameter | None


class _FrozenBatchNorm(nn.Module):
    """What the layers share. Not a batch normalization layer to ``isinstance``."""

    # Layers without take any number of axes from two on.
    _layouts: ClassVar[dict[int, str] | None] = None
    # Defaults for layers that were frozen; None of one that was made frozen.
    relu: bool = False
    backend: str = "auto"
    former: Former | None = None
    # The submodules that it called after normalizing, if it was another library's.
    then: tuple[str, ...] = ()

    # Batch normalization's state.
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

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
        relu: bool = False,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not track_running_stats:
            raise ValueError("track_running_stats: expected True, the layer has no others")
        if backend not in BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.relu, self.backend = relu, backend
        ones = torch.ones(num_features, device=device, dtype=dtype)
        self.register_buffer("weight", ones.clone() if affine else None)
        self.register_buffer("bias", torch.zeros_like(ones) if affine and bias else None)
        self.register_buffer("running_mean", _at_least_single(torch.zeros_like(ones)))
        self.register_buffer("running_var", _at_least_single(ones.clone()))
        # Of no use here: state dictionaries go from and to batch normalization layers.
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))

    def reset_parameters(self) -> None:
        """Set statistics, weight and bias to their initial values."""
        for name, value in (("running_var", 1.0), ("weight", 1.0)):
            _fill(getattr(self, name), value)
        for name in ("running_mean", "bias", "num_batches_tracked"):
            _fill(getattr(self, name), 0.0)

    def extra_repr(self) -> str:
        """The number of channels, ε, whether there is a weight, and a ReLU where there is one."""
        text = f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"
        return f"{text}, relu=True" if self.relu else text

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy in the process group of the layer that was frozen."""
        return copied_in_group(self, memo)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert, but never turn statistics into half precision, nor a count."""
        names = ("running_mean", "running_var", "num_batches_tracked")
        former = {name: getattr(self, name) for name in names}
        super()._apply(fn, recurse)
        for name, buffer in former.items():
            converted = getattr(self, name)
            counts = not buffer.is_floating_point()
            if converted.dtype in HALF_PRECISION or (counts and converted.is_floating_point()):
                setattr(self, name, _at_least_single(buffer).to(converted.device))
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        """Load as PyTorch's batch normalization does, which of old had no count."""
        own = self.num_batches_tracked
        count = torch.zeros_like(own, device="cpu") if own.is_meta else own
        state_dict.setdefault(f"{prefix}num_batches_tracked", count)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input` with the frozen statistics, in training mode too.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1, any number of values
        residual
            shape, type and device of `input`, or None; added after normalizing

        Returns
        -------
        Tensor
            of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            as batch normalization in evaluation mode

        References
        ----------
        Eq. (13) mini-batch-algorithm/inference.
        """
        if isinstance(input, StandIn):
            return called_by_tracer(self, input, residual)
        layouts = type(self)._layouts
        if layouts is not None and isinstance(input, Tensor) and input.dim() not in layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in layouts.items())
            shape = tuple(input.shape)
            raise ValueError(f"input: expected dimensions {expected}, got {input.dim()}: {shape}")
        fixed = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        arguments = (input, *fixed, None, False, residual, self.relu)
        y = dispatch(batch_norm_act, arguments, self.backend)
        for _, part in following(self, self.then):
            y = part(y)
        return y


def _fill(buffer: Tensor | None, value: float) -> None:
    if buffer is not None:
        buffer.fill_(value)


def _at_least_single(statistic: Tensor) -> Tensor:
    return statistic.to(torch.float32) if statistic.dtype in HALF_PRECISION else statistic


class FrozenBatchNorm(_FrozenBatchNorm):
    """Batch normalization of ``(N, C)`` and ``(N, C, *)`` that stays in evaluation mode.

    y = (x - running_mean)/√(running_var + ε)·weight + bias, whatever the mode, with buffers that
    no optimizer and no gradient reaches.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect; there for code that builds batch normalization layers
    affine, bias
        whether there is a weight, and a bias next to it
    track_running_stats
        True; there for code that builds batch normalization layers
    device, dtype
        of the buffers; the statistics are float32 for half precision
    relu
        whether a ReLU follows, after the residual that ``forward`` may be given
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `track_running_stats` is False

    Notes
    -----
    What :func:`freeze` makes of synchronized layers, which take any number of axes. See
    :class:`FrozenBatchNorm1d`.

    References
    ----------
    Eq. (13) of the chapter `mini-batch-algorithm`; He et al. (2016), arXiv:1512.03385.

    Examples
    --------
    >>> layer = FrozenBatchNorm(3, relu=True)
    >>> layer(torch.randn(2, 3), torch.randn(2, 3)).shape, layer(torch.randn(2, 3, 4, 4)).shape
    (torch.Size([2, 3]), torch.Size([2, 3, 4, 4]))
    """


class FrozenBatchNorm1d(_FrozenBatchNorm):
    """Batch normalization of ``(N, C)`` or ``(N, C, L)`` that stays in evaluation mode.

    y = (x - running_mean)/√(running_var + ε)·weight + bias, whatever the mode, with buffers that
    no optimizer and no gradient reaches.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect; there for code that builds batch normalization layers
    affine, bias
        whether there is a weight, and a bias next to it
    track_running_stats
        True; there for code that builds batch normalization layers
    device, dtype
        of the buffers; the statistics are float32 for half precision
    relu
        whether a ReLU follows, after the residual that ``forward`` may be given
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `track_running_stats` is False

    Notes
    -----
    Arguments and state dictionary are those of PyTorch's layer, so that checkpoints load either
    way. The layer is not a subclass of it: ``convert_sync_batchnorm`` would synchronize it,
    ``torch.optim.swa_utils.update_bn`` would reset its statistics. Gradients reach the input.

    References
    ----------
    Eq. (13) of the chapter `mini-batch-algorithm`; He et al. (2016), arXiv:1512.03385.

    Examples
    --------
    >>> trained = torch.nn.BatchNorm1d(3)
    >>> y = trained(torch.randn(8, 3))
    >>> layer = FrozenBatchNorm1d(3)
    >>> layer.load_state_dict(trained.state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(8, 3)
    >>> torch.allclose(layer.train()(x), trained.eval()(x), atol=1e-6)
    True
    """

    _layouts: ClassVar[dict[int, str] | None] = BatchNorm1d._layouts


class FrozenBatchNorm2d(_FrozenBatchNorm):
    """Batch normalization of ``(N, C, H, W)`` that stays in evaluation mode.

    y = (x - running_mean)/√(running_var + ε)·weight + bias, whatever the mode, with buffers that
    no optimizer and no gradient reaches.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect; there for code that builds batch normalization layers
    affine, bias
        whether there is a weight, and a bias next to it
    track_running_stats
        True; there for code that builds batch normalization layers
    device, dtype
        of the buffers; the statistics are float32 for half precision
    relu
        whether a ReLU follows, after the residual that ``forward`` may be given
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `track_running_stats` is False

    Notes
    -----
    See :class:`FrozenBatchNorm1d`.

    References
    ----------
    Eq. (13) of the chapter `mini-batch-algorithm`; He et al. (2016), arXiv:1512.03385.

    Examples
    --------
    >>> list(FrozenBatchNorm2d(3).parameters())
    []
    """

    _layouts: ClassVar[dict[int, str] | None] = BatchNorm2d._layouts


class FrozenBatchNorm3d(_FrozenBatchNorm):
    """Batch normalization of ``(N, C, D, H, W)`` that stays in evaluation mode.

    y = (x - running_mean)/√(running_var + ε)·weight + bias, whatever the mode, with buffers that
    no optimizer and no gradient reaches.

    Parameters
    ----------
    num_features
        C, the number of channels
    eps
        added to the variance, inside the root
    momentum
        of no effect; there for code that builds batch normalization layers
    affine, bias
        whether there is a weight, and a bias next to it
    track_running_stats
        True; there for code that builds batch normalization layers
    device, dtype
        of the buffers; the statistics are float32 for half precision
    relu
        whether a ReLU follows, after the residual that ``forward`` may be given
    backend
        the kernels that compute, see :func:`companion.functional.batch_norm`

    Raises
    ------
    ValueError
        `track_running_stats` is False

    Notes
    -----
    See :class:`FrozenBatchNorm1d`.

    References
    ----------
    Eq. (13) of the chapter `mini-batch-algorithm`; He et al. (2016), arXiv:1512.03385.

    Examples
    --------
    >>> FrozenBatchNorm3d(3)(torch.randn(1, 3, 1, 1, 1)).shape  # one value per channel will do
    torch.Size([1, 3, 1, 1, 1])
    """

    _layouts: ClassVar[dict[int, str] | None] = BatchNorm3d._layouts
