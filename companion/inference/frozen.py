"""Batch normalization with fixed statistics, as the straight line that it is in each channel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from companion._torch import BatchNormBase, has_hooks
from companion.conversion.recognition import PLAIN, form_of
from companion.fused import _BatchNormAct
from companion.modules import _CompanionBatchNorm
from companion.variants.frozen import _FrozenBatchNorm
from companion.variants.ghost import GhostBatchNorm1d
from companion.variants.noisy import NoisyBatchNorm1d
from companion.variants.renorm import BatchRenorm1d
from companion.variants.synchronized import SyncBatchNorm, SyncBatchNormAct

__all__ = [
    "NORMALIZATIONS",
    "FoldingError",
    "FrozenNorm",
    "check_no_hooks",
    "float64",
    "frozen_norm",
    "has_relu",
    "is_normalization",
]

NORMALIZATIONS = (BatchNormBase, _CompanionBatchNorm, _FrozenBatchNorm)

# A class that computes something else in evaluation mode has a `forward` of its own.
_KNOWN = (
    BatchNormBase.forward,
    nn.SyncBatchNorm.forward,
    _CompanionBatchNorm.forward,
    _BatchNormAct.forward,
    GhostBatchNorm1d.forward,
    NoisyBatchNorm1d.forward,
    BatchRenorm1d.forward,
    SyncBatchNorm.forward,
    SyncBatchNormAct.forward,
    _FrozenBatchNorm.forward,
)


class FoldingError(ValueError):
    """A batch normalization cannot be folded without changing what the model computes.

    The message names the layer, what folding needs, and what is there instead.

    Examples
    --------
    >>> from torch import nn
    >>> from companion.inference import fold_into_previous
    >>> try:
    ...     fold_into_previous(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ... except FoldingError as error:
    ...     print(error)
    bn: expected evaluation mode, got training mode, in which its statistics are the batch's
    """


class FrozenNorm(NamedTuple):
    """y = slope·(x - centre) + offset in each channel; three tensors ``(C,)``, float64, CPU."""

    centre: Tensor
    slope: Tensor
    offset: Tensor

    @property
    def shift(self) -> Tensor:
        """What an input of 0 becomes."""
        return self.offset - self.slope * self.centre


def frozen_norm(bn: Any) -> FrozenNorm:
    """Read mean, weight/√(var + eps) and bias off a layer in evaluation mode.

    What a layer does after normalizing is left to the caller: a fused one's residual and ReLU,
    another library's submodules.

    Raises
    ------
    FoldingError
        not batch normalization as PyTorch or this package computes it; training mode; no running
        statistics; hooks; values that are not finite

    References
    ----------
    Eq. (13) mini-batch-algorithm/inference.
    """
    _check_frozen(bn)
    mean, var = float64(bn.running_mean), float64(bn.running_var)
    eps: Any = bn.eps if hasattr(bn, "eps") else (form_of(type(bn)) or PLAIN).eps
    slope = 1.0 / (var + eps).sqrt()
    if bn.weight is not None:
        slope = slope * float64(bn.weight)
    offset = torch.zeros_like(slope) if bn.bias is None else float64(bn.bias)
    frozen = FrozenNorm(mean, slope, offset)
    if not all(bool(value.isfinite().all()) for value in frozen):
        raise FoldingError("bn: expected finite statistics and parameters, and var + eps above 0")
    return frozen


def has_relu(bn: nn.Module) -> bool:
    """Whether a layer applies a ReLU after normalizing."""
    return isinstance(bn, _BatchNormAct | SyncBatchNormAct | _FrozenBatchNorm) and bn.relu


def is_normalization(module: Any) -> bool:
    """Whether a module is a layer to be folded: PyTorch's, this package's, or one recognized."""
    return isinstance(module, NORMALIZATIONS) or (form_of(type(module)) or PLAIN).frozen


def float64(value: Tensor) -> Tensor:
    """The value to calculate with: on the CPU, since not every device has float64."""
    return value.detach().to("cpu", torch.float64)


def _check_frozen(bn: Any) -> None:
    form = form_of(type(bn))
    known = isinstance(bn, NORMALIZATIONS) and type(bn).forward in _KNOWN
    if not (known or (form and not form.own)) or "forward" in vars(bn):
        raise FoldingError(
            "bn: expected a batch normalization layer of PyTorch, of this package, or one that "
            f"register_batch_norm knows, got {type(bn).__name__}"
        )
    frozen = isinstance(bn, _FrozenBatchNorm) or (form or PLAIN).frozen
    if bn.training and not frozen:
        raise FoldingError(
            "bn: expected evaluation mode, got training mode, in which its statistics are the "
            "batch's"
        )
    if bn.running_mean is None or bn.running_var is None:
        raise FoldingError(
            "bn: expected running statistics, got a layer without them, whose statistics are the "
            "batch's in evaluation mode too"
        )
    check_no_hooks("bn", bn)


def check_no_hooks(name: str, module: nn.Module) -> None:
    """Refuse a layer whose hooks would see other values, or none, once it is folded."""
    if has_hooks(module):
        raise FoldingError(f"{name}: expected no hooks, got {type(module).__name__} with some")
