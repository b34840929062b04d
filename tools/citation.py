"""How a page is cited: as a sentence, in BibTeX, in CFF, and in what its head says to programs.

A page is a chapter if it has a title, else the whole book. A DOI is the whole book's: a chapter is
found in it by its address, or by its page's name.
"""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import yaml
from pybtex.database import BibliographyData, Entry, Person
from pybtex.style.names import lastfirst, plain

from tools.publication import KEY, Addresses, Release


class Plain(yaml.SafeDumper):
    """YAML that says twice what is so twice: it is to be read."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def persons(entries: Iterable[dict[str, Any]]) -> list[Person]:
    """People and bodies of a CFF file in BibTeX's terms."""
    return [
        # Braces keep a body's name, such as a company's, in one piece.
        Person(
            first=entry.get("given-names", ""),
            prelast=entry.get("name-particle", ""),
            last=entry.get("family-names") or f"{{{entry['name']}}}",
            lineage=entry.get("name-suffix", ""),
        )
        for entry in entries
    ]


def named(entries: Iterable[dict[str, Any]], *, abbr: bool = False) -> str:
    """Such as Maria S. Curie and Jean-Luc de Prony; or M. S. Curie & J.-L. de Prony."""
    names = [_text(plain, person, abbr=abbr) for person in persons(entries)]
    last = f" {'&' if abbr else 'and'} ".join(names[-2:])
    return ", ".join([*names[:-2], last])


def bibtex(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """BibTeX entry of the page `name`, called `title`; of the whole book without a title.

    The key is the same in every version, so that a paper's source need not change with the book.
    """
    edition = f"Version {release.version} of {release.released.isoformat()}"
    fields = {
        "title": f"{{{title or release.title}}}",
        **({"booktitle": f"{{{release.title}}}"} if title else {}),
        "year": str(release.released.year),
        "month": f"{release.released:%B}",
        "note": edition if addresses.site or not title else f"{edition}, page {name}.html",
        **({"doi": release.doi} if release.doi else {}),
        **({"url": addresses.page(name)} if addresses.site else {}),
    }
    people = {"author": persons(release.authors)}
    if release.editors:
        people["editor"] = persons(release.editors)
    kind, key = ("incollection", f"{KEY}-{name}") if title else ("book", KEY)
    # In ASCII, a Greek letter becomes a formula, for programs that know no other letters.
    data = BibliographyData({key: Entry(kind, fields, people)})
    written: bytes = data.to_bytes("bibtex", encoding="ascii")
    return written.decode().strip()


def apa(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """The same reference as a sentence in the style of the APA, without its italics."""
    authors = _listed([_text(lastfirst, each, abbr=True) for each in persons(release.authors)])
    editors = named(release.editors, abbr=True)
    role = "Eds." if len(release.editors) > 1 else "Ed."
    day = f"{release.released:%Y, %B} {release.released.day}"
    work, edition = release.title, f"Version {release.version}"
    if title:
        work = f"{title}. In {f'{editors} ({role}), ' if editors else ''}{work}"
        if release.doi or not addresses.site:  # else the address says which page
            edition += f", page {name}.html"
    elif editors:
        edition = f"{editors}, {role}; {edition}"
    address = f"https://doi.org/{release.doi}" if release.doi else addresses.page(name)
    return f"{authors.removesuffix('.')}. ({day}). {work} ({edition}). {address}".strip()


def cff(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """The same reference as a file `CITATION.cff`.

    The format has no chapters: as in R's cffr, one is a generic work in a collection.
    """
    authors = {"authors": list(release.authors)}
    edition = {"version": release.version, "date-released": release.released}
    doi = {"doi": release.doi} if release.doi else {}
    cited: dict[str, Any] = {"type": "book", "title": release.title, **authors, **doi}
    if title:
        cited = {"type": "generic", "title": title, **authors}
        cited |= {"collection-title": release.title, "collection-type": "book"}
        cited |= {f"collection-{key}": value for key, value in doi.items()}
    if release.editors:
        cited["editors"] = list(release.editors)
    if addresses.site:
        cited["url"] = addresses.page(name)
    elif title:
        cited["filename"] = f"{name}.html"
    whole = {
        "cff-version": "1.2.0",
        "message": f"Cite this {'chapter' if title else 'book'} by its preferred citation.",
        "title": release.title,
        **authors,
        **edition,
        **doi,
        "preferred-citation": cited | edition,
    }
    return yaml.dump(whole, Dumper=Plain, sort_keys=False, allow_unicode=True).strip()


def tags(
    release: Release, addresses: Addresses, name: str, title: str | None
) -> list[tuple[str, str]]:
    """What Google Scholar and reference managers read in a page's head: Highwire Press's names.

    Scholar takes no page without an author, so a body is one. It takes two pages with one DOI for
    the same work: a chapter does not have the book's.
    """
    found = [
        ("title", title or release.title),
        *(("author", _unbraced(person)) for person in persons(release.authors)),
        *(("editor", _unbraced(person)) for person in persons(release.editors)),
        ("publication_date", f"{release.released:%Y/%m/%d}"),
        ("language", "en"),
        ("inbook_title", release.title if title else ""),
        ("doi", "" if title else release.doi),
        ("fulltext_html_url", addresses.page(name)),
        ("public_url", addresses.page(name)),
    ]
    return [(f"citation_{key}", value) for key, value in found if value]


def _listed(names: list[str]) -> str:
    """Curie, M. S., & de Prony, J.-L."""
    *others, last = names
    return f"{', '.join(others)}, & {last}" if others else last


def _text(style: ModuleType, person: Person, *, abbr: bool) -> str:
    return str(style.NameStyle().format(person, abbr=abbr).format().render_as("text"))


def _unbraced(person: Person) -> str:
    """Curie, Maria S."""
    return str(person).strip("{}")
