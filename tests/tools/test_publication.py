"""What the book says about itself, and where its addresses lead."""

import runpy
import shutil
from datetime import date
from urllib.parse import parse_qs, urlsplit

import pytest

import companion
from tools.publication import ROOT, Addresses, Release, addresses, release

HERE = Addresses("https://github.com/owner/name", "main", "https://owner.github.io/name/")


def test_the_book_and_the_package_have_one_version():
    assert release().version == companion.__version__
    assert release().authors
    assert isinstance(release().released, date)


@pytest.mark.parametrize(
    ("edition", "ref", "folder"), [("dev", "trunk", "dev"), ("release", "v1.2.0", "v1.2")]
)
def test_the_addresses_are_those_of_the_configuration(monkeypatch, tmp_path, edition, ref, folder):
    (tmp_path / "_config.yml").write_text(
        "repository: {url: https://github.com/a/b, branch: trunk}\nhtml: {baseurl: https://c.org}\n"
    )
    released = Release("A Book", (), "1.2.0", date(2027, 3, 1))
    monkeypatch.setattr("tools.publication.ROOT", tmp_path)
    monkeypatch.setattr("tools.publication.release", lambda: released)
    monkeypatch.setenv("EDITION", edition)
    addresses.cache_clear()
    try:
        assert addresses() == Addresses("https://github.com/a/b", ref, "https://c.org", folder)
    finally:
        addresses.cache_clear()


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """What `setup.py` tells of a package whose book has these addresses."""

    def packaged(repository, site):
        shutil.copy(ROOT / "setup.py", tmp_path)
        (tmp_path / "README.md").write_text(
            "![a](book/a.png) [b](book/b.md) [c](#c) [d](https://d.org)", encoding="utf-8"
        )
        (tmp_path / "CITATION.cff").write_text(
            "version: 1.2.0\n"
            "authors: [{given-names: Marie, family-names: Curie}, {name: The Others}]\n"
        )
        (tmp_path / "_config.yml").write_text(
            f"repository: {{url: '{repository}'}}\nhtml: {{baseurl: '{site}'}}\n"
        )
        told = {}
        monkeypatch.setattr("setuptools.setup", told.update)
        runpy.run_path(str(tmp_path / "setup.py"))
        return told

    return packaged


def test_the_package_has_the_books_version_authors_and_addresses(packaged):
    told = packaged(f"{HERE.repository}.git", HERE.site)
    assert (told["version"], told["author"]) == ("1.2.0", "Marie Curie, The Others")
    assert told["project_urls"] == {"Documentation": HERE.site, "Source": HERE.repository}
    assert told["long_description"] == (
        "![a](https://github.com/owner/name/raw/v1.2.0/book/a.png) "
        "[b](https://github.com/owner/name/blob/v1.2.0/book/b.md) [c](#c) [d](https://d.org)"
    )


def test_a_package_of_an_unpublished_book_names_no_address(packaged):
    told = packaged("", "")
    assert told["project_urls"] == {}
    assert "[b](book/b.md)" in told["long_description"]


@pytest.mark.parametrize(
    ("more", "editors", "doi"),
    [
        ("", (), ""),
        (
            "contact: [{name: A Group}]\ndoi: 10.5281/zenodo.1\n",
            ({"name": "A Group"},),
            "10.5281/zenodo.1",
        ),
    ],
)
def test_a_release_is_read_in_the_words_of_cff(tmp_path, more, editors, doi):
    path = tmp_path / "CITATION.cff"
    path.write_text(
        "title: T\nversion: 1\ndate-released: 2027-01-01\n"
        "authors: [{name: A Body}, {family-names: Curie, given-names: Maria}]\n" + more
    )
    authors = ({"name": "A Body"}, {"family-names": "Curie", "given-names": "Maria"})
    assert Release.read(path) == Release("T", authors, "1", date(2027, 1, 1), editors, doi)


@pytest.mark.parametrize(
    ("repository", "colab", "binder"),
    [
        (
            "https://github.com/o/n.git",
            "https://colab.research.google.com/github/o/n/blob/v1/book/notebooks/a.ipynb",
            "https://mybinder.org/v2/gh/o/n/v1?urlpath=lab%2Ftree%2Fbook%2Fnotebooks%2Fa.ipynb",
        ),
        (
            "https://gitlab.com/g/o/n/",
            "",
            "https://mybinder.org/v2/git/https%3A%2F%2Fgitlab.com%2Fg%2Fo%2Fn%2F/v1"
            "?urlpath=lab%2Ftree%2Fbook%2Fnotebooks%2Fa.ipynb",
        ),
        (
            "https://git.example.org/n",
            "",
            "https://mybinder.org/v2/git/https%3A%2F%2Fgit.example.org%2Fn/v1"
            "?urlpath=lab%2Ftree%2Fbook%2Fnotebooks%2Fa.ipynb",
        ),
        ("", "", ""),
        ("https://github.com/", "", None),
    ],
)
def test_where_a_chapter_runs(repository, colab, binder):
    address = Addresses(repository, "v1")
    assert address.colab("a") == colab
    if repository != "https://github.com/":
        assert address.binder("a") == binder


def test_an_error_is_reported_with_the_page_and_the_version():
    address = Addresses("https://github.com/o/n.git", site="https://o.github.io/n")
    parts = urlsplit(address.report("a page", "1.2+é"))
    assert parts._replace(query="").geturl() == "https://github.com/o/n/issues/new"
    assert "+" not in parts.query
    assert parse_qs(parts.query) == {
        "template": ["error.yml"],
        "title": ["Error on the page a page"],
        "page": ["https://o.github.io/n/dev/a page.html"],
        "version": ["1.2+é"],
    }
    assert parse_qs(urlsplit(Addresses("https://github.com/o/n").report("a", "1")).query)[
        "page"
    ] == ["a.html"]


@pytest.mark.parametrize("repository", ["", "https://gitlab.com/o/n"])
def test_no_error_is_reported_where_no_form_is(repository):
    assert Addresses(repository, site="https://c.org").report("a", "1") == ""
