"""Every figure of the book, drawn from its chapter's own data and looked at by rule."""

import ast
import re
from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from companion import explore, plots
from companion.plots import cover
from tools.notebooks import BOOK, chapters, from_text

TOLERANCE = 2  # pixels that a text may reach over an edge or into another


def texts(figure):
    """What is written level in a figure, tick labels left out, as (text, box in pixels)."""
    renderer = figure.canvas.get_renderer()
    axises = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {text for axis in axises for text in axis.findobj(mpl.text.Text)}
    ticks -= {axis.label for axis in axises}
    written = [
        text
        for text in figure.findobj(mpl.text.Text)
        if text.get_visible()
        and text.get_text().strip()
        and text not in ticks
        and text.get_rotation() % 90 == 0
    ]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in written]


def boxes(figure):
    """Where the texts of a figure lie, in pixels."""
    return [box for _, box in texts(figure)]


def faults(figure):
    """What a reader would stumble over."""
    FigureCanvasAgg(figure).draw()
    width, height = figure.canvas.get_width_height()
    boxes = texts(figure)
    for text, box in boxes:
        if min(box.x0, box.y0) < -TOLERANCE or box.x1 > width + TOLERANCE:
            yield f"{text!r} is cut off"
        if box.y1 > height + TOLERANCE:
            yield f"{text!r} is cut off above"
    for (one, first), (other, second) in combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        if min(across, down) > TOLERANCE:
            yield f"{one!r} and {other!r} overlap"


def value_of(source, namespace):
    """Run a cell; the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


@pytest.mark.parametrize("name", chapters())
def test_every_figure_of_a_chapter_can_be_read(name):
    found, figures = [], 0
    with mpl.rc_context():
        namespace = {"__name__": name}
        for cell in from_text(name).cells:
            value = value_of(cell.source, namespace) if cell.cell_type == "code" else None
            if isinstance(value, explore.InteractiveFigure):
                value = value.picture()
            if isinstance(value, Figure):
                figures += 1
                found += [f"{cell.id}: {fault}" for fault in faults(value)]
            else:
                assert "figure" not in cell.metadata.get("mystnb", {}), f"{cell.id}: no figure"
    assert figures >= 1
    assert not found, "\n".join(found)


def test_cover_icon_and_cards_can_be_read():
    texts = [BOOK / f"{name}.md" for name in [*chapters(), "notation", "api", "bibliography"]]
    titles = [re.search(r"(?m)^# (.*)", text.read_text(encoding="utf-8"))[1] for text in texts]
    drawn = [cover.card(title, "Part II · What it does to training") for title in titles]
    found = [fault for figure in [*drawn, cover.cover(), cover.icon()] for fault in faults(figure)]
    assert not found, "\n".join(found)
    for figure in drawn:
        title = max(boxes(figure), key=lambda box: box.height)
        assert title.x1 < figure.axes[0].bbox.x0, "the title reaches into the picture"


def test_the_faults_are_seen():
    figure, axes = plots.figure()
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    axes.text(0.5, 0.5, "other", transform=axes.transAxes)
    axes.text(1.5, 0.5, "outside", transform=axes.transAxes)
    found = list(faults(figure))
    assert "'one' and 'other' overlap" in found
    assert "'outside' is cut off" in found
