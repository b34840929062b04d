"""Figures of the chapter `convolution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, NEUTRAL, ORANGE, THEORY, figure


def moved(panels: Mapping[str, Sequence[ArrayLike]]) -> Figure:
    """Maps of an image, in the first row, and of the same image moved, in the second.

    The scale of a column goes from white at 0 to its strongest value, red below and blue above.
    """
    fig, axes = figure(len(panels), 2, height=1.75)
    for column, (title, pair) in zip(axes.T, panels.items(), strict=True):
        limit = max(np.abs(np.asarray(each)).max() for each in pair)
        for ax, values in zip(column, pair, strict=True):
            ax.imshow(np.asarray(values), cmap="RdBu", vmin=-limit, vmax=limit)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        column[0].set_title(title)
    axes[0, 0].set_ylabel("as it is")
    axes[1, 0].set_ylabel("moved")
    return fig


def effective(
    rhos: Sequence[float], theory: Sequence[float], at: Sequence[float], measured: Sequence[float]
) -> Figure:
    """Effective numbers of values of batches of AR(1) maps, against the neighbours' correlation."""
    fig, ax = figure(height=3.2)
    ax.plot(rhos, theory, "--", color=THEORY)
    ax.plot(at, measured, "o", color=BATCH)
    ax.axhline(512, color=NEUTRAL, linewidth=1)
    ax.text(0.98, 512 * 1.1, "m = 512", ha="right", color=NEUTRAL)
    ax.axhline(8, color=NEUTRAL, linewidth=1)
    ax.text(-0.5, 8 * 1.1, "N = 8", color=NEUTRAL)
    ax.set(
        yscale="log",
        xlabel="correlation of neighbouring positions",
        ylabel="effective number of values",
    )
    return fig


def worths(worth: Mapping[str, Mapping[str, float]], positions: int) -> Figure:
    """How many independent values a map is worth: a row a kind of map, a colour a kind of image."""
    fig, ax = figure(height=3.0)
    styles = zip(worth.items(), ((BATCH, "o"), (ORANGE, "s")), strict=True)
    for (images, values), (color, marker) in styles:
        rows = np.arange(len(values))
        ax.plot(list(values.values()), rows, marker, color=color, markersize=8, label=images)
        ax.set_yticks(rows, list(values))
    ax.axvline(positions, color=NEUTRAL, linewidth=1)
    ax.text(positions * 0.94, -0.55, f"{positions} positions", ha="right", color=NEUTRAL)
    ax.set(xscale="log", xlabel="independent values that a map is worth", ylim=(len(rows), -1))
    ax.legend(loc="lower right")
    return fig


def places(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Training losses, a dot a seed, by where the normalizations stand; the line is their mean."""
    fig, ax = figure(height=3.2)
    for row, (label, values) in enumerate(losses.items()):
        color = BATCH if label.endswith("others after") else ORANGE
        ax.plot(values, np.full(len(values), row), "o", color=color, alpha=0.7)
        ax.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=color)
    ax.set_yticks(range(len(losses)), list(losses))
    ax.set(xlabel="training loss after 150 steps", ylim=(len(losses) - 0.5, -0.5), xlim=(0, None))
    return fig


def border(errors: Mapping[str, ArrayLike]) -> Figure:
    """Errors of folded convolutions by position, with the largest written below each."""
    fig, axes = figure(len(errors), height=2.7)
    limit = max(np.asarray(each).max() for each in errors.values())
    for ax, (title, values) in zip(axes, errors.items(), strict=True):
        shown = np.asarray(values)
        ax.imshow(shown, cmap="Reds", vmin=0, vmax=limit)
        largest = shown.max()
        below = f"largest: {largest:.2f}" if largest > 1e-9 else "largest: 0, to rounding"
        ax.set(xticks=[], yticks=[], title=title, xlabel=below)
        ax.grid(visible=False)
    return fig
