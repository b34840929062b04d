"""What synchronization costs: a model with two parameters, fitted to what was measured.

The model is :func:`companion.closed_forms.sync_cost`: a latency for every step of a collective
operation, and a bandwidth. It is linear in the latency and in the time of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from companion.bench.spread import spread
from companion.closed_forms import collective_traffic, sync_cost

# What a pass sends: the operation, and the number of values for C channels.
FORWARD, BACKWARD = "forward", "backward"
OPERATIONS = {FORWARD: "all_gather", BACKWARD: "all_reduce"}


class Point(NamedTuple):
    """One measurement."""

    ranks: int
    channels: int
    direction: str
    """:data:`FORWARD` or :data:`BACKWARD`."""
    seconds: float
    """Of a call beyond the local layer's."""


class Model(NamedTuple):
    """What was fitted."""

    latency: float
    """Seconds per step, what a message costs beyond its bytes included."""
    bandwidth: float
    """Bytes per second; infinite where no cost of a byte was found."""
    points: int
    """To how many measurements."""
    error: float
    """Median of \\|model/measured - 1\\| over them."""

    def seconds(self, ranks: int, channels: int, direction: str, schedule: str = "ring") -> float:
        """What synchronization adds to a pass of a layer of that many channels."""
        return sync_cost(
            ranks,
            values(channels, direction),
            self.latency,
            self.bandwidth,
            operation=OPERATIONS[direction],
            schedule=schedule,
        )


def values(channels: int, direction: str) -> int:
    """How many values a rank contributes."""
    return 2 * channels + (direction == FORWARD)


def fit(points: Sequence[Point]) -> Model | None:
    """Fit latency and bandwidth by least squares of the relative errors.

    None where there are not two measurements with more than one rank, or all were faster than the
    local layer, as noise makes them.
    """
    rows = []
    for point in points:
        if point.ranks > 1 and point.seconds > 0.0:
            count = values(point.channels, point.direction)
            steps, sent = collective_traffic(point.ranks, count, OPERATIONS[point.direction])
            rows.append((steps / point.seconds, 8.0 * sent / point.seconds))
    if len(rows) < 2:
        return None
    latency, per_byte = _least_squares(rows)
    bandwidth = 1.0 / per_byte if per_byte > 0.0 else math.inf
    errors = [abs(latency * steps + per_byte * sent - 1.0) for steps, sent in rows]
    return Model(latency, bandwidth, len(rows), spread(errors).median)


def _least_squares(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Nonnegative a, b that make a·u + b·v nearest to 1 over rows (u, v); a is positive."""
    uu = sum(u * u for u, _ in rows)
    vv = sum(v * v for _, v in rows)
    uv = sum(u * v for u, v in rows)
    u1, v1 = sum(u for u, _ in rows), sum(v for _, v in rows)
    determinant = uu * vv - uv * uv
    if determinant > 1e-12 * uu * vv:
        a, b = (u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant
        if a > 0.0 and b >= 0.0:
            return a, b
    # On the edge: without a cost of bytes. All costs grow with the steps, so that a is positive.
    return u1 / uu, 0.0
