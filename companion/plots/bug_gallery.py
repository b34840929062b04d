"""Figures of the appendix `bug-gallery`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.plots.style import BATCH, NEUTRAL, PLAIN, THEORY, figure
from companion.testing import Verdict

NAN = 1e6  # where errors stand that are not finite
LEAST, MOST = 1e-8, 1e11  # what is less, and what is more or not finite, stands at the edge


def cancelling(offsets: Sequence[float], wrong: Sequence[float], right: Sequence[float]) -> Figure:
    """Errors of a variance by the mean of the values, whose width is 1.

    Parameters
    ----------
    offsets
        the means
    wrong, right
        relative errors, of E[x²] - E[x]² and of the package; those that are not finite are marked
        at the top
    """
    fig, ax = figure()
    x, errors = np.asarray(offsets), np.asarray(wrong)
    bad = ~np.isfinite(errors)
    ax.loglog(x, x**2 * 2.0**-24, "--", color=THEORY, linewidth=1.2)
    ax.loglog(x[~bad], errors[~bad], "o", color=PLAIN, markersize=4)
    ax.loglog(x[bad], np.full(bad.sum(), NAN), "x", color=PLAIN, markersize=6)
    ax.loglog(x, np.maximum(right, 1e-9), "o", color=BATCH, markersize=4)
    ax.annotate("E[x²] − E[x]²", (30, 2e-3), color=PLAIN, horizontalalignment="right")
    ax.annotate("μ² · 2⁻²⁴", (300, 3e-5), color=THEORY)
    ax.annotate("the package", (1000, 1e-7), color=BATCH)
    if bad.any():
        ax.annotate("NaN", (x[bad][0] / 1.3, NAN), color=PLAIN, ha="right", va="center")
    ax.set(
        xlabel="mean μ of the inputs; their width is 1",
        ylabel="relative error of the variance",
        ylim=(3e-10, 10 * NAN),
    )
    return fig


def excess(found: Mapping[str, Verdict], own: Mapping[str, Verdict]) -> Figure:
    """The error of each bug, as a multiple of the error allowed, and the package's own.

    Parameters
    ----------
    found
        verdicts, by the bug's name
    own
        verdicts on the package, by the operation
    """
    fig, ax = figure(height=0.26 * len(found) + 1.0)
    rows = np.arange(len(found))[::-1]
    bugs = np.clip([verdict.excess for verdict in found.values()], LEAST, MOST)
    right = np.clip([own[verdict.operation].excess for verdict in found.values()], LEAST, MOST)
    ax.hlines(rows, right, bugs, color=NEUTRAL, linewidth=0.6, alpha=0.5)
    ax.axvline(1, color=THEORY, linewidth=1.2)
    ax.semilogx(bugs, rows, "o", color=PLAIN, markersize=6, clip_on=False)
    ax.semilogx(right, rows, "o", color=BATCH, markersize=5, clip_on=False)
    ax.set_yticks(rows, [name.replace("_", " ") for name in found])
    ax.set(
        xlim=(LEAST, MOST),
        ylim=(-0.7, len(found) - 0.3),
        xlabel="largest error, as a multiple of the error allowed",
        xticks=[1e-8, 1e-4, 1, 1e4, 1e8, MOST],
    )
    ax.set_xticklabels(["0", "10⁻⁴", "1", "10⁴", "10⁸", "≥10¹¹"])
    ax.minorticks_off()
    ax.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=label)
        for label, color in (("the package", BATCH), ("the bug", PLAIN))
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig
