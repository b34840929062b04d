"""The book's cover, its icon, and the picture of a page that other sites show beside a link."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from companion.plots.style import BATCH, NEUTRAL, PLAIN, THEORY

# Mean and width of six features, from which normalization takes both.
FEATURES = [(-1.7, 0.5), (0.9, 1.2), (-0.4, 0.3), (1.9, 0.7), (-1.1, 0.9), (0.5, 0.45)]
DOTS = 100  # per inch: one unit of a size below is 1/100 inch, one pixel


def _canvas(width: int, height: int) -> Figure:
    return Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS, facecolor="white")


def _bell(ax: Axes, mean: float, width: float, base: float, color: str) -> None:
    """A density above its base line, as high as it is narrow."""
    x = np.linspace(-3.6, 3.6, 400)
    y = base + 0.75 * np.exp(-((x - mean) ** 2) / (2 * width**2)) / max(width, 0.55) ** 0.5
    ax.fill_between(x, base, y, color=color, alpha=0.18, linewidth=0)
    ax.plot(x, y, color=color, linewidth=2.5)
    ax.plot([-3.6, 3.6], [base, base], color=NEUTRAL, linewidth=0.8)


def _features(figure: Figure, left: float, bottom: float, width: float, height: float) -> None:
    """Every feature as it comes, and beside it normalized; the place in fractions of the figure."""
    for column, color in enumerate((PLAIN, BATCH)):
        ax = figure.add_axes((left + column * width * 0.54, bottom, width * 0.46, height))
        ax.set_axis_off()
        ax.set_ylim(-0.05, len(FEATURES) + 0.35)
        for row, (mean, scale) in enumerate(FEATURES):
            if column:
                mean, scale = 0.0, 1.0
            _bell(ax, mean, scale, float(row), color)


def card(title: str, part: str) -> Figure:
    """The picture that other sites show beside a link to a page: 1200 × 630 pixels.

    Parameters
    ----------
    title
        of the page
    part
        of the book that the page belongs to; may be empty

    Examples
    --------
    >>> card("The speed of memory", "Part III · In practice").get_size_inches() * 100
    array([1200.,  630.])
    """
    figure = _canvas(1200, 630)
    _features(figure, 0.60, 0.12, 0.36, 0.76)
    lines = textwrap.wrap(title, 19)
    size = 42 if len(lines) <= 4 else 34
    figure.text(0.06, 0.84, part, size=20, color=NEUTRAL, va="center")
    figure.text(0.06, 0.5, "\n".join(lines), size=size, color=THEORY, va="center", linespacing=1.25)
    figure.text(0.06, 0.12, "Batch Normalization", size=24, color=BATCH, va="center", weight="bold")
    return figure


def cover() -> Figure:
    """The book's cover, 1200 × 1600 pixels."""
    figure = _canvas(1200, 1600)
    figure.text(0.08, 0.90, "Batch\nNormalization", size=76, color=THEORY, va="top", weight="bold")
    subtitle = "explained, measured and implemented"
    figure.text(0.08, 0.70, subtitle, size=31, color=NEUTRAL, va="top")
    _features(figure, 0.08, 0.08, 0.84, 0.54)
    return figure


def icon() -> Figure:
    """The icon in a browser's tab: the standard normal density on the colour of the batch."""
    figure = _canvas(128, 128)
    figure.set_facecolor("none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    shape = "round,pad=0,rounding_size=0.2"
    ax.add_patch(FancyBboxPatch((0, 0), 1, 1, boxstyle=shape, facecolor=BATCH, linewidth=0))
    x = np.linspace(0.1, 0.9, 100)
    y = 0.22 + 0.56 * np.exp(-(((x - 0.5) / 0.15) ** 2) / 2)
    ax.plot(x, y, color="white", linewidth=8, solid_capstyle="round")
    return figure
