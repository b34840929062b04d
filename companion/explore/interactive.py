"""What a cell shows: a figure that the page draws, and a picture for where no script runs."""

from __future__ import annotations

import base64
import html
import io
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from companion.explore import bundle
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, ON_DARK, PLAIN, PURPLE, STYLE

PALETTE = {  # on a light page, on a dark one
    name: (color, ON_DARK[color])
    for name, color in {
        "batch": BATCH,
        "plain": PLAIN,
        "inference": INFERENCE,
        "white": PURPLE,
        "neutral": NEUTRAL,
    }.items()
}


@dataclass(frozen=True)
class InteractiveFigure:
    """A figure that the reader moves; show it by making it the value of a cell.

    Parameters
    ----------
    name
        of the module ``js/figures/NAME.js`` that draws it
    title
        a few words, the figure's name for a screen reader
    description
        what it shows at its start, what can be moved, and what that does
    start
        its starting values, as JSON
    picture
        draws the start with Matplotlib, for print, PDF, and pages without scripts

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.identity()
    >>> figure.title
    'Identity by γ and β'
    >>> sorted(figure._repr_mimebundle_())
    ['image/svg+xml', 'text/html', 'text/plain']
    """

    name: str
    title: str
    description: str
    start: Mapping[str, Any]
    picture: Callable[[], Figure]

    def svg(self) -> str:
        """The picture, as SVG that is the same at every run."""
        with style.context(STYLE):
            file = io.StringIO()
            self.picture().savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    def html(self, svg: str) -> str:
        """The figure as HTML that needs nothing else: data, picture, and the whole script."""
        data = json.dumps(
            {"title": self.title, "start": self.start, "palette": PALETTE},
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        picture = base64.b64encode(svg.encode()).decode()
        script = bundle.core() + bundle.figure(self.name)
        return (
            f'<div class="bn-explore" data-name="{self.name}" data-bn-figure="{html.escape(data)}"'
            ' data-lm-suppress-shortcuts="true">'
            f'<img src="data:image/svg+xml;base64,{picture}" alt="{html.escape(self.description)}">'
            f"</div><script data-bn-script>{script}</script>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        svg = self.svg()
        return {"text/plain": repr(self), "text/html": self.html(svg), "image/svg+xml": svg}

    def __repr__(self) -> str:
        text = f"{self.title}: an interactive figure. Run this cell to move it. {self.description}"
        return textwrap.fill(text, 84)
