"""`make book` on a small book: what must make it fail, and what it must not repeat."""

import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from sphinx.errors import ExtensionError

from tools import build_book, execution_cache

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
DYING_CELL = "```{code-cell} ipython3\n__import__('os')._exit(1)\n```\n"
HANGING_CELL = "```{code-cell} ipython3\nwhile True: pass\n```\n"
WARNING = "A reference to {doc}`nowhere`.\n"
FORMULA = "\n$$\n\\frac{a\n$$\n"
ADDRESS = "https://reader.example/books/bn"


def small_book(folder):
    """A copy of what builds the book, around a small one."""
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for name in ("tools", "companion", "book/results"):
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


def start_build(book, text):
    (book / "book" / "page.md").write_text(HEADER + text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "tools.build_book"],
        cwd=book,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def build(book, text):
    process = start_build(book, text)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def runs(book):
    counter = book / "book" / "runs"
    return len(counter.read_text(encoding="utf-8")) if counter.exists() else 0


@pytest.fixture(scope="module")
def mended(tmp_path_factory):
    """A book built with cells that fail, with other faults, and without: the three results.

    The last time it has an address. Over 20 seconds: builds by Sphinx, which nothing smaller stands
    for.
    """
    book = small_book(tmp_path_factory.mktemp("book"))
    change(book / "_config.yml", r"timeout: \d+", "timeout: 5")
    change(book / "_toc.yml", r"\Z", "  - file: hanging\n")
    other, hanging = book / "book" / "other.md", book / "book" / "hanging.md"
    plain = other.read_text(encoding="utf-8")
    other.write_text(HEADER + CELL + DYING_CELL, encoding="utf-8")
    hanging.write_text(HEADER + HANGING_CELL, encoding="utf-8")
    failed = build(book, CELL + FAILING_CELL)

    (book / "book" / "runs").unlink()
    other.write_text(plain, encoding="utf-8")
    hanging.write_text(plain, encoding="utf-8")
    left = book / "_build" / ".doctrees" / "left by the first build"
    left.touch()
    faulty = build(book, CELL + WARNING + FORMULA)
    assert not left.exists(), "the pages of a failed build were used again"

    # The first place that names the address is the one that counts.
    change(book / "_config.yml", r'(?m)^  baseurl: ""', f"  baseurl: {ADDRESS}")
    good = build(book, "Some words about $x^2$.\n\nAnd more of them.\n\n" + CELL)
    return book, failed, faulty, good


def change(path, pattern, replacement):
    text = path.read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def test_each_cell_that_fails_is_named(mended):
    """A cell that raises an error, one whose kernel dies, one that never ends."""
    book, failed, _, _ = mended
    assert failed.returncode == 1
    lines = failed.stderr.strip().splitlines()[-4:]
    assert lines[0].startswith("The book was not built")
    late = "A cell timed out while it was being executed, after 5 seconds."
    assert sorted(lines[1:]) == [
        f"{book}/book/hanging.md:14: in the cell `while True: pass`: {late}",
        f"{book}/book/other.md:19: in the cell `__import__('os')._exit(1)`: Kernel died",
        f"{book}/book/page.md:19: in the cell `raise RuntimeError('on purpose')`: "
        "RuntimeError: on purpose",
    ]


def test_other_faults_fail_a_build(mended):
    _, _, faulty, _ = mended
    assert faulty.returncode == 1
    assert faulty.stderr.strip().splitlines()[-1] == "See the warnings above."
    assert "unknown document: 'nowhere'" in faulty.stderr
    assert "page.md:22: WARNING: cannot read \\frac{a: KaTeX parse error:" in faulty.stderr


def test_a_book_without_faults_is_built(mended):
    book, _, _, good = mended
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"open {book / '_build' / 'html' / 'index.html'}" in good.stdout
    assert "the cell ran" in (book / "_build" / "html" / "page.html").read_text(encoding="utf-8")
    assert runs(book) == 1, "a page was executed again because another one was faulty"


def test_a_published_book_names_its_address(mended):
    book, _, _, good = mended
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


@pytest.mark.slow(reason="builds a book twice, and interrupts the first build")
def test_an_interrupted_build_ends_and_is_not_taken_for_finished(book):
    process = start_build(book, CELL + HANGING_CELL)
    while runs(book) == 0:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.strip().splitlines()[-1] == "It was interrupted."
    assert build(book, CELL).returncode == 0
    assert runs(book) == 2


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


def error_of(number, *paths):
    return OSError(number, os.strerror(number), *paths[:1], None, *paths[1:])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (error_of(errno.EROFS, "_build"), f"{build_book.BUILD}: Read-only file system: make it"),
        (error_of(errno.EACCES, "/b/html"), "/b/html: Permission denied: make it writable"),
        (error_of(errno.ENOSPC, "/a.md", "/b/a.md"), "/b/a.md: No space left on device: make room"),
        (error_of(errno.ENOSPC), f"{build_book.BUILD}: No space left on device: make room"),
        (sqlite3.OperationalError("database or disk is full"), f"{build_book.BUILD}: database or"),
        (ValueError("a page: a reason"), "a page: a reason"),
    ],
)
def test_the_first_cause_is_what_a_build_ends_with(error, said):
    of_sphinx, of_jupyter_book = ExtensionError("a handler failed"), RuntimeError("look above")
    of_jupyter_book.__cause__, of_sphinx.__cause__ = of_sphinx, error
    assert build_book.reason(of_jupyter_book).startswith(said)


@pytest.mark.parametrize(
    "cut_off",
    [lambda file: file.write_text("{"), Path.unlink, lambda file: shutil.rmtree(file.parent)],
    ids=["in a file", "before a file", "before its folder"],
)
def test_what_was_not_written_to_the_end_is_executed_again(tmp_path, cut_off):
    cache = get_cache(tmp_path / "cache")
    notebook = new_notebook(cells=[new_code_cell("1 + 1", execution_count=1)])
    assert not execution_cache.is_cached(cache, notebook)
    for _ in range(2):
        bundle = CacheBundleIn(notebook, "a page")
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        assert execution_cache.is_cached(cache, notebook)
        [written] = cache.path.rglob("*.ipynb")
        cut_off(written)
        assert not execution_cache.is_cached(cache, notebook)
