"""The interactive figure of the chapter `identity`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import data, reference
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, NEUTRAL, figure

EPS = 1e-5


def identity() -> InteractiveFigure:
    """γ, β and the batch size against the distance of a normalized feature from itself.

    The feature is the mean radius of the cell nuclei in 256 tumours (:func:`companion.data.table`).

    References
    ----------
    Eqs. (3) and (8) of the chapter `identity`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.identity()
    >>> len(figure.start["x"]), figure.start["gamma"], figure.start["beta"]
    (256, 1.0, 0.0)
    """
    values, features = data.table("breast_cancer")
    radius = values[:, features.index("mean radius")]
    x = np.random.default_rng(0).choice(radius, 256, replace=False)
    start = {"x": x.tolist(), "eps": EPS, "gamma": 1.0, "beta": 0.0, "m": 256}

    def picture() -> Figure:
        fig, ax = figure(height=3.4)
        y = reference.forward(x[:, None], eps=EPS).y[:, 0]
        ax.plot([5, 30], [5, 30], color=NEUTRAL, linewidth=6, alpha=0.4)
        ax.text(24, 24.8, "y = x", ha="right")
        ax.plot(x, y, ".", color=BATCH, markersize=5)
        ax.text(24, 4.5, "γ = 1, β = 0", color=BATCH, ha="right")
        ax.set(xlabel="input x", ylabel="output y")
        return fig

    return InteractiveFigure(
        "identity",
        "Identity by γ and β",
        "Two drawings. In the first, a point in the plane of γ and β can be dragged; rings "
        "around γ = σ, β = μ mark equal distance from the identity. The second shows output "
        "against input of one feature, at first a flat line at γ = 1, β = 0. With the point in "
        "the middle of the rings and all 256 values in one batch the outputs lie on the "
        "diagonal. With smaller batches they scatter around it, whatever γ and β are.",
        start,
        picture,
    )
