"""The package's docstrings as reStructuredText: a Sphinx extension for the page `api`.

The docstrings are NumPy-like, with two liberties that napoleon does not know: an entry of a section
is ``name : description``, all on one line where it fits, and the section ends at the first blank
line, so that plain paragraphs, such as the source, may follow it.

Layers for one, two and three spatial axes share their text but for its first line and its examples.
A page has what they share once, with the first of them.
"""

import re
from typing import Any

from sphinx.application import Sphinx

ENTRY = re.compile(r"(?P<names>\S.*?) : (?P<text>\S.*)")
UNDERLINE = re.compile(r"-{3,}")
FAMILY = re.compile(r"(?P<name>.*)[123]d")


def entries(block: list[str]) -> list[str]:
    """A section's lines as a definition list; as they are, where they are a plain paragraph."""
    if not ENTRY.fullmatch(block[0]):
        return block
    result = []
    for line in block:
        entry = ENTRY.fullmatch(line)
        if entry:
            result += [f"``{entry['names'].replace('`', '')}``", f"    {entry['text']}"]
        elif line.startswith(" "):
            result.append(f"    {line.strip()}")
        else:  # a paragraph below the list
            result += ["", line]
    return result


def to_rest(lines: list[str]) -> list[str]:
    """Headings of sections as rubrics, the entries below them as definition lists."""
    result: list[str] = []
    position = 0
    while position < len(lines):
        following = lines[position + 1] if position + 1 < len(lines) else ""
        if not UNDERLINE.fullmatch(following):
            result.append(lines[position])
            position += 1
            continue
        result += ["", f".. rubric:: {lines[position].strip()}", ""]
        position += 2
        block = []
        while position < len(lines) and lines[position].strip():
            block.append(lines[position])
            position += 1
        if block:
            result += entries(block)
        result.append("")
    return result


def without_shared(
    lines: list[str], name: str, seen: dict[str, tuple[str, list[str]]]
) -> list[str]:
    """A class's docstring, less what its family's first one, in `seen` by now, says as well."""
    family = FAMILY.fullmatch(name)
    if family is None or "Examples" not in lines:
        return lines
    examples = lines.index("Examples")
    first, shared = seen.setdefault(family["name"], (name, lines[1:examples]))
    if first == name or shared != lines[1:examples]:
        return lines
    return [lines[0], "", f"All else is as for :class:`~{first}`.", "", *lines[examples:]]


def convert(
    app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    if what == "class":
        seen = app.env.temp_data.setdefault("compact_docstrings", {})
        lines[:] = without_shared(lines, name, seen)
    lines[:] = to_rest(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
