"""The syllabus of a course: a session for each chapter, from what the chapters say."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools.course.exercises import tasks
from tools.plain_markdown import BOOK, Page, asked, parts, plain, titles
from tools.publication import release
from tools.static_math import render

TEMPLATES = BOOK / "_templates"
OBJECTIVES = re.compile(
    r"^:::\{admonition\} Learning objectives\n:class: objectives\n\n[^\n]*\n\n(.*?)\n:::$",
    re.MULTILINE | re.DOTALL,
)


def chapters() -> list[str]:
    """The chapters in reading order; an appendix is none."""
    return [page for pages in parts().values() for page in pages if asked(page)]


def objectives(chapter: str) -> str:
    """A list in Markdown of what a reader can do after a chapter.

    Raises
    ------
    ValueError
        the chapter does not say
    """
    found = OBJECTIVES.search((BOOK / f"{chapter}.md").read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{chapter}.md: expected a box `Learning objectives`, got none")
    return plain(Page(chapter), found[1])


def markdown() -> str:
    """The syllabus as Markdown."""
    names = chapters()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("syllabus.md").render(
        parts={part: [page for page in pages if page in names] for part, pages in parts().items()},
        sessions={name: number for number, name in enumerate(names, start=1)},
        titles=titles(),
        asked={name: asked(name) for name in names},
        objectives={name: objectives(name) for name in names},
        tasks={name: tasks(name) for name in names},
        release=release(),
    )


def html(text: str) -> str:
    """Markdown as a page that needs nothing else; a formula is MathML."""

    def formula(tex: str, options: dict[str, bool]) -> str:
        display = options["display_mode"]
        return render(tex, {"output": "mathml", "displayMode": display})

    reader = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False)
    title = text.splitlines()[0].removeprefix("# ")
    return environment.get_template("syllabus.html").render(title=title, body=reader.render(text))


def write(folder: Path) -> None:
    """Write the syllabus into `folder`, as Markdown and as a page."""
    text = markdown()
    (folder / "syllabus.md").write_text(text, encoding="utf-8")
    (folder / "syllabus.html").write_text(html(text), encoding="utf-8")
