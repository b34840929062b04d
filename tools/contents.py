"""The pages of the book: their order, and what each chapter asks and promises."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CODE_HEADER = "---\njupytext:"  # how a page that has code begins
OBJECTIVES = re.compile(
    r"^:::\{admonition\} Learning objectives\n:class: objectives\n\n[^\n]*\n\n(.*?)\n:::$",
    re.MULTILINE | re.DOTALL,
)


@cache
def parts() -> dict[str, list[str]]:
    """The pages of every part, in the order of `_toc.yml`."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return {part["caption"]: [page["file"] for page in part["chapters"]] for part in toc["parts"]}


@cache
def numbers() -> dict[str, int]:
    """The numbers of the chapters that have one; they go on from part to part."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [page for part in toc["parts"] if "numbered" in part for page in part["chapters"]]
    return {page["file"]: number for number, page in enumerate(pages, start=1)}


@cache
def has_code(page: str) -> bool:
    return (BOOK / f"{page}.md").read_text(encoding="utf-8").startswith(CODE_HEADER)


@cache
def head(page: str) -> dict[str, Any]:
    """The front matter of a page that has code; nothing, of other pages."""
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8").split("\n---\n")[0]
    return yaml.safe_load(text.removeprefix("---")) if has_code(page) else {}


def asked(page: str) -> dict[str, Any]:
    """What a chapter asks of its reader, as its front matter says; nothing, of other pages."""
    return head(page).get("book", {})


def chapters() -> list[str]:
    """The chapters in reading order; an appendix is none."""
    return [page for pages in parts().values() for page in pages if asked(page)]


def title(page: str) -> str:
    """First heading of a page, as its text has it."""
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(r"^# (.*)$", text, re.MULTILINE)
    if not found:
        raise ValueError(f"{page}.md: expected a title, got none")
    return found[1]


def objectives(chapter: str) -> list[str]:
    """What a reader can do after a chapter, in MyST.

    Raises
    ------
    ValueError
        the chapter does not say
    """
    found = OBJECTIVES.search((BOOK / f"{chapter}.md").read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{chapter}.md: expected a box `Learning objectives`, got none")
    return re.findall(r"^- (.*)[.;]$", found[1], re.MULTILINE)


def needs(asks: Mapping[str, Any]) -> str:
    return "; ".join([*(f"{{doc}}`{name}`" for name in asks["needs"]), *asks["background"]])


def chapter_table() -> list[str]:
    """The chapters and what each asks, as a table in MyST."""
    rows = ["| chapter | minutes | needs |", "|---|---|---|"]
    for page in chapters():
        asks = asked(page)
        rows.append(f"| {{doc}}`{page}` | {asks['minutes']} | {needs(asks)} |")
    return rows
