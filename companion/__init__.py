"""Batch normalization: the layer, its oracle, and the routines of the book's chapters."""

from companion import functional
from companion.contexts import accumulated_statistics, finite_statistics, preserved_statistics
from companion.fused import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from companion.inference import fold
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, convert
from companion.statistics import update_precise
from companion.variants import SyncBatchNorm, convert_sync, freeze

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "SyncBatchNorm",
    "accumulated_statistics",
    "convert",
    "convert_sync",
    "finite_statistics",
    "fold",
    "freeze",
    "functional",
    "preserved_statistics",
    "update_precise",
]
