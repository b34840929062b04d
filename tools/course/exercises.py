"""The exercises of a chapter, as its text has them."""

import re
from dataclasses import dataclass

from companion.exercises.catalogue import EXERCISES
from companion.exercises.exercise import Exercise
from tools.contents import BOOK
from tools.notebooks import BOUND, from_text
from tools.plain_markdown import targets

BOX = re.compile(r"^`{3,}\{exercise\} (?P<title>.*)\n:label: ex-(?P<name>.*)$", re.MULTILINE)
CHECK = re.compile(r'check\("(?P<name>[^"]+)"')


@dataclass(frozen=True)
class Task:
    """An exercise with its number in the book; one that is answered in words has no `checker`."""

    number: str
    title: str
    checker: Exercise | None

    @property
    def heading(self) -> str:
        return f"{self.number} ({self.title})"


def tasks(chapter: str) -> list[Task]:
    """The exercises of a chapter, in their order."""
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    return [
        Task(targets()[f"ex-{box['name']}"].name, box["title"], EXERCISES.get(box["name"]))
        for box in BOX.finditer(text)
    ]


def solutions(chapter: str) -> dict[str, str]:
    """The code that solves each exercise of a chapter, by the exercise's name."""
    found: dict[str, list[str]] = {}
    name, inside = "", False
    for cell in from_text(chapter).cells:
        if cell.cell_type == "markdown":
            for bound in BOUND.findall(cell.source):
                inside = "{solution-start}" in bound
        elif check := CHECK.match(cell.source):
            name = check["name"]
        elif inside and name and "claims" not in cell.metadata.get("tags", []):
            found.setdefault(name, []).append(cell.source)
        if not inside and name in found:
            name = ""
    return {name: "\n\n\n".join(cells) for name, cells in found.items()}
