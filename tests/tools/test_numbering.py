"""No number that the book has published may change."""

import re

import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tools import numbering
from tools.contents import BOOK, chapters, numbers, parts
from tools.numbering import listed, moved, published

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("numbering")

ROW = re.compile(r"^\| \{doc\}`([\w-]+)` \| \d+ \| (\d+) \|$", re.MULTILINE)


def test_every_number_ever_published_is_still_there(site):
    faults = moved(listed(), published(site))
    assert not faults, "numbers stay: see CONTRIBUTING.md\n" + "\n".join(faults)


def test_every_number_is_listed(site):
    missing = published(site).keys() - listed().keys()
    assert not missing, f"run `make addresses`; not in book/numbers.txt: {sorted(missing)}"


def test_chapters_are_numbered_in_their_order_but_the_first(site):
    first, *others = chapters()
    assert first == "twenty-minutes"
    assert next(iter(parts().values())) == [first]
    assert list(numbers()) == others
    expected = {f"{name}.html": f"Chapter {number}" for name, number in numbers().items()}
    assert {at: name for at, name in published(site).items() if "#" not in at} == expected
    assert {at: name for at, name in listed().items() if "#" not in at} == expected


def test_the_changelog_has_the_numbers_that_chapters_have_now():
    rows = dict(ROW.findall((BOOK / "changelog.md").read_text(encoding="utf-8")))
    assert len(rows) == 8
    assert {name: int(number) for name, number in rows.items()} == {
        name: number for name, number in numbers().items() if name in rows
    }


THEOREM = "# {0}\n\n:::{{prf:theorem}} Name\n:label: thm-{0}\n\nIt is.\n:::\n"


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Build a book of some parts; its numbers, as the list has them."""

    def build(*parts_of_it):
        folder = tmp_path_factory.mktemp("book")
        (folder / "intro.md").write_text("# The book\n\n```{tableofcontents}\n```\n")
        for name in (name for part in parts_of_it for name in part):
            (folder / f"{name}.md").write_text(THEOREM.format(name))
        toc = {
            "format": "jb-book",
            "root": "intro",
            "parts": [
                {"caption": name, "numbered": 1, "chapters": [{"file": page} for page in part]}
                for name, part in zip("AB", parts_of_it, strict=True)
            ],
        }
        (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
        config = {
            "extensions": [
                *("myst_parser", "sphinx_proof", "sphinx_external_toc"),
                *("sphinx_multitoc_numbering", "tools.permanent_labels"),
            ],
            "myst_enable_extensions": ["colon_fence"],
            "html_theme": "sphinx_book_theme",
            "numfig": True,
            "external_toc_path": "_toc.yml",
        }
        with patch_docutils(None), docutils_namespace():
            options = {"confoverrides": config, "status": None, "warning": None}
            app = Sphinx(folder, None, folder / "html", folder / "trees", "html", **options)
            app.build()
        page = BeautifulSoup((folder / "html" / "intro.html").read_text(), "html.parser")
        known = app.env.get_domain("std").labels
        boxes = {f"{page}.html#{at}": name for page, at, name in known.values() if "thm-" in at}
        return numbering.chapters(page) | boxes

    return build


def test_a_chapter_at_the_end_moves_nothing_and_one_between_does(numbered):
    before = numbered(["one", "two"], ["three"])
    assert before["three.html"] == "Chapter 3"
    assert before["three.html#thm-three"] == "Theorem 3.1"
    after = numbered(["one", "two"], ["three", "later"])
    assert after["later.html"] == "Chapter 4"
    assert moved(before, after) == []
    assert moved(before, numbered(["one", "two", "later"], ["three"])) == [
        "three.html: published as Chapter 3, now Chapter 4",
        "three.html#thm-three: published as Theorem 3.1, now Theorem 4.1",
    ]


def test_the_tool_appends_and_refuses_what_moved(site, monkeypatch, tmp_path, capsys):
    path = tmp_path / "numbers.txt"
    monkeypatch.setattr(numbering, "LIST", path)
    monkeypatch.setattr(numbering, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["numbering"])
    everything = published(site)
    path.write_text("identity.html#thm-identity " + everything["identity.html#thm-identity"] + "\n")
    assert numbering.main() == 0
    assert listed() == everything
    assert path.read_text(encoding="utf-8").startswith("identity.html#thm-identity ")
    assert f"{len(everything) - 1} new numbers" in capsys.readouterr().out

    wrong = "identity.html#thm-identity Theorem 99.1\ngone.html#fig-gone Fig. 1.1\n"
    path.write_text(wrong)
    assert numbering.main() == 1
    assert path.read_text(encoding="utf-8") == wrong
    said = capsys.readouterr().err
    assert "identity.html#thm-identity: published as Theorem 99.1, now Theorem" in said
    assert "gone.html#fig-gone: published as Fig. 1.1, now without a number" in said


def test_without_a_book_the_message_says_how_to_build_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(numbering, "SITE", tmp_path)
    monkeypatch.setattr("sys.argv", ["numbering"])
    assert numbering.main() == 1
    assert capsys.readouterr().err == "The book is not built: run `make book` first.\n"
