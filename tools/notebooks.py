"""Regenerate the executed twins, `book/notebooks/NAME.ipynb`, from the text, `book/NAME.md`.

The text is the source; its twin is what a reader downloads and what nbval compares a fresh run
against. A twin keeps the text outputs and drops what says nothing about the result: images and
times. Its Markdown is plain, for Jupyter and Colab do not read MyST.

usage: python -m tools.notebooks [NAME ...]
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from tools.install_cell import install_cell
from tools.plain_markdown import BOOK, CODE_HEADER, Page, caption, plain, recorded
from tools.publication import addresses, release

TWINS = BOOK / "notebooks"
CELL_TIMEOUT = 120  # seconds
SCRIPTED = "<script data-bn-script>"  # see companion/explore/interactive.py


def chapters() -> list[str]:
    """Names of the pages that have code: those with a jupytext header."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("*.md"))}
    return [name for name, text in texts.items() if text.startswith(CODE_HEADER)]


def from_text(name: str) -> NotebookNode:
    """The notebook that the text of chapter `name` describes, not yet executed.

    Its first cell, which the text does not have, installs the book's package where it is missing.
    """
    notebook = jupytext.read(BOOK / f"{name}.md")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number:03d}"
    install = install_cell(release().version, addresses())
    notebook.cells.insert(0, new_code_cell(install, id=f"{name}-install"))
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run every cell, in the folder the twin lies in, and keep what a reader and a test need."""
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, resources={"metadata": {"path": str(TWINS)}}
    )
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [strip(output) for output in cell.outputs]
    return notebook


def strip(output: NotebookNode) -> NotebookNode:
    """Remove images, and the scripts of interactive figures, from one output of a cell."""
    if "data" in output:
        output.data = {
            mime: data
            for mime, data in output.data.items()
            if not mime.startswith("image/") and not (mime == "text/html" and SCRIPTED in data)
        }
        output.metadata = {
            key: value for key, value in output.metadata.items() if not key.startswith("image/")
        }
    return output


def readable(notebook: NotebookNode, page: Page) -> NotebookNode:
    """The same notebook with plain Markdown, and each figure's caption under it."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(page, cell.source)
        cells.append(cell)
        if figure_caption := caption(page, cell):
            cells.append(new_markdown_cell(figure_caption, id=f"{cell.id}-caption"))
    notebook.cells = [cell for cell in cells if cell.source]
    return notebook


def regenerate(name: str) -> float:
    """Write the twin of chapter `name`; the number of seconds its cells took."""
    start = time.monotonic()
    executed = execute(from_text(name))
    twin = readable(executed, Page(name, recorded(executed.cells)))
    unfinished = TWINS / f".{name}.ipynb"
    nbformat.write(twin, unfinished)
    unfinished.replace(TWINS / f"{name}.ipynb")
    return time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description="Regenerate the executed notebooks in book/notebooks from the text.",
    )
    known = chapters()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"chapters: {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"NAME: expected chapters of the book ({', '.join(known)}), got {unknown}")
    TWINS.mkdir(exist_ok=True)
    failed = False
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(regenerate, name): name for name in names}
        for run in as_completed(runs):
            try:
                print(f"{runs[run]}: {run.result():.0f} s", flush=True)
            except CellExecutionError as error:
                failed = True
                print(f"{runs[run]}: a cell failed\n{error}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
