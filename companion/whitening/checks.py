"""What whitening refuses, and how it says so: argument, what was expected, what came."""

from __future__ import annotations

from torch import Tensor


def check_floating_point(name: str, value: object) -> None:
    """Refuse what is not a tensor of floating-point numbers."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected a floating-point tensor, got {kind}")


def check_matrix(name: str, value: Tensor) -> None:
    """Refuse what is not one matrix of floating-point numbers with rows and columns."""
    check_floating_point(name, value)
    if value.ndim != 2 or value.numel() == 0:
        raise ValueError(f"{name}: expected a matrix (rows, d), got shape {tuple(value.shape)}")


def check_count(name: str, value: object) -> None:
    """Refuse what is not a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def check_groups(groups: int, features: int) -> None:
    """Refuse a number of groups that does not divide the number of features."""
    check_count("groups", groups)
    if features % groups:
        raise ValueError(f"groups: expected a divisor of {features} features, got {groups}")
