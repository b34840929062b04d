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

from tools import execution_cache

# In one process, which builds once what they share.
pytestmark = pytest.mark.xdist_group("build")

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
# A page with this ends only while another one with this runs.
MEETING = """\
```{code-cell} ipython3
import time
from pathlib import Path
Path('met-NAME').touch()
while len(list(Path().glob('met-*'))) < 2:
    time.sleep(0.1)
```
"""
FAILING_CELL = "```{code-cell} ipython3\nraise RuntimeError('on purpose')\n```\n"
WARNING = "A reference to {doc}`nowhere`.\n"
FORMULA = "\n$$\n\\frac{a\n$$\n"
ADDRESS = "https://reader.example/books/bn"


def small_book(folder):
    """A copy of what builds the book, around a small one."""
    for name in ("_config.yml", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("tools", "companion"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "companion" / "module.py").write_text("VALUE = 1\n")
    toc = "format: jb-book\nroot: page\nchapters:\n  - file: other\n"
    (folder / "_toc.yml").write_text(toc, encoding="utf-8")
    for name in ("_static", "_templates"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    (folder / "book" / "references.bib").touch()
    (folder / "book" / "other.md").write_text("# Another page\n", encoding="utf-8")
    return folder


@pytest.fixture
def book(tmp_path):
    return small_book(tmp_path)


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


@pytest.fixture(scope="module")
def mended(tmp_path_factory):
    """A book with faults, built twice, and once without and with an address: the three results.

    Over 20 seconds: three builds by Sphinx, which nothing smaller stands for.
    """
    book = small_book(tmp_path_factory.mktemp("book"))
    left = book / "_build" / ".doctrees" / "left by the first build"
    faulty = []
    for _ in range(2):
        faulty.append(build(book, CELL + FAILING_CELL + WARNING + FORMULA))
        assert not left.exists(), "the pages of a failed build were used again"
        left.touch()

    config = (book / "_config.yml").read_text(encoding="utf-8")
    given = re.sub(r'(?m)^  baseurl: ""', f"  baseurl: {ADDRESS}", config, count=1)
    assert given != config, "the first place that names the address is the one that counts"
    (book / "_config.yml").write_text(given, encoding="utf-8")
    (book / "book" / "runs").unlink()
    return book, faulty, build(book, "Some words about $x^2$.\n\nAnd more of them.\n\n" + CELL)


def test_faults_fail_every_build(mended):
    for result in mended[1]:
        assert result.returncode != 0
        assert "The book was not built" in result.stderr
        assert result.stderr.strip().splitlines()[-1] == "page: RuntimeError: on purpose"
        assert "unknown document: 'nowhere'" in result.stderr
        assert "page.md:25: WARNING: cannot read \\frac{a: KaTeX parse error:" in result.stderr


def test_a_book_without_faults_is_built(mended):
    book, _, good = mended
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"open {book / '_build' / 'html' / 'index.html'}" in good.stdout
    assert "the cell ran" in (book / "_build" / "html" / "page.html").read_text(encoding="utf-8")
    assert runs(book) == 1


def test_a_published_book_names_its_address(mended):
    book, _, good = mended
    assert good.returncode == 0, good.stdout + good.stderr

    head = BeautifulSoup((book / "_build" / "html" / "page.html").read_bytes(), "html.parser").head
    properties = {meta.get("property"): meta["content"] for meta in head.select("meta[content]")}
    assert properties["og:url"] == head.select_one("link[rel=canonical]")["href"]
    assert properties["og:url"] == f"{ADDRESS}/dev/page.html"
    card = properties["og:image"].removeprefix(f"{ADDRESS}/dev")
    assert card != properties["og:image"]
    with Image.open(book / "_build" / "html" / card.lstrip("/")) as image:
        assert image.size == (1146, 600)

    missing = (book / "_build" / "html" / "404.html").read_text(encoding="utf-8")
    assert 'href="/books/bn/dev/_static/pages.css' in missing
    assert 'href="/books/bn/dev/page.html"' in missing


@pytest.mark.slow(reason="builds a book four times")
def test_what_a_page_depends_on_executes_it_again(book):
    assert build(book, CELL).returncode == 0
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


@pytest.mark.slow(reason="builds a book; the book itself is built so before every test")
def test_pages_are_executed_at_the_same_time(book):
    other = HEADER + MEETING.replace("NAME", "other")
    (book / "book" / "other.md").write_text(other, encoding="utf-8")
    result = build(book, CELL + MEETING.replace("NAME", "page"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Using cached notebook" in result.stdout + result.stderr
    assert runs(book) == 1


@pytest.mark.slow(reason="builds a book six times")
@pytest.mark.parametrize("fault", [WARNING, FORMULA], ids=["warning", "formula"])
def test_a_warning_alone_fails_every_build_until_it_is_mended(book, fault):
    for _ in range(2):
        assert build(book, CELL + fault).returncode != 0
    assert build(book, CELL).returncode == 0


def test_the_cache_is_keyed_on_what_cells_read(tmp_path, monkeypatch):
    monkeypatch.setattr(execution_cache, "ROOT", tmp_path)
    (tmp_path / "requirements.lock").touch()
    digests = [execution_cache.source_digest()]
    for name in (
        *("requirements.lock", "companion/functional.py", "companion/kernels/cpu/steps.py"),
        *("companion/explore/js/figures/ranks.js", "book/results/smoothness.json"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("changed", encoding="utf-8")
        digests.append(execution_cache.source_digest())
    assert len(set(digests)) == len(digests)
    (tmp_path / "book" / "page.md").write_text("changed", encoding="utf-8")
    assert execution_cache.source_digest() == digests[-1]
