"""The figure of the book's first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

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
