"""Colours, fonts and sizes that every figure of the book shares.

The palette is Okabe and Ito's, which colour-blind readers can tell apart. A colour means the same
thing in every chapter.
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

BATCH = "#0072B2"  # with batch statistics: blue
PLAIN = "#D55E00"  # without normalization: vermilion
INFERENCE = "#009E73"  # with fixed statistics: green
THEORY = "#222222"  # a closed form or a bound: near black
NEUTRAL = "#888888"  # data, axes of symmetry, what is not compared
# Further ones, for what a chapter compares besides.
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
NAVY = "#003A5C"

ON_DARK = {  # the same on a dark page
    BATCH: "#5AB4EE",
    PLAIN: "#F58A3C",
    INFERENCE: "#2FC79A",
    PURPLE: "#E39CC4",
    NEUTRAL: "#9A9A9A",
}

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=[BATCH, PLAIN, INFERENCE, PURPLE, ORANGE, SKY]),
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 11,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "companion",
}


def use_style() -> None:
    """Draw this notebook's figures in the book's style, as vectors where Jupyter shows them."""
    plt.style.use(STYLE)
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("svg", metadata={"Date": None})


def figure(
    columns: int = 1, rows: int = 1, *, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure as wide as the text, with a grid of `rows` × `columns` axes.

    It is shown by being the value of a cell, not by pyplot at the cell's end.

    Parameters
    ----------
    columns, rows
        of the grid
    height
        of one row, in inches
    options
        passed on to ``matplotlib.figure.Figure.subplots``

    Returns
    -------
    figure, axes
        the axes alone if there is one, else an array of them
    """
    drawn = Figure(figsize=(7.2, height * rows))
    return drawn, drawn.subplots(rows, columns, **options)
