"""What a chapter asks of its reader, from its front matter: a Sphinx extension.

The field `book` has `minutes`, without exercises; `needs`, earlier chapters, and `background`, what
no chapter teaches; `ahead`, later chapters that it takes a result from; `skip`, headings of
sections that a first reading leaves out. It is written under those headings and under the title.
And what is made of all chapters' fields, a table, a plan, a graph, is written where a page asks.
"""

import re

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from tools import prerequisites
from tools.contents import BOOK, asked, chapters, needs
from tools.teaching import MADE

DRAWN = MADE | {"prerequisites": prerequisites.directive}
PLACE = re.compile(rf"^```\{{(?P<name>{'|'.join(DRAWN)})\}} *(?P<argument>.*)\n```$", re.MULTILINE)
HEAD = "\n:::{admonition} About %s minutes\n:class: asks\n\n%s\n:::\n"
STAR = "\n:::{container} asks\n★ A first reading can leave this section out.\n:::\n"


def announce(app: Sphinx, name: str, source: list[str]) -> None:
    source[0], made = PLACE.subn(
        lambda place: "\n".join(DRAWN[place["name"]](place["argument"])), source[0]
    )
    if made:
        for chapter in chapters():
            app.env.note_dependency(str(BOOK / f"{chapter}.md"))
    if asks := asked(name):
        said = [f"Needs: {needs(asks)}."]
        if ahead := [f"{{doc}}`{later}`" for later in asks.get("ahead", [])]:
            said.append(f"Looks ahead to {' and '.join(ahead)}.")
        boxes = {"# .*": HEAD % (asks["minutes"], " ".join(said))}
        boxes |= {f"##+ {re.escape(heading)}": STAR for heading in asks.get("skip", [])}
        for heading, box in boxes.items():
            pattern = re.compile(rf"^({heading}\n)", re.MULTILINE)
            source[0], found = pattern.subn(rf"\1{box}", source[0], count=1)
            if not found:
                raise ExtensionError(f"{name}.md: no heading {heading}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", announce)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
