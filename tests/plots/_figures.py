"""What can go wrong in a drawn figure, by rule."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

TOLERANCE = 2  # pixels that a text may reach over an edge or into another


def texts(figure):
    """What is written level in a figure, tick labels left out, as (text, box in pixels)."""
    renderer = figure.canvas.get_renderer()
    rulers = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {text for axis in rulers for text in axis.findobj(Text)}
    ticks -= {axis.label for axis in rulers}
    written = [
        text
        for text in figure.findobj(Text)
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
