"""The exercises as they stand in the chapters: cells to fill in, solutions, wrong answers."""

import ast
from dataclasses import dataclass, field
from functools import cache

import jupytext

from tools.contents import BOOK
from tools.notebooks import BOUND, chapters


@dataclass
class Chapter:
    """The Python of a chapter's exercises; `imports` are its own, less this package's."""

    name: str
    imports: str = ""
    stubs: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def definitions(source: str) -> str:
    """The functions of a cell."""
    return "\n\n".join(
        ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    )


def imports(source: str) -> str:
    """What a cell imports of others than this package."""
    nodes = [n for n in ast.parse(source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    lines = [ast.unparse(node) for node in nodes]
    return "\n".join(line for line in lines if "companion" not in line)


@cache
def chapter(name: str) -> Chapter:
    found = Chapter(name)
    inside = False
    for cell in jupytext.read(BOOK / f"{name}.md").cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            for bound in BOUND.findall(cell.source):
                inside = "{solution-start}" in bound
        elif "wrong-answer" in tags:
            found.wrong.append(cell.source)
        elif "exercise" in tags:
            (found.checks if cell.source.startswith("check(") else found.stubs).append(cell.source)
        else:
            found.imports += imports(cell.source) + "\n"
            if inside:
                found.solutions.append(definitions(cell.source))
    return found


CHAPTERS = [chapter(name) for name in chapters()]
