"""`make book` on a book of one page: what must make it fail, and what it must not repeat."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

"""
CELL = """\
```{code-cell} ipython3
with open('runs', 'a') as counter:
    counter.write('x')
print('the cell ran')
```
"""
FAILING_CELL = "```{code-cell} ipython3\nraise RuntimeError('on purpose')\n```\n"
WARNING = "A reference to {doc}`nowhere`.\n"


@pytest.fixture
def book(tmp_path):
    """A copy of what builds the book, around a book of one page."""
    for name in ("_config.yml", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "companion").mkdir()
    (tmp_path / "companion" / "module.py").write_text("VALUE = 1\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (tmp_path / "book" / "_static").mkdir(parents=True)
    (tmp_path / "book" / "_static" / "book.css").touch()
    (tmp_path / "book" / "references.bib").touch()
    return tmp_path


def build(book, text):
    (book / "book" / "page.md").write_text(HEADER + text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "tools.build_book"],
        cwd=book,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def runs(book):
    counter = book / "book" / "runs"
    return len(counter.read_text(encoding="utf-8")) if counter.exists() else 0


def test_a_good_book_is_built_once(book):
    first = build(book, CELL)
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"open {book / '_build' / 'html' / 'index.html'}" in first.stdout
    assert "Executed notebook in" in first.stderr + first.stdout
    assert "the cell ran" in (book / "_build" / "html" / "page.html").read_text(encoding="utf-8")

    assert build(book, CELL).returncode == 0
    assert runs(book) == 1, "an unchanged page was executed again"

    (book / "companion" / "module.py").write_text("VALUE = 2\n")
    assert build(book, CELL).returncode == 0
    assert runs(book) == 2, "a change in the package did not execute the page again"

    with (book / "requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("# a comment\n")
    assert build(book, CELL).returncode == 0
    assert runs(book) == 3, "a change in the lock did not execute the page again"
    assert len(list((book / "_build" / ".execution_cache").iterdir())) == 1


@pytest.mark.parametrize("fault", [FAILING_CELL, WARNING], ids=["failing cell", "warning"])
def test_a_faulty_book_fails_every_time_until_it_is_mended(book, fault):
    marker = book / "_build" / ".doctrees" / "left by the first build"
    for _ in range(2):
        result = build(book, CELL + fault)
        assert result.returncode != 0
        assert "The book was not built" in result.stderr
        assert not marker.exists(), "the pages of a failed build were used again"
        marker.touch()
    if fault == FAILING_CELL:
        assert result.stderr.strip().splitlines()[-1] == "page: RuntimeError: on purpose"
    else:
        assert "unknown document: 'nowhere'" in result.stderr
    assert build(book, CELL).returncode == 0
