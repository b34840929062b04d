"""The interactive figure of the chapter `mini-batch-algorithm`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import reference
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, THEORY, figure

X = [1.0, 2.2, 2.6, 3.1, 4.0, 4.4, 5.8, 9.0]
EPS = 1e-5


def batch() -> InteractiveFigure:
    """A batch of 2 to 8 values to drag, x̂ below it, the moments and the bound on x̂.

    References
    ----------
    Eqs. (1) to (3) of the chapter `mini-batch-algorithm`.

    Examples
    --------
    >>> from companion import explore
    >>> explore.batch().start["m"]
    8
    """
    x = np.array(X)

    def picture() -> Figure:
        fig, (above, below) = figure(1, 2, height=1.5)
        x_hat = reference.forward(x[:, None], eps=EPS).x_hat[:, 0]
        above.plot(x, np.zeros_like(x), "o", color=BATCH)
        above.set(xlim=(0, 10), xlabel="x")
        below.plot(x_hat, np.zeros_like(x), "o", color=BATCH)
        bound = np.sqrt(len(x) - 1)
        for edge, label in ((-bound, "−√(m−1)"), (bound, "√(m−1)")):
            below.axvline(edge, color=THEORY, linestyle="--")
            below.text(edge * 0.98, 0.6, label, ha="left" if edge < 0 else "right")
        below.set(xlim=(-3.2, 3.2), xlabel="x̂")
        for ax in (above, below):
            ax.set(yticks=[], ylim=(-1, 1))
        return fig

    return InteractiveFigure(
        "batch",
        "A batch and its normalization",
        "Eight points on an upper axis are the values x of a batch; each can be dragged. A "
        "thread leads from each to its x̂ on a lower axis. Dashed lines mark the bound plus or "
        "minus the root of m minus 1. A slider takes values away, down to two: then x̂ is minus "
        "one and plus one, wherever the two points are.",
        {"x": X, "eps": EPS, "m": len(X)},
        picture,
    )
