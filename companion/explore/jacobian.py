"""The interactive figure of the chapter `backprop`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import reference
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import figure

X = [1.4, 1.9, 3.5, 4.7, 5.1, 6.4]
EPS = 1e-5


def jacobian() -> InteractiveFigure:
    """The map of ∂yᵢ/∂xⱼ of a batch of 2 to 6 values to drag, with a choice of ε.

    References
    ----------
    Eq. (11) backprop/jacobian; γ is 1.

    Examples
    --------
    >>> from companion import explore
    >>> explore.jacobian().start["eps"]
    1e-05
    """

    def picture() -> Figure:
        fig, ax = figure(height=3.6)
        entries = reference.jacobian(X, eps=EPS)
        ax.imshow(entries, cmap="RdBu", vmin=-1, vmax=1)
        for (i, j), value in np.ndenumerate(entries):
            ax.text(j, i, f"{value:.2f}".replace("-", "−"), ha="center", va="center")
        ticks = range(len(X))
        ax.set(xticks=ticks, yticks=ticks, xlabel="x", ylabel="y")
        ax.set_xticklabels([f"{value:g}" for value in X])
        ax.set_yticklabels([f"{value:g}" for value in X])
        ax.grid(False)
        return fig

    return InteractiveFigure(
        "jacobian",
        "The Jacobian of a batch",
        "Six points on an axis are the values of a batch; each can be dragged. A square map "
        "below shows the derivative of each output by each input: the diagonal positive, most "
        "others negative, every row and column with sum 0. Sliders choose the number of values "
        "and ε. With two values and a small ε all entries are nearly 0; with a large ε only the "
        "mean's part is left.",
        {"x": X, "m": len(X), "eps": EPS},
        picture,
    )
