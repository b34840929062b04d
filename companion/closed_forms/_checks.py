"""Arguments that closed forms refuse."""

from __future__ import annotations


def check_count(m: int, at_least: int = 2) -> None:
    if m < at_least:
        plural = "s" if at_least > 1 else ""
        raise ValueError(f"m: expected at least {at_least} value{plural}, got {m}")


def check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")
