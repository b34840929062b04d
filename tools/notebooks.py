"""Write the executed twins, `book/notebooks/NAME.ipynb`, of the texts, `book/NAME.md`.

The text is the source; its twin is what a reader downloads and what nbval compares a fresh run
against. Its outputs are those of the last `make book`, less what says nothing about the result:
images. Its Markdown is plain, for Jupyter and Colab do not read MyST. Its exercises are open: the
twin in `solutions/` has their solutions in place of the cells to fill in.

usage: python -m tools.notebooks
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator

import jupytext
import nbformat
from jupyter_cache import get_cache
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from tools.contents import BOOK, ROOT, has_code
from tools.execution_cache import source_digest
from tools.install_cell import install_cell
from tools.plain_markdown import Page, caption, plain, recorded
from tools.publication import addresses, release

TWINS = BOOK / "notebooks"
SOLUTIONS = TWINS / "solutions"
FOLDERS = {TWINS: False, SOLUTIONS: True}  # and whether the exercises are solved
BOUND = re.compile(r"(^`{3,}\{solution-(?:start|end)\}.*?^`{3,}$)", re.MULTILINE | re.DOTALL)
# Figures that move, and questions: see companion/explore/interactive.py, companion/questions.
SCRIPTED = re.compile("<script data-(bn-script|questions)>")


def chapters() -> list[str]:
    """Names of the pages that have code."""
    return [path.stem for path in sorted(BOOK.glob("*.md")) if has_code(path.stem)]


def from_text(name: str) -> NotebookNode:
    """The notebook that the text of chapter `name` describes, without outputs."""
    return jupytext.read(BOOK / f"{name}.md")


def executed(name: str) -> NotebookNode:
    """The same notebook with the outputs that its cells had when the book was built.

    Raises
    ------
    KeyError
        The chapter or the package has changed since, or the book was never built.
    """
    cache = get_cache(ROOT / "_build" / ".execution_cache" / source_digest())
    return cache.merge_match_into_notebook(from_text(name))[1]


def strip(output: NotebookNode) -> NotebookNode:
    """Remove images, and what a script draws, from one output of a cell."""
    for mime, data in list(output.get("data", {}).items()):
        if mime.startswith("image/") or (mime == "text/html" and SCRIPTED.search(data)):
            del output.data[mime]
            output.metadata.pop(mime, None)
    return output


def unsolved(cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """The cells outside of solutions, which may begin and end within a cell of text."""
    inside = False
    for cell in cells:
        if cell.cell_type == "markdown":
            kept = []
            for part in BOUND.split(cell.source):
                if BOUND.match(part):
                    inside = "{solution-start}" in part
                elif not inside:
                    kept.append(part)
            cell.source = "".join(kept)
        if cell.cell_type == "markdown" or not inside:
            yield cell


def published(cells: Iterable[NotebookNode], solved: bool) -> Iterator[NotebookNode]:
    """The cells of one of the two twins: with the cells to fill in, or with the solutions."""
    for cell in cells if solved else unsolved(cells):
        tags = cell.metadata.get("tags", [])
        if "wrong-answer" in tags or ("exercise" in tags and solved):
            continue
        if "exercise" in tags:  # the reader runs them; what they print is the reader's
            cell.metadata.tags = ["exercise", "nbval-ignore-output"]
        yield cell


def twin(notebook: NotebookNode, page: Page) -> NotebookNode:
    """The notebook of `page` as it is published.

    Its first cell installs the book's package where it is missing, its Markdown is plain, and each
    figure has its caption under it.
    """
    install = install_cell(release(), addresses())
    cells = [new_code_cell(install, id=f"{page.name}-install")]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{page.name}-{number:03d}"
    for cell in published(notebook.cells, page.solved):
        if cell.cell_type == "markdown":
            cell.source = plain(page, cell.source)
        if cell.source.startswith("Questions("):  # with their answers
            cell.metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
        if cell.source:
            cells.append(cell)
        if figure_caption := caption(page, cell):
            cells.append(new_markdown_cell(figure_caption, id=f"{cell.id}-caption"))
    code = [cell for cell in cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        cell.outputs = [strip(output) for output in cell.outputs]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.cells = cells
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description="Write the notebooks in book/notebooks from the texts and the built book.",
    ).parse_args()
    for folder, solved in FOLDERS.items():
        folder.mkdir(exist_ok=True)
        for name in chapters():
            try:
                notebook = executed(name)
            except KeyError:
                print(f"{name} has changed since the book was built: `make book`", file=sys.stderr)
                return 1
            page = Page(name, recorded(notebook.cells), solved)
            nbformat.write(twin(notebook, page), folder / f"{name}.ipynb")
    print(f"{len(chapters())} notebooks are in {TWINS.relative_to(ROOT)}, and with their solutions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
