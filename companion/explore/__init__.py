"""The interactive figures: the reader drags a point, and the page computes batch normalization.

A function of this module is a cell's last line, and its value is the figure: in the built book, in
JupyterLab, in VS Code and in Colab. The page computes everything itself, in the 64-bit numbers of
JavaScript; there is no kernel behind it, no server, and nothing is fetched. Where scripts do not
run, in print and in a PDF a picture of the figure's start takes its place.

Why plain HTML with a part of D3, and not a widget library: anywidget and ipywidgets need a kernel
or, in a built page, a script from a content network that weighs more than all of this. Observable
Plot (85 KB compressed) draws well but has nothing to drag; uPlot draws on a canvas, which a
keyboard and a screen reader cannot enter; JSXGraph has handles and sliders but weighs 250 KB. The
six modules of D3 used here (23 KB) bring scales, axes, paths, contours and dragging; the handles'
keyboard, the labels and the themes are ours, in ``js/plot.js`` and ``js/stage.js``.

A new figure is two small files: ``js/figures/NAME.js``, which draws, and ``NAME.py``, which gives
it its starting values, its description and its picture.
"""

import companion.plots  # noqa: F401  # says what to install where Matplotlib is missing
from companion.explore.average import average
from companion.explore.axes import axes
from companion.explore.bands import bands
from companion.explore.batch import batch
from companion.explore.boundary import boundary
from companion.explore.circle import circle
from companion.explore.company import company
from companion.explore.decay import decay
from companion.explore.descent import descent
from companion.explore.drift import drift
from companion.explore.histograms import histograms
from companion.explore.identity import identity
from companion.explore.interactive import InteractiveFigure
from companion.explore.jacobian import jacobian
from companion.explore.kinks import kinks
from companion.explore.neighbours import neighbours
from companion.explore.ranks import ranks
from companion.explore.roofline import roofline
from companion.explore.slices import slices
from companion.explore.stack import stack
from companion.explore.through_time import through_time

__all__ = [
    "InteractiveFigure",
    "average",
    "axes",
    "bands",
    "batch",
    "boundary",
    "circle",
    "company",
    "decay",
    "descent",
    "drift",
    "histograms",
    "identity",
    "jacobian",
    "kinks",
    "neighbours",
    "ranks",
    "roofline",
    "slices",
    "stack",
    "through_time",
]
