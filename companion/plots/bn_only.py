"""Figures of the chapter `bn-only`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from companion.plots.style import BATCH, NEUTRAL, ORANGE, PLAIN, PURPLE, THEORY, figure

MARKERS = ("o", "s", "^")
TRAINED = (BATCH, PLAIN, ORANGE, PURPLE)  # γ and β, as many weights, the output layer, everything
Array = NDArray[np.float64]


def _lines(ax: Axes, weight: Array, offsets: Array, color: str, **options: Any) -> None:
    """The lines wᵀu = b, one for each row of `weight`."""
    for w, at in zip(weight, offsets, strict=True):
        foot = w * at / (w @ w)
        ax.axline(foot, foot + np.array([-w[1], w[0]]), color=color, **options)


def cloud(points: ArrayLike, weight: ArrayLike, offsets: Mapping[str, ArrayLike]) -> Figure:
    """Points in the plane, and the lines on which the units of two layers bend."""
    fig, axes = figure(2, height=3.2, sharex=True, sharey=True)
    values = np.asarray(points)
    for ax, color, (label, at) in zip(axes, (PLAIN, BATCH), offsets.items(), strict=True):
        ax.plot(*values.T, "o", color=NEUTRAL, markersize=3.5)
        _lines(ax, np.asarray(weight), np.asarray(at), color, linewidth=1.4)
        ax.plot(0, 0, "+", color=THEORY, markersize=11, markeredgewidth=2)
        ax.set(title=label, xlabel="petal length (cm)", xlim=(-1, 8.5), ylim=(-2.6, 3.9))
    axes[0].set_ylabel("petal width (cm)")
    return fig


def moved(
    points: ArrayLike,
    classes: ArrayLike,
    weight: ArrayLike,
    offsets: Mapping[str, ArrayLike],
    active: ArrayLike,
) -> Figure:
    """A layer's lines before γ and β are trained and after; dashed where no point is active."""
    fig, axes = figure(2, height=3.2, sharex=True, sharey=True)
    values, kinds, rows = np.asarray(points), np.asarray(classes), np.asarray(weight)
    used = np.asarray(active, bool)
    for ax, (label, at) in zip(axes, offsets.items(), strict=True):
        for kind, marker in enumerate(MARKERS):
            ax.plot(
                *values[kinds == kind].T,
                marker,
                color=NEUTRAL,
                markersize=4,
                markerfacecolor="none" if kind == 1 else NEUTRAL,
            )
        ends = np.asarray(at)
        last = ax is axes[-1]
        kept = used if last else np.ones_like(used)
        _lines(ax, rows[kept], ends[kept], BATCH, linewidth=1.4)
        _lines(ax, rows[~kept], ends[~kept], PLAIN, linewidth=1.4, linestyle="--")
        ax.set(title=label, xlabel="petal length (cm)", xlim=(-1, 8.5), ylim=(-2.6, 4.4))
    axes[0].set_ylabel("petal width (cm)")
    return fig


def widths(
    recorded: Mapping[int, Sequence[float]],
    live: Mapping[str, Mapping[int, Sequence[float]]],
) -> Figure:
    """Test accuracy against width: γ and β alone as recorded, and beside other choices."""
    fig, (left, right) = figure(2, height=3.4, sharey=True)
    sizes = list(recorded)
    for width, scores in recorded.items():
        left.plot([width] * len(scores), scores, "o", color=BATCH, markersize=4)
    left.plot(sizes, [np.mean(scores) for scores in recorded.values()], color=BATCH)
    left.set(title="γ and β alone, 2,000 steps", ylabel="test accuracy")
    for color, (what, runs) in zip(TRAINED, live.items(), strict=True):
        means = [float(np.mean(scores)) for scores in runs.values()]
        right.plot(list(runs), means, "o-", color=color, markersize=4, label=what)
    right.set_title("what is trained, 400 steps")
    right.legend(loc="lower right")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [str(width) for width in sizes])
        ax.set(xlabel="width of the hidden layers", ylim=(0.4, 1.01))
    return fig


def switched(gamma: ArrayLike, beta: ArrayLike, shares: ArrayLike) -> Figure:
    """γ and β of every unit after training, by whether the unit is ever active."""
    fig, ax = figure(height=3.6)
    scale, shift, active = (np.ravel(each) for each in (gamma, beta, shares))
    used = active > 0
    ax.axvline(0, color=NEUTRAL, linewidth=1)
    ax.axhline(0, color=NEUTRAL, linewidth=1)
    ax.plot(scale[used], shift[used], "o", color=BATCH, markersize=4, label="active on some images")
    ax.plot(
        scale[~used],
        shift[~used],
        "x",
        color=PLAIN,
        markersize=5,
        label="off on all images",
    )
    ax.set(xlabel="γ", ylabel="β")
    ax.legend(loc="upper left")
    return fig
