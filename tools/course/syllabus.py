"""The syllabus of a course: its plans, and each chapter, from what the book says."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools.contents import BOOK, asked, chapters, numbers, objectives, parts
from tools.course.exercises import tasks
from tools.plain_markdown import Page, plain, targets, titles
from tools.publication import release
from tools.static_math import render
from tools.teaching import EXERCISE, plans

TEMPLATES = BOOK / "_templates"


def promised(chapter: str) -> str:
    """A list in Markdown of what a reader can do after a chapter."""
    return plain(Page(chapter), "\n".join(f"- {each};" for each in objectives(chapter)))


def markdown() -> str:
    """The syllabus as Markdown."""
    names = chapters()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("syllabus.md").render(
        plans=plans(),
        parts={part: [page for page in pages if page in names] for part, pages in parts().items()},
        labels={name: f"{numbers()[name]}. " if name in numbers() else "" for name in names},
        titles=titles(),
        asked={name: asked(name) for name in names},
        objectives={name: promised(name) for name in names},
        tasks={name: tasks(name) for name in names},
        targets=targets(),
        minutes=EXERCISE,
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
