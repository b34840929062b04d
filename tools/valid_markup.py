"""Markup that screen readers understand, where Sphinx writes other: a Sphinx extension."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# A signature with a line for each argument: a list of definitions without the terms they define.
ARGUMENTS = re.compile(r'<dl>\n(?P<lines>(?:<dd><em class="sig-param">.*</dd>\n)+)</dl>')
# A role that the standard has withdrawn, and that a list may not hold.
SOURCE = ('role="doc-biblioentry"', 'role="listitem"')


def arguments(match: re.Match[str]) -> str:
    lines = match["lines"].replace("<dd>", "<span>").replace("</dd>", "</span>")
    return f'<span class="sig-arguments">\n{lines}</span>'


def mend(
    _app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document
) -> None:
    if body := context.get("body"):
        context["body"] = ARGUMENTS.sub(arguments, body).replace(*SOURCE)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
