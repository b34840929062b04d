"""BatchNormAct1d, 2d and 3d: normalization, residual and ReLU in one pass over memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .functional import batch_norm_act
from .modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, _CompanionBatchNorm

__all__ = ["BatchNormAct1d", "BatchNormAct2d", "BatchNormAct3d"]


class _BatchNormAct(_CompanionBatchNorm):
    """What the three layers add to the plain ones."""

    def __init__(self, num_features: int, *arguments: Any, relu: bool = True, **options: Any):
        super().__init__(num_features, *arguments, **options)
        self.relu = relu

    def extra_repr(self) -> str:
        """The layer's text, and `relu` where it is off."""
        text = super().extra_repr()
        return text if self.relu else f"{text}, relu=False"

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input`, add `residual`, apply the ReLU; in training, track statistics.

        Parameters
        ----------
        input : floating-point tensor with `num_features` channels in axis 1
        residual : shape, type and device of `input`, or None

        Returns
        -------
        tensor of the shape, type and memory format of `input`

        Raises
        ------
        ValueError, RuntimeError, NotImplementedError, TypeError
            as :func:`companion.functional.batch_norm_act`; nothing is changed then
        """
        arguments = self._arguments(input)
        return batch_norm_act(*arguments, residual=residual, relu=self.relu, **self._options())


_NOTES = """

    y = max(0, BatchNorm(input) + residual), equal in value and gradient to the three operations
    one after the other, which read and write three more tensors forward and as many backward.

    Parameters
    ----------
    relu : whether there is a ReLU; the others are those of the plain layer of this package

    Source: :func:`companion.functional.batch_norm_act`.
    """


class BatchNormAct1d(_BatchNormAct, BatchNorm1d):
    __doc__ = (
        "Normalization of ``(N, C)`` or ``(N, C, L)``, residual and ReLU in one pass." + _NOTES
    )


class BatchNormAct2d(_BatchNormAct, BatchNorm2d):
    __doc__ = "Normalization of ``(N, C, H, W)``, residual and ReLU in one pass." + _NOTES


class BatchNormAct3d(_BatchNormAct, BatchNorm3d):
    __doc__ = "Normalization of ``(N, C, D, H, W)``, residual and ReLU in one pass." + _NOTES
