"""Every figure of the book can be read: the rules, and what no notebook shows.

What chapters show is looked at while nbval runs their notebooks, by `tests/ipython`.
"""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from _figures import faults
from nbformat.v4 import new_code_cell, new_notebook, new_output

from companion import plots
from tools.notebooks import TWINS, chapters

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parents[1]
SHOWN = re.compile(r"<Figure size|.*: an interactive figure\.")


# All pages but those of cells to copy, of cells that answer and of tables.
@pytest.mark.parametrize(
    "name", sorted({*chapters()} - {"conventions", "misconceptions", "symptoms", "teaching"})
)
def test_every_cell_with_a_caption_shows_a_figure(name):
    cells = nbformat.read(TWINS / f"{name}.ipynb", as_version=4).cells
    captioned = [cell for cell in cells if "figure" in cell.metadata.get("mystnb", {})]
    assert captioned
    for cell in captioned:
        shown = cell.outputs[-1].get("data", {}).get("text/plain", "") if cell.outputs else ""
        assert SHOWN.match(shown), f"{cell.id}: no figure"


def test_the_faults_are_seen():
    figure, axes = plots.figure()
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    axes.text(0.5, 0.5, "other", transform=axes.transAxes)
    axes.text(1.5, 0.5, "outside", transform=axes.transAxes)
    seen = list(faults(figure))
    assert "'one' and 'other' overlap" in seen
    assert "'outside' is cut off" in seen


def test_a_cell_whose_figure_cannot_be_read_fails_in_nbval(pytester):
    for source in [TESTS / "ipython" / "profile_default" / "startup", TESTS / "plots"]:
        shutil.copytree(source, pytester.path / source.relative_to(TESTS.parent))
    notebooks = pytester.path / "book" / "notebooks"
    notebooks.mkdir(parents=True)
    shutil.copy(TWINS / "conftest.py", notebooks)
    shown = [new_output("execute_result", {"text/plain": repr(plots.figure()[0])})]
    drawn = (
        "from companion import plots\nfigure, axes = plots.figure()\naxes.text(0.5, 0.5, 'in')\n"
    )
    planted = "axes.text(2, 0.5, 'outside')\n"
    cells = [
        new_code_cell(drawn + last, execution_count=1, outputs=shown)
        for last in ("figure", planted + "figure")
    ]
    nbformat.write(new_notebook(cells=cells), notebooks / "two.ipynb")
    done = pytester.runpytest_subprocess("--nbval", "book/notebooks")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*the figure cannot be read:", "'outside' is cut off"])
