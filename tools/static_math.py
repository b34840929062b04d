"""Formulas typeset by KaTeX while the book is built: what `sphinxcontrib.katex` leaves to its user.

A page then needs no script for them, nothing moves when it loads, and it is the same from disk. The
style sheet and the fonts lie in `book/_static/katex`.
"""

import atexit
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib import katex

logger = logging.getLogger(__name__)
Visitor = Callable[[HTML5Translator, nodes.Element], None]


def checked(visit: Visitor) -> Visitor:
    """`visit`, with a formula that KaTeX cannot read reported where it stands."""

    def checked_visit(translator: HTML5Translator, node: nodes.Element) -> None:
        try:
            visit(translator, node)
        except JSEvalException as error:
            tex = node.astext().strip()
            reason = str(error).splitlines()[0].partition("ParseError: ")[2]
            logger.warning("cannot read %s: %s", tex, reason, location=node, type="math")
            raise nodes.SkipNode from error

    return checked_visit


@cache
def engine() -> MiniRacer:
    """KaTeX in this process; made by the first formula, after chapters are executed in forks."""
    engine = MiniRacer()
    atexit.register(engine.close)  # left to itself, Python 3.13 waits for its thread for ever
    engine.eval(Path(katex.__file__).with_name("katex.min.js").read_text(encoding="utf-8"))
    return engine


def render(tex: str, options: dict[str, Any] | None = None) -> str:
    strict = {"throwOnError": True, "strict": "error", **(options or {})}
    return str(engine().call("katex.renderToString", tex, strict))


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinxcontrib.katex")
    katex.render_latex = render  # its own asks a server, in a process of Node.js
    inline, block = checked(katex.html_visit_math), checked(katex.html_visit_displaymath)
    app.add_html_math_renderer("static", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": False}
