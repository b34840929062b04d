"""The interactive figure of the chapter `bn-only`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import data
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, NEUTRAL, PLAIN, THEORY, figure

UNITS, SEED = 10, 0


def kinks() -> InteractiveFigure:
    """The lines on which a random layer's units bend, among petals of irises that can be moved.

    The inputs are the petals' lengths and widths of 150 irises (:func:`companion.data.table`), the
    weights of the ten units are Gaussian and stay as they are.

    References
    ----------
    Eqs. (2) and (4) of the chapter `bn-only`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.kinks()
    >>> len(figure.start["points"]), len(figure.start["weights"]), figure.start["beta"]
    (150, 10, 0)
    """
    values, features = data.table("iris")
    points = values[:, [features.index(f"petal {side} (cm)") for side in ("length", "width")]]
    weights = np.random.default_rng(SEED).standard_normal((UNITS, 2)).round(3)
    center = points.mean(axis=0).round(3)
    start = {
        "points": points.tolist(),
        "weights": weights.tolist(),
        "center": center.tolist(),
        "way": "batch",
        "beta": 0,
        "sign": "plus",
        "m": len(points),
        "seed": SEED,
    }

    def picture() -> Figure:
        fig, ax = figure(height=4.2)
        ax.plot(*points.T, "o", color=NEUTRAL, markersize=3)
        for w in weights:
            along = np.array([-w[1], w[0]])
            ax.axline(points.mean(axis=0), points.mean(axis=0) + along, color=BATCH, linewidth=1.5)
            ax.axline((0, 0), along, color=PLAIN, linewidth=1, linestyle="--")
        ax.plot(0, 0, "o", color=THEORY, markersize=5)
        ax.text(8.0, 4.6, "normalized", color=BATCH, ha="center")
        ax.text(-1.2, -2.8, "not normalized", color=PLAIN, ha="center")
        ax.set(
            xlabel="petal length (cm)",
            ylabel="petal width (cm)",
            xlim=(-4, 10),
            ylim=(-3.2, 5.2),
        )
        return fig

    return InteractiveFigure(
        "kinks",
        "Where the units of a random layer bend",
        "A cloud of 150 flowers in the plane of petal length and width, the origin, and ten lines "
        "on which the units of a layer with random weights bend. At first the layer is normalized "
        "over all flowers, and all lines go through their mean. The flowers can be moved "
        "together: the lines follow. Not normalized, all lines go through the origin, and stay "
        "there. A slider for β pushes all lines away from the mean, until no flower is left on "
        "the active side of some; the sign of γ exchanges the sides. With a small batch the lines "
        "go through the mean of the batch.",
        start,
        picture,
    )
