"""Batch normalization: the layer, its oracle, and the routines of the book's chapters."""

from companion import functional
from companion.fused import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, convert

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "convert",
    "functional",
]
