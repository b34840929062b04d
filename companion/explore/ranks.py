"""The interactive figure of the chapter `many-devices`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, THEORY, figure

X = [0.8, 1.7, 2.3, 3.1, 5.5, 4.4, 6.2, 3.8, 9.6, 8.9, 7.0, 8.1]
RANKS = 4


def ranks() -> InteractiveFigure:
    """A batch split over four ranks: variances averaged, against moments merged.

    Examples
    --------
    >>> from companion import explore
    >>> explore.ranks().start["split"]
    'dealt'
    """
    x = np.array(X)

    def picture() -> Figure:
        fig, ax = figure(height=3.4)
        ax.axvline(x.mean(), color=NEUTRAL, linestyle="--")
        for rank in range(RANKS):
            own = x[rank::RANKS]
            ax.plot(own, np.full(len(own), rank), "o", color=BATCH)
            edges = own.mean() + own.std() * np.array([-1, 1])
            ax.plot(edges, [rank + 0.3] * 2, color=INFERENCE, linewidth=4)
            ax.plot(own.mean(), rank + 0.3, "o", color=THEORY, markersize=5)
        ax.set(xlabel="x", yticks=range(RANKS), ylim=(RANKS - 0.4, -0.6), xlim=(0, 10))
        ax.set_yticklabels([f"rank {rank}" for rank in range(RANKS)])
        return fig

    return InteractiveFigure(
        "ranks",
        "A batch over four ranks",
        "Twelve values of one batch lie in four rows, one for each rank; each can be dragged "
        "along its row and to another rank. Under each row a bar shows the mean and the "
        "standard deviation of its values. Handed out in turn, the ranks' variances average to "
        "a little less than the variance of the batch; handed out sorted, to a small part of "
        "it. Merged moments give all of it every time.",
        {"x": X, "split": "dealt"},
        picture,
    )
