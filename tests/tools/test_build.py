"""`make book` on a small book: what must make it fail, and what it must not repeat."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image

ROOT = Path(__file__).parents[2]

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
    """A copy of what builds the book, around a small one."""
    for name in ("_config.yml", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "companion").mkdir()
    (tmp_path / "companion" / "module.py").write_text("VALUE = 1\n")
    toc = "format: jb-book\nroot: page\nchapters:\n  - file: other\n"
    (tmp_path / "_toc.yml").write_text(toc, encoding="utf-8")
    for name in ("_static", "_templates"):
        shutil.copytree(ROOT / "book" / name, tmp_path / "book" / name)
    (tmp_path / "book" / "references.bib").touch()
    (tmp_path / "book" / "other.md").write_text("# Another page\n", encoding="utf-8")
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


def test_a_published_book_names_its_address(book):
    config = (book / "_config.yml").read_text(encoding="utf-8")
    address = "https://reader.example/books/bn"
    given = re.sub(r'(?m)^  baseurl: ""', f"  baseurl: {address}", config, count=1)
    assert given != config, "the first place that names the address is the one that counts"
    (book / "_config.yml").write_text(given, encoding="utf-8")
    result = build(book, "Some words about $x^2$.\n\nAnd more of them.\n")
    assert result.returncode == 0, result.stdout + result.stderr

    head = BeautifulSoup((book / "_build" / "html" / "page.html").read_bytes(), "html.parser").head
    found = {meta.get("property"): meta["content"] for meta in head.select("meta[content]")}
    assert found["og:url"] == head.select_one("link[rel=canonical]")["href"]
    assert found["og:url"] == f"{address}/page.html"
    assert found["og:image"] == f"{address}/_static/cards/page.png"
    with Image.open(book / "_build" / "html" / "_static" / "cards" / "page.png") as card:
        assert card.size == (1200, 630)

    missing = (book / "_build" / "html" / "404.html").read_text(encoding="utf-8")
    assert 'href="/books/bn/_static/pages.css' in missing
    assert 'href="/books/bn/page.html"' in missing


def test_a_formula_that_mathjax_cannot_read_fails_the_build(book):
    result = build(book, "$$\n\\frac{a\n$$\n")
    assert result.returncode != 0
    assert "MathJax cannot read \\frac{a: Missing close brace" in result.stderr
