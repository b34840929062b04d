"""Frozen batch normalization: one affine map per channel that no training touches any more.

Fine-tuning a detector or a small data set often keeps the statistics and parameters of the
pretrained model. ``layer.eval()`` does not last: the next ``model.train()`` undoes it without a
word, the parameters learn on, and tools that look for batch normalization layers reset or
synchronize their statistics. A layer of this file has no mode, no parameters, and is not found.

Source: He, Zhang, Ren & Sun (2016), arXiv:1512.03385, appendix A, which fine-tunes so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from companion.functional import batch_norm
from companion.kernels.eager import HALF_PRECISION
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d
from companion.statistics.layers import Layer

from .ghost import _GhostBatchNorm
from .noisy import _NoisyBatchNorm
from .renorm import _BatchRenorm

__all__ = ["FrozenBatchNorm1d", "FrozenBatchNorm2d", "FrozenBatchNorm3d", "freeze"]


class _FrozenBatchNorm(nn.Module):
    """What the three layers share. Not a batch normalization layer to ``isinstance``."""

    _layouts: ClassVar[dict[int, str]]

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
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not track_running_stats:
            raise ValueError("track_running_stats: expected True, the layer has no others")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        ones = torch.ones(num_features, device=device, dtype=dtype)
        self.register_buffer("weight", ones.clone() if affine else None)
        self.register_buffer("bias", torch.zeros_like(ones) if affine and bias else None)
        self.register_buffer("running_mean", _at_least_single(torch.zeros_like(ones)))
        self.register_buffer("running_var", _at_least_single(ones.clone()))
        # Of no use here: state dictionaries go from and to batch normalization layers.
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))

    def extra_repr(self) -> str:
        """The number of channels, ε, and whether there is a weight."""
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and convert, but never turn statistics into half precision."""
        former = {name: getattr(self, name) for name in ("running_mean", "running_var")}
        super()._apply(fn, recurse)
        for name, buffer in former.items():
            converted = getattr(self, name)
            if converted.dtype in HALF_PRECISION:
                setattr(self, name, _at_least_single(buffer).to(converted.device))
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        """Load as PyTorch's batch normalization does, which of old had no count."""
        state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` with the frozen statistics, in training mode too.

        Parameters
        ----------
        input
            floating-point tensor with `num_features` channels in axis 1, any number of values

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
        if isinstance(input, Tensor) and input.dim() not in self._layouts:
            expected = " or ".join(f"{rank} {axes}" for rank, axes in self._layouts.items())
            shape = tuple(input.shape)
            raise ValueError(f"input: expected dimensions {expected}, got {input.dim()}: {shape}")
        return batch_norm(
            *(input, self.running_mean, self.running_var, self.weight, self.bias),
            training=False,
            eps=self.eps,
        )


def _at_least_single(statistic: Tensor) -> Tensor:
    return statistic.to(torch.float32) if statistic.dtype in HALF_PRECISION else statistic


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

    _layouts: ClassVar[dict[int, str]] = BatchNorm1d._layouts


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

    _layouts: ClassVar[dict[int, str]] = BatchNorm2d._layouts


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

    _layouts: ClassVar[dict[int, str]] = BatchNorm3d._layouts


_FROZEN: dict[type[nn.Module], type[_FrozenBatchNorm]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
    BatchNorm1d: FrozenBatchNorm1d,
    BatchNorm2d: FrozenBatchNorm2d,
    BatchNorm3d: FrozenBatchNorm3d,
}
# Relatives that are batch normalization at inference.
_RELATIVES = (_GhostBatchNorm, _NoisyBatchNorm, _BatchRenorm)


def _frozen_class(layer: Layer) -> type[nn.Module] | None:
    """The class that does what `layer` does at inference; None if none of them does."""
    if isinstance(layer, _RELATIVES):
        kinds = (FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d)
        return next(frozen for frozen in kinds if frozen._layouts == layer._layouts)
    return _FROZEN.get(type(layer))


def freeze(model: nn.Module) -> nn.Module:
    """Swap every batch normalization layer in `model`, in place, for a frozen one.

    A layer remains the same object, with its hooks, its numbers and the keys of its state
    dictionary; its class changes, and its parameters become buffers.

    Parameters
    ----------
    model
        any module; may be a batch normalization layer itself

    Returns
    -------
    nn.Module
        `model`, the same object. Its output in evaluation mode is what it was; layers that are
        frozen already are left alone.

    Raises
    ------
    TypeError
        `model` is not a module, or a batch normalization layer in it is none of PyTorch's or this
        package's three, nor a ghost, noisy or renormalizing one, which are batch normalization at
        inference: a layer left out would go on learning
    ValueError
        a layer keeps no running statistics

    Notes
    -----
    Nothing is changed then.

    An optimizer made before keeps the former parameters, without effect on the model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
    >>> freeze(model).train()[1]
    FrozenBatchNorm1d(4, eps=1e-05, affine=True)
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    for name, layer in layers.items():
        where = repr(name) if name else "the model"
        if _frozen_class(layer) is None:
            raise TypeError(
                "model: expected BatchNorm1d, 2d or 3d, PyTorch's or this package's, or a ghost, "
                f"noisy or renormalizing one, got {type(layer).__name__} in {where}"
            )
        if layer.running_mean is None:
            raise ValueError(f"model: expected layers with running statistics, got none in {where}")
    for layer in layers.values():
        _freeze(layer)
    return model


def _freeze(layer: Layer) -> None:
    frozen = _frozen_class(layer)
    # All layers have been looked at; this tells the type checker.
    assert frozen is not None
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        delattr(layer, name)
        # A copy: an optimizer may hold the parameter, with a gradient still to be applied.
        layer.register_buffer(name, None if value is None else value.detach().clone())
    module: nn.Module = layer
    module.__class__ = frozen
