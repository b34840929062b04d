"""Figures of the chapter `alternatives`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.experiments.recorded import trials
from companion.plots.style import (
    BATCH,
    INFERENCE,
    NEUTRAL,
    ORANGE,
    PLAIN,
    PURPLE,
    THEORY,
    figure,
)

KINDS = {
    "bn": ("batch normalization", BATCH, "o", -0.06),
    "renorm": ("batch renormalization", PURPLE, "s", 0.0),
    "gn": ("group normalization", ORANGE, "^", 0.06),
}
SIZE = 4  # images, channels and positions of a block
AWAY = np.array([0.42, 0.3])  # where the axis of positions points


def small_batches(run: dict[str, Any]) -> Figure:
    """Test accuracies of the recorded run `batch-size` against the batch size, all seeds."""
    fig, ax = figure(height=3.6)
    sizes = np.array(run["config"]["sizes"])
    for kind, (label, color, marker, aside) in KINDS.items():
        values = np.array(
            [
                [trial["scalars"]["accuracy"] for trial in trials(run, f"{kind}, m = {m}")]
                for m in sizes
            ]
        )
        at = sizes * 2**aside
        ax.plot(at, values.mean(axis=1), color=color, label=label)
        for seed in values.T:
            ax.plot(at, seed, marker, color=color, alpha=0.6, markersize=5)
    ax.set(xscale="log", xlabel="examples in a batch, m", ylabel="test accuracy", ylim=(0.66, 1.0))
    ax.set_xticks(sizes, [str(m) for m in sizes])
    ax.set_xticks([], minor=True)
    ax.legend(loc="lower right")
    return fig


def sharing() -> Figure:
    """Blocks of images, channels and positions: in colour the values that share one mean."""
    everything, first, half = range(SIZE), [0], [0, 1]
    chosen = {
        "batch": (everything, first, everything),
        "layer": (first, everything, everything),
        "instance": (first, first, everything),
        "group": (first, half, everything),
    }
    fig, axes = figure(len(chosen), height=2.4)
    for ax, (title, sets) in zip(axes, chosen.items(), strict=True):
        _block(ax, *sets)
        ax.set_title(title)
    return fig


def _block(ax: Axes, images: Sequence[int], channels: Sequence[int], places: Sequence[int]) -> None:
    """Draw the three faces that are seen, images to the right, channels down, positions away."""
    right, down = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    faces, colors = [], []
    for one in range(SIZE):
        for other in range(SIZE):
            # The front, the top and the right side: a corner, two edges, and whose value it is.
            for corner, edges, value in (
                (one * right + other * down, (right, down), (one, other, 0)),
                (one * right + other * AWAY, (right, AWAY), (one, 0, other)),
                (SIZE * right + one * down + other * AWAY, (down, AWAY), (SIZE - 1, one, other)),
            ):
                a, b = edges
                faces.append([corner, corner + a, corner + a + b, corner + b])
                n, c, k = value
                colors.append(BATCH if n in images and c in channels and k in places else "#F2F2F2")
    ax.add_collection(PolyCollection(faces, facecolors=colors, edgecolors=NEUTRAL, linewidths=0.8))
    ax.text(SIZE / 2, -SIZE - 0.2, "images N", ha="center", va="top")
    ax.text(-0.25, -SIZE / 2, "channels C", ha="right", va="center", rotation=90)
    ax.text(0.55, 1.0, "H·W", ha="right", va="bottom")
    ax.set(xlim=(-1.1, SIZE * (1 + AWAY[0]) + 0.1), ylim=(-SIZE - 1.2, SIZE * AWAY[1] + 0.6))
    ax.set_aspect("equal")
    ax.axis("off")


def averages(curves: Mapping[str, Sequence[ArrayLike]]) -> Figure:
    """Training losses against the step, all seeds; a curve ends where it leaves the numbers."""
    fig, ax = figure(height=3.4)
    for (label, runs), color in zip(curves.items(), (BATCH, INFERENCE, PURPLE), strict=True):
        for number, run in enumerate(runs):
            losses = np.asarray(run)
            steps = np.arange(1, len(losses) + 1)
            name = label if number == 0 else None
            ax.plot(steps, losses, color=color, linewidth=1.2, alpha=0.8, label=name)
    ax.set(yscale="log", xlabel="step", ylabel="training loss", ylim=(3e-3, 1e3))
    ax.legend(loc="upper right")
    return fig


def iterations(errors: Mapping[str, ArrayLike], bound: ArrayLike) -> Figure:
    """Errors of a whitening matrix after each step, for two forms of an iteration."""
    fig, ax = figure(height=3.4)
    for (label, values), color, marker in zip(
        errors.items(), (PLAIN, BATCH), ("s", "o"), strict=True
    ):
        shown = np.asarray(values)
        ax.plot(np.arange(len(shown)), shown, f"{marker}-", color=color, markersize=5, label=label)
    steps = np.arange(len(np.asarray(bound)))
    ax.plot(steps, bound, "--", color=THEORY, label="bound")
    ax.set(
        yscale="log",
        xlabel="steps of the iteration",
        ylabel="largest error of an entry",
        ylim=(1e-17, 1e7),
    )
    ax.legend(loc="lower left")
    return fig
