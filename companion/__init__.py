"""Batch normalization: the layer, its oracle, and the routines of the book's chapters."""

from companion import functional
from companion.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, convert

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "convert", "functional"]
