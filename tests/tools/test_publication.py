"""How the book is cited, and where its addresses lead."""

import runpy
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pybtex.database import Person, parse_string

import companion
from tools.publication import ROOT, Addresses, Release, addresses, apa, bibtex, release

BODY = Release("A Book", (Person("{The maintainers}"),), "1.2.0", date(2027, 3, 1))
PEOPLE = replace(BODY, authors=(Person("Curie, Maria S."), Person("de Prony, Jean-Luc")))
HERE = Addresses("https://github.com/owner/name", "main", "https://owner.github.io/name/")
NOWHERE = Addresses()


def test_the_book_and_the_package_have_one_version():
    assert release().version == companion.__version__
    assert release().authors
    assert isinstance(release().released, date)


def test_the_addresses_are_those_of_the_configuration(monkeypatch, tmp_path):
    (tmp_path / "_config.yml").write_text(
        "repository: {url: https://github.com/a/b, branch: trunk}\nhtml: {baseurl: https://c.org}\n"
    )
    monkeypatch.setattr("tools.publication.ROOT", tmp_path)
    addresses.cache_clear()
    try:
        assert addresses() == Addresses("https://github.com/a/b", "trunk", "https://c.org")
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
    told = packaged(HERE.repository, HERE.site)
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


def test_bibtex_of_a_chapter_has_its_fields():
    source = bibtex(BODY, HERE, "identity", "Restoring the identity: γ and 10 %")
    [(key, entry)] = parse_string(source, "bibtex").entries.items()
    assert key == "batch-normalization-identity"
    assert entry.type == "incollection"
    assert [str(person) for person in entry.persons["author"]] == ["{The maintainers}"]
    assert entry.fields["title"] == r"{Restoring the identity: $\gamma$ and 10 \%}"
    assert entry.fields["booktitle"] == "{A Book}"
    assert (entry.fields["year"], entry.fields["month"]) == ("2027", "March")
    assert entry.fields["note"] == "Version 1.2.0 of 2027-03-01"
    assert entry.fields["url"] == "https://owner.github.io/name/identity.html"


def test_bibtex_of_the_book_names_no_chapter():
    [(key, entry)] = parse_string(bibtex(BODY, HERE, "intro", None), "bibtex").entries.items()
    assert (key, entry.type) == ("batch-normalization", "book")
    assert entry.fields["title"] == "{A Book}"
    assert "booktitle" not in entry.fields


def test_the_key_outlives_the_version():
    later = replace(BODY, version="9.9", released=date(2040, 1, 1))
    keys = {
        next(iter(parse_string(bibtex(edition, NOWHERE, "identity", "T"), "bibtex").entries))
        for edition in (BODY, later)
    }
    assert len(keys) == 1


def test_without_an_address_a_reference_names_the_page():
    [entry] = parse_string(bibtex(BODY, NOWHERE, "identity", "T"), "bibtex").entries.values()
    assert "url" not in entry.fields
    assert entry.fields["note"] == "Version 1.2.0 of 2027-03-01, page identity.html"
    assert apa(BODY, NOWHERE, "identity", "T") == (
        "The maintainers. (2027, March 1). T. In A Book (Version 1.2.0, page identity.html)."
    )
    assert apa(BODY, NOWHERE, "intro", None) == (
        "The maintainers. (2027, March 1). A Book (Version 1.2.0)."
    )


def test_people_are_named_as_each_style_wants():
    assert apa(PEOPLE, HERE, "identity", "T") == (
        "Curie, M. S., & de Prony, J.-L. (2027, March 1). T. In A Book (Version 1.2.0). "
        "https://owner.github.io/name/identity.html"
    )
    [entry] = parse_string(bibtex(PEOPLE, HERE, "intro", None), "bibtex").entries.values()
    first, second = entry.persons["author"]
    assert (first.last_names, first.first_names) == (["Curie"], ["Maria"])
    assert second.prelast_names + second.last_names == ["de", "Prony"]


def test_authors_are_read_as_people_or_bodies(tmp_path):
    path = Path(tmp_path / "CITATION.cff")
    path.write_text(
        "title: T\nversion: 1\ndate-released: 2027-01-01\n"
        "authors: [{name: A Body}, {family-names: Curie, given-names: Maria}]\n"
    )
    assert Release.read(path).authors == (Person("{A Body}"), Person("Curie, Maria"))


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
