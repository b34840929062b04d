"""Relatives of batch normalization: other statistics in training, or other ones at inference."""

from companion.variants.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from companion.variants.monte_carlo import monte_carlo_predict

__all__ = ["GhostBatchNorm1d", "GhostBatchNorm2d", "GhostBatchNorm3d", "monte_carlo_predict"]
