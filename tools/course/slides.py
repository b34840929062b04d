"""Slides of a chapter, made from its built page: a folder that opens without a network.

A section of the chapter is a column of slides: its numbered formulas, theorems, algorithms,
figures, tables, lists, functions and questions, with the sentence that leads to each; an answer
comes with the next step. The rest of the text is in the speaker's notes (key S). reveal.js is the
one that sphinx-revealjs ships.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement
from jinja2 import Environment, FileSystemLoader
from pygments.formatters import HtmlFormatter

from tools.downloads import SITE
from tools.publication import ROOT, release

TEMPLATES = ROOT / "book" / "_templates"
# What a slide shows, by its kind; everything else is said.
KINDS = {
    "formulas": ".math[id]",
    "question": ".misconception",
    "table": ".pst-scrollable-table-container",
    "list": "ul, ol",
    "code": "pre",
    "figure": "figure",
    "box": ".proof:not([class='proof admonition']), .note, .warning, .tip",
}
LED_TO = {"formulas", "table", "list", "code"}  # by a sentence
# The page's own furniture.
REMOVED = "script, .headerlink, .run-page, .asks, .cite-page, .solution"
CODE_LINES = 18
FORMULAS = 2  # on one slide


@dataclass
class Slide:
    """What is shown at once, what comes with the next step, and what is said."""

    heading: str
    kind: str
    shown: list[PageElement] = field(default_factory=list)
    later: list[PageElement] = field(default_factory=list)
    said: list[Tag] = field(default_factory=list)

    @property
    def notes(self) -> str:
        """What is said; its formulas need no style sheet."""
        said = BeautifulSoup("".join(map(str, self.said)), "html.parser")
        for formula in said.select(".katex"):
            formula.replace_with(formula.math)
        return str(said)


def sentences(paragraph: Tag) -> list[list[PageElement]]:
    """A paragraph's lines: its source has one sentence on each."""
    found: list[list[PageElement]] = [[]]
    for part in paragraph.contents:
        if isinstance(part, NavigableString):
            first, *others = part.split("\n")
            found[-1].append(NavigableString(first))
            found += [[NavigableString(other)] for other in others]
        else:
            found[-1].append(part)
    return found


def line(sentence: Sequence[PageElement]) -> Tag:
    """A sentence on a slide."""
    html = f'<p class="line">{"".join(map(str, sentence))}</p>'
    return BeautifulSoup(html, "html.parser").p


def pieces(section: Tag) -> Iterator[tuple[str, Tag]]:
    """The parts of a section in order, with the heading that each stands under.

    A section inside of it is entered. Of a cell there are its figures; or its code, where that
    defines something in a few lines.
    """
    heading = ""
    for part in section.find_all(True, recursive=False):
        if part.name in ("h2", "h3"):
            heading = part.decode_contents()
        elif part.name == "section":
            yield from pieces(part)
        elif "cell" in part.get("class", []):
            for shown in part.select("figure, .cell_input:not(details *) pre"):
                code = shown.get_text() if shown.name == "pre" else "def "
                if re.search(r"^(def|class) ", code, re.M) and code.count("\n") <= CODE_LINES:
                    yield heading, shown
        else:
            yield heading, part


def column(section: Tag) -> list[Slide]:
    """The slides of one section: at least one."""
    slides: list[Slide] = []
    said: list[Tag] = []
    for heading, part in pieces(section):
        kind = next((kind for kind, selector in KINDS.items() if part.css.match(selector)), None)
        if kind is None:
            if slides and slides[-1].kind == "formulas" and not said and part.name == "p":
                go_on(slides[-1], part)
            said.append(part)
            continue
        slide = Slide(heading, kind, [part], said=said)
        if kind in LED_TO and said and said[-1].name == "p":
            slide.shown.insert(0, line(sentences(said[-1])[-1]))
        if kind == "question":
            slide.later = [part.details.extract().select_one(".sd-card-body")]
        if slides and joins(slides[-1], slide):
            again = str(slide.shown[0]) == str(slides[-1].shown[-1])  # of two formulas, one lead
            slides[-1].shown += slide.shown[again:]
            slides[-1].said += slide.said
        else:
            slides.append(slide)
        said = []
    if not slides:
        words = [line(sentences(part)[0]) for part in said if part.name == "p"]
        slides.append(Slide(section.h2.decode_contents(), "words", list(words[:1])))
    slides[-1].said += said
    return slides


def joins(last: Slide, slide: Slide) -> bool:
    """Whether a formula stands on one slide with those before it."""
    formulas = [part for part in last.shown if isinstance(part, Tag) and part.css.match(".math")]
    return (
        (last.kind, last.heading) == (slide.kind, slide.heading)
        and slide.kind == "formulas"
        and len(formulas) < FORMULAS
    )


def go_on(slide: Slide, paragraph: Tag) -> None:
    """Put the rest of a formula's sentence under it."""
    first = sentences(paragraph)[0]
    if str(first[0])[:1].islower():
        slide.shown.append(line(first))


def open_questions(page: BeautifulSoup) -> None:
    """Put each question of a page's quiz in a box, its right answers in the box's fold."""
    for quiz in page.select(".bn-questions"):
        script = quiz.find_next("script").get_text()
        asked, _ = json.JSONDecoder().raw_decode(script, script.index("=[") + 1)
        boxes = []
        for item, question in zip(quiz.ol.find_all("li", recursive=False), asked, strict=True):
            answers = ""
            for right in (each for each in question["answers"] if each.get("correct")):
                said = right.get("answer") or f"{sum(right['range']) / 2:.3g}"
                why = right["feedback"].partition("</strong>")[2]
                answers += f"<p><strong>{said}</strong>{why}</p>"
            options = item.ul.extract() if item.ul else ""
            boxes.append(
                f'<div class="misconception admonition"><p>{item.decode_contents()}</p>{options}'
                f'<details><div class="sd-card-body">{answers}</div></details></div>'
            )
        cell = quiz.find_parent(class_="cell")
        cell.replace_with(BeautifulSoup("".join(boxes), "html.parser"))


def exercises(section: Tag) -> list[Slide]:
    """One slide that lists the exercises of a chapter; each is said in full."""
    boxes = section.select(".exercise")
    items = "".join(f"<li>{box.p.decode_contents()}</li>" for box in boxes)
    listed = BeautifulSoup(f"<ul>{items}</ul>", "html.parser").ul
    return [Slide(section.h2.decode_contents(), "list", [listed], said=list(boxes))]


def deck(name: str) -> tuple[BeautifulSoup, list[list[Slide]]]:
    """The built page of a chapter, and its slides, a column for each section.

    Raises
    ------
    FileNotFoundError
        The book has not been built.
    """
    page = BeautifulSoup((SITE / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    text = page.article
    open_questions(page)
    opening = [text.select_one(".objectives ul")]
    for tag in text.select(REMOVED):
        tag.decompose()
    for link in text.select("a:not([href^=http])"):
        link.unwrap()
    for tag in text.select("[id]:not(.math, section)"):
        del tag["id"]
    for image in text.select("img"):
        del image["loading"]
    columns = [[Slide("After this chapter you can", "list", opening)]]
    for section in text.section.find_all("section", recursive=False):
        boxes = section.select_one(":scope > .exercise")
        columns.append(exercises(section) if boxes else column(section))
    for title in text.select(".tip > .admonition-title"):  # the section's heading says it
        title.decompose()
    for inner in text.select(".admonition section"):  # to reveal.js, a section is a slide
        inner.name = "div"
    return page, columns


def write(name: str, folder: Path) -> Path:
    """Write the slides of a chapter, with the pictures that they show, into `folder`."""
    page, columns = deck(name)
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False)
    html = template.get_template("slides.html").render(
        title=page.h1.get_text(strip=True), heading=page.h1, columns=columns, release=release()
    )
    done = BeautifulSoup(html, "html.parser")
    for tag in done.select("[id]"):
        del tag["id"]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image in done.select("img"):
        source = Path(str(image["src"]))
        shutil.copy(SITE / source, folder / "images" / source.name)
        image["src"] = f"images/{source.name}"
    path = folder / f"{name}.html"
    path.write_text(str(done), encoding="utf-8")
    return path


def write_engine(folder: Path) -> None:
    """Write what all slides share into `folder`: reveal.js, KaTeX's fonts, the style sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("sphinx_revealjs") / "_static" / "revealjs") as engine:
        for file in ("LICENSE", "dist/reset.css", "dist/reveal.css", "dist/reveal.js"):
            shutil.copy(engine / file, folder)
        shutil.copy(engine / "plugin" / "notes" / "notes.js", folder)
    shutil.copytree(ROOT / "book" / "_static" / "katex", folder / "katex", dirs_exist_ok=True)
    colours = HtmlFormatter(style="a11y-high-contrast-light").get_style_defs(".code pre")
    own = (TEMPLATES / "slides.css").read_text(encoding="utf-8")
    (folder / "slides.css").write_text(f"{own}\n{colours}\n", encoding="utf-8")
    shutil.copy(TEMPLATES / "slides.js", folder)
