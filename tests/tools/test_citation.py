"""How a page is cited: the same in every form."""

import subprocess
from dataclasses import replace
from datetime import date

import pytest
import yaml
from pybtex.database import parse_string

from tools.citation import apa, bibtex, cff, named, tags
from tools.contents import chapters, title
from tools.publication import ROOT, Addresses, Release, addresses, release

BODY = Release("A Book", ({"name": "The maintainers"},), "1.2.0", date(2027, 3, 1))
CURIE = {"family-names": "Curie", "given-names": "Maria S.", "orcid": "https://orcid.org/0-1"}
PRONY = {"family-names": "Prony", "given-names": "Jean-Luc", "name-particle": "de"}
NOETHER = {"family-names": "Noether", "given-names": "Emmy"}
PEOPLE = replace(BODY, authors=(CURIE, PRONY))
DOI = "10.5281/zenodo.1234567"
# All that can be filled in.
FULL = replace(PEOPLE, editors=(NOETHER, {"name": "A Group"}), doi=DOI)
HERE = Addresses("https://github.com/owner/name", "main", "https://owner.github.io/name/", "v1.2")
NOWHERE = Addresses()

# Each file, one behind the other, in the one process that knows CFF.
CFFCONVERT = ROOT / ".venv" / "cffconvert" / "bin" / "python"
VALIDATE = """
import sys
from cffconvert import Citation
for text in sys.stdin.read().split("\\0"):
    Citation(text).validate()
"""


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
    assert entry.fields["url"] == "https://owner.github.io/name/v1.2/identity.html"


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
        "https://owner.github.io/name/v1.2/identity.html"
    )
    [entry] = parse_string(bibtex(PEOPLE, HERE, "intro", None), "bibtex").entries.values()
    first, second = entry.persons["author"]
    assert (first.last_names, first.first_names) == (["Curie"], ["Maria"])
    assert second.prelast_names + second.last_names == ["de", "Prony"]


def test_names_are_listed_as_in_a_sentence():
    assert named(PEOPLE.authors) == "Maria S. Curie and Jean-Luc de Prony"
    assert named([*PEOPLE.authors, *BODY.authors]) == (
        "Maria S. Curie, Jean-Luc de Prony and The maintainers"
    )
    assert named(()) == ""


def test_an_editor_and_a_doi_reach_every_reference():
    book, chapter = [apa(FULL, HERE, "identity", title) for title in (None, "T")]
    authors = "Curie, M. S., & de Prony, J.-L. (2027, March 1)."
    assert book == (
        f"{authors} A Book (E. Noether & A Group, Eds.; Version 1.2.0). https://doi.org/{DOI}"
    )
    assert chapter == (
        f"{authors} T. In E. Noether & A Group (Eds.), A Book (Version 1.2.0, page identity.html). "
        f"https://doi.org/{DOI}"
    )
    one = replace(FULL, editors=(NOETHER,))
    assert "In E. Noether (Ed.), A Book" in apa(one, HERE, "identity", "T")

    for each in (None, "T"):
        [entry] = parse_string(bibtex(FULL, HERE, "identity", each), "bibtex").entries.values()
        assert [str(editor) for editor in entry.persons["editor"]] == ["Noether, Emmy", "{A Group}"]
        assert entry.fields["doi"] == DOI
        assert entry.fields["url"] == "https://owner.github.io/name/v1.2/identity.html"


def test_without_an_editor_and_a_doi_no_reference_names_one():
    for each in (None, "T"):
        written = bibtex(BODY, HERE, "identity", each) + cff(BODY, HERE, "identity", each)
        assert not [word for word in ("doi", "editor") if word in written]
        names = dict(tags(BODY, HERE, "identity", each))
        assert not {"citation_doi", "citation_editor"} & set(names)


def test_cff_of_a_chapter_cites_it_in_the_book():
    said = yaml.safe_load(cff(FULL, HERE, "identity", "T: γ"))
    assert (said["title"], said["version"], said["doi"]) == ("A Book", "1.2.0", DOI)
    assert said["date-released"] == date(2027, 3, 1)
    assert said["preferred-citation"] == {
        "type": "generic",
        "title": "T: γ",
        "authors": [CURIE, PRONY],
        "collection-title": "A Book",
        "collection-type": "book",
        "collection-doi": DOI,
        "editors": [NOETHER, {"name": "A Group"}],
        "url": "https://owner.github.io/name/v1.2/identity.html",
        "version": "1.2.0",
        "date-released": date(2027, 3, 1),
    }
    nowhere = yaml.safe_load(cff(BODY, NOWHERE, "identity", "T"))["preferred-citation"]
    assert "url" not in nowhere
    assert nowhere["filename"] == "identity.html"


def test_cff_of_the_book_names_no_chapter():
    cited = yaml.safe_load(cff(FULL, HERE, "intro", None))["preferred-citation"]
    assert (cited["type"], cited["title"], cited["doi"]) == ("book", "A Book", DOI)
    assert not {"collection-title", "collection-doi"} & set(cited)


def test_every_chapters_cff_is_valid():
    """As the book is now, and as it will be with all settings filled in."""
    if not CFFCONVERT.exists():
        pytest.skip("no cffconvert: `make lint` installs it")
    full = replace(FULL, authors=({**CURIE, "orcid": "https://orcid.org/0000-0002-1825-0097"},))
    pages = [("intro", None), *((name, title(name)) for name in chapters())]
    files = [cff(release(), addresses(), *page) for page in pages]
    files += [cff(full, at, *page) for at in (HERE, NOWHERE) for page in pages[:2]]
    assert len(files) > 20
    command = [str(CFFCONVERT), "-c", VALIDATE]
    done = subprocess.run(command, input="\0".join(files), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_the_head_of_a_chapter_speaks_to_google_scholar():
    assert tags(FULL, HERE, "identity", "T") == [
        ("citation_title", "T"),
        ("citation_author", "Curie, Maria S."),
        ("citation_author", "de Prony, Jean-Luc"),
        ("citation_editor", "Noether, Emmy"),
        ("citation_editor", "A Group"),
        ("citation_publication_date", "2027/03/01"),
        ("citation_language", "en"),
        ("citation_inbook_title", "A Book"),
        ("citation_fulltext_html_url", "https://owner.github.io/name/v1.2/identity.html"),
        ("citation_public_url", "https://owner.github.io/name/v1.2/identity.html"),
    ]
    nowhere = dict(tags(BODY, NOWHERE, "identity", "T"))
    assert nowhere["citation_author"] == "The maintainers"
    assert not [name for name in nowhere if name.endswith("_url")]


def test_the_doi_in_a_head_is_that_of_the_page():
    book = dict(tags(FULL, HERE, "intro", None))
    assert (book["citation_title"], book["citation_doi"]) == ("A Book", DOI)
    assert "citation_inbook_title" not in book
