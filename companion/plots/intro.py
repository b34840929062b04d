"""Figures of the book's first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, PLAIN, figure


def losses(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Training loss of the plain and of the normalized network, labelled at the line's end."""
    fig, ax = figure(height=3.2)
    for (label, values), color in zip(curves.items(), (PLAIN, BATCH), strict=True):
        ax.plot(values, color=color)
        ax.annotate(
            label,
            (len(values), values[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    ax.set(
        xlabel="step", ylabel="training loss (nats)", ylim=(0, None), xlim=(0, 1.35 * len(values))
    )
    return fig


def layer(before: ArrayLike, after: ArrayLike, features: int = 6) -> Figure:
    """Histograms of some of the features ``(m, C)``, before and after normalization.

    The features are chosen so that their means are evenly spread among all.
    """
    fig, axes = figure(2, height=3.6, sharey=True)
    values = [np.asarray(before), np.asarray(after)]
    order = np.argsort(values[0].mean(axis=0))
    chosen = order[np.linspace(2, len(order) - 3, features).astype(int)]
    for ax, array, color, title in zip(
        axes, values, (PLAIN, BATCH), ("before", "after"), strict=True
    ):
        edges = np.linspace(array[:, chosen].min(), array[:, chosen].max(), 29)
        middles = (edges[1:] + edges[:-1]) / 2
        for row, feature in enumerate(chosen):
            heights = np.histogram(array[:, feature], edges)[0]
            outline = row + 0.85 * heights / heights.max()
            ax.fill_between(middles, row, outline, color=color, alpha=0.2, linewidth=0)
            ax.plot(middles, outline, color=color, linewidth=1.5)
        ax.set(xlabel="value", title=f"{title} normalization")
    axes[0].set_yticks(range(features), [f"feature {k + 1}" for k in range(features)])
    return fig
