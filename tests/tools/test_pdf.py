"""The book through LaTeX: four pages with what is hard in a chapter, typeset for real."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import build_pdf

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("pdf")

ROOT = Path(__file__).parents[2]
LONG_ROW = f"| n | {'as long as a line and more ' * 6}| `name` |\n"
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

"""
PAGES = {
    "intro": "# The Book\n\nIt begins with {doc}`first` {cite:p}`b`.\n",
    "first": """\
# First: γ

See {cite:t}`a`, {prf:ref}`thm-other` and {eq}`other-equation` of {doc}`second`.

$$
x = σ^2
$$ (first-equation)

$$
y = 2x
$$ (next-equation)

By {eq}`next-equation`, {prf:ref}`thm-first` and {ref}`ex-first`.

:::{prf:theorem} Of γ
:label: thm-first

So it is.
:::

:::{prf:proof}
Look.
:::

:::{exercise-start} A title
:label: ex-first
:::
Do it.
:::{exercise-end}
:::

```{solution-start} ex-first
:class: dropdown
```
Done.
```{solution-end}
```

```{code-cell} ipython3
:tags: [hide-input]

kept_from_print = "✓ κ ≈ 10⁻⁵"
print(kept_from_print)
```

```{code-cell} ipython3
---
mystnb:
  image:
    alt: A line.
  figure:
    name: fig-line
    caption: A line that rises.
---
from matplotlib_inline.backend_inline import set_matplotlib_formats

set_matplotlib_formats("svg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(3, 1))
axes.plot([0, 1])
plt.close(figure)
figure
```
""",
    "second": """\
# Second

:::{prf:theorem}
:label: thm-other

Other.
:::

$$
z
$$ (other-equation)

| symbol | meaning | in code |
|---|---|---|
"""
    + 31 * LONG_ROW,
    "bibliography": "# Sources\n\n```{bibliography}\n:style: unsrtalpha\n```\n",
}
TOC = """\
format: jb-book
root: intro
parts:
  - caption: "Part I · The beginning"
    numbered: 1
    chapters: [{file: first}, {file: second}]
  - caption: Appendices
    chapters: [{file: bibliography}]
"""
SOURCES = """\
@misc{a, author = {Ada First}, title = {Alpha}, year = {1843}}
@misc{b, author = {Bo Second}, title = {Beta}, year = {1950}}
"""


def test_without_latex_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build_pdf"])
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert build_pdf.main() == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(program in message for program in build_pdf.PROGRAMS)
    assert "apt-get install latexmk texlive-xetex" in message


def test_an_unknown_chapter_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build_pdf", "nowhere"])
    with pytest.raises(SystemExit) as refused:
        build_pdf.main()
    assert refused.value.code == 2
    assert "got ['nowhere']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "is_fault"),
    [
        ("! Undefined control sequence.", True),
        ("Missing character: There is no ⊙ (U+2299) in font [LibertinusSerif]", True),
        ("LaTeX Warning: Reference `a:b' on page 2 undefined on input line 3.", True),
        ("LaTeX Warning: Hyper reference `a:b' on page 2 undefined on input line 3.", True),
        ("Overfull \\hbox (31.5pt too wide) in paragraph at lines 1--2", True),
        ("Overfull \\hbox (3.15pt too wide) in paragraph at lines 1--2", False),
        ("Overfull \\vbox (48.6pt too high) detected at line 1513", True),
        ("Overfull \\vbox (2.7pt too high) detected at line 184", False),
        ("LaTeX Warning: Label(s) may have changed.", False),
    ],
)
def test_what_counts_as_a_fault_in_a_log(line, is_fault):
    assert bool(build_pdf.FAULT.search(f"before\n{line}\nafter")) is is_fault


def run(book, *names):
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(book)}
    command = [sys.executable, "-m", "tools.build_pdf", *names]
    return subprocess.run(command, cwd=book, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The small book, typeset."""
    if lacking := [*build_pdf.missing(), *([] if shutil.which("pdftotext") else ["pdftotext"])]:
        pytest.skip(f"no {', '.join(lacking)} on this machine: see `make pdf`")
    folder = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "companion").mkdir()
    (folder / "_toc.yml").write_text(TOC, encoding="utf-8")
    source = folder / "book"
    (source / "notebooks").mkdir(parents=True)
    (source / "_static").mkdir()
    (source / "_static" / "book.css").touch()
    (source / "references.bib").write_text(SOURCES)
    for name, text in PAGES.items():
        code = HEADER if "code-cell" in text else ""
        (source / f"{name}.md").write_text(code + text, encoding="utf-8")
        (source / "notebooks" / f"{name}.ipynb").write_text("{}")
    result = run(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def text(book, name):
    command = ["pdftotext", "-layout", book / "_build" / "pdf" / f"{name}.pdf", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_there_is_a_pdf_of_the_book_and_of_each_chapter(book):
    names = {path.name for path in (book / "_build" / "pdf").iterdir()}
    assert names == {"batch-normalization.pdf", "first.pdf", "second.pdf"}


def test_the_whole_book_has_its_parts_and_the_sites_numbers(book):
    whole = text(book, "batch-normalization")
    for expected in ("The Book", "Version", "Contents", "Part I", "The beginning", "Appendices"):
        assert expected in whole
    assert "Theorem 1.1 (Of γ)" in whole
    assert "Theorem 2.1" in whole
    assert "See First [1843], Theorem 2.1 and (1) of Second." in whole
    assert "By (2), Theorem 1.1 and Exercise 1.1." in whole
    assert "Fig. 1.1: A line that rises." in whole
    assert "Exercise 1.1 (A title)" in whole
    assert "Solution to Exercise 1.1 (A title)" in whole
    assert "Alpha" in whole
    assert "Beta" in whole
    assert whole.count("@book{batch-normalization,") == 1
    assert "@incollection" not in whole, "a chapter's citation inside the book"


def test_a_chapter_alone_keeps_its_number_and_names_what_is_elsewhere(book):
    second = text(book, "second")
    assert "Theorem 2.1" in second
    first = text(book, "first")
    assert "Contents" not in first
    assert "Theorem 2.1 and (1) of Second" in " ".join(first.split())
    assert "Alpha" in first
    assert "Beta" not in first, "a source that the chapter does not cite"
    assert "@incollection{batch-normalization-first," in first


def test_cells_show_what_they_print_and_not_what_is_folded(book):
    first = text(book, "first")
    assert "✓ κ ≈ 10⁻⁵" in first
    assert "kept_from_print" not in first
    assert "axes.plot" in first


def test_a_faulty_page_leaves_the_pdf_there_was(book):
    page, pdf = book / "book" / "second.md", book / "_build" / "pdf" / "second.pdf"
    before, source = pdf.read_bytes(), page.read_text(encoding="utf-8")
    try:
        page.write_text(f"{source}\nA glyph that no font has: \U00013000.\n", encoding="utf-8")
        result = run(book, "second")
        assert result.returncode == 1
        assert "second.pdf was not made:\nMissing character: There is no 𓀀" in result.stderr
        assert pdf.read_bytes() == before
        page.write_text(f"{source}\nSee {{doc}}`nowhere`.\n", encoding="utf-8")
        result = run(book, "second")
        assert result.returncode == 1
        assert "No PDF was made" in result.stderr
        assert "nowhere" in result.stderr
        assert pdf.read_bytes() == before
    finally:
        page.write_text(source, encoding="utf-8")
