"""What the book says about itself: version, authors, addresses, and how a page of it is cited.

`CITATION.cff` has the version, the date and the authors, `_config.yml` the two addresses: the
repository's, and the site's. Both may be empty, as long as the book is not published.
"""

import codecs
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import latexcodec  # noqa: F401  (registers the codec "ulatex")
import yaml

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "batchnorm-companion"
TWINS = "book/notebooks"  # seen from the repository's root
KEY = "batch-normalization"


@dataclass(frozen=True)
class Author:
    """A person; or, without given names, a body such as a company."""

    family: str
    given: str = ""

    @classmethod
    def read(cls, entry: dict[str, Any]) -> "Author":
        if "name" in entry:
            return cls(entry["name"])
        return cls(entry["family-names"], entry.get("given-names", ""))

    @property
    def name(self) -> str:
        return f"{self.given} {self.family}".strip()

    def bibtex(self) -> str:
        """Braces keep BibTeX from taking a body's name apart."""
        return (
            f"{_tex(self.family)}, {_tex(self.given)}" if self.given else f"{{{_tex(self.family)}}}"
        )

    def apa(self) -> str:
        """Family name and initials: Curie, M. S."""
        initials = " ".join(f"{name[0]}." for name in re.split(r"[\s-]+", self.given) if name)
        return f"{self.family}, {initials}" if initials else self.family


@dataclass(frozen=True)
class Release:
    """What `CITATION.cff` says of the version at hand."""

    title: str
    authors: tuple[Author, ...]
    version: str
    released: date

    @classmethod
    def read(cls, path: Path) -> "Release":
        """Raises `ValueError`, which names the field, for a file that lacks one."""
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        missing = {"title", "authors", "version", "date-released"} - set(data)
        if missing:
            raise ValueError(f"{path.name}: expected the fields {sorted(missing)}, got none")
        authors = tuple(map(Author.read, data["authors"]))
        return cls(data["title"], authors, str(data["version"]), data["date-released"])


@dataclass(frozen=True)
class Addresses:
    """Where the book lives. An empty string: nowhere yet.

    Attributes
    ----------
    repository : such as ``https://github.com/OWNER/NAME``
    branch : the branch that Colab and Binder open
    site : address of the folder that holds ``intro.html``
    """

    repository: str = ""
    branch: str = "main"
    site: str = ""

    def page(self, name: str) -> str | None:
        """Permanent address of the page `name`."""
        return f"{self.site.rstrip('/')}/{name}.html" if self.site else None

    def colab(self, name: str) -> str | None:
        """Where Colab opens the twin of `name`; Colab reads from GitHub alone."""
        owner = self._owner("github.com")
        if owner is None:
            return None
        colab = "https://colab.research.google.com/github"
        return f"{colab}/{owner}/blob/{self.branch}/{TWINS}/{quote(name)}.ipynb"

    def binder(self, name: str) -> str | None:
        """Where Binder builds the repository and opens the twin of `name`."""
        if not self.repository:
            return None
        if owner := self._owner("github.com"):
            source = f"gh/{owner}"
        elif owner := self._owner("gitlab.com"):
            source = f"gl/{quote(owner, safe='')}"
        else:
            source = f"git/{quote(self.repository, safe='')}"
        branch = quote(self.branch, safe="")
        path = quote(f"lab/tree/{TWINS}/{name}.ipynb", safe="")
        return f"https://mybinder.org/v2/{source}/{branch}?urlpath={path}"

    def _owner(self, host: str) -> str | None:
        """``OWNER/NAME`` of a repository on `host`."""
        parts = urlsplit(self.repository)
        path = parts.path.strip("/").removesuffix(".git")
        return path if parts.netloc == host and path else None


@cache
def release() -> Release:
    return Release.read(ROOT / "CITATION.cff")


@cache
def addresses() -> Addresses:
    """The addresses in `_config.yml`."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config.get("repository", {})
    return Addresses(
        repository=repository.get("url") or "",
        branch=repository.get("branch") or "main",
        site=config.get("html", {}).get("baseurl") or "",
    )


def bibtex(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """BibTeX entry of the page `name`, called `title`; of the whole book without a title.

    The key is the same in every version, so that a paper's source need not change with the book.
    """
    address = addresses.page(name)
    where = "" if address or title is None else f", page {name}.html"
    fields = {
        "author": " and ".join(author.bibtex() for author in release.authors),
        "title": f"{{{_tex(title or release.title)}}}",
        **({"booktitle": f"{{{_tex(release.title)}}}"} if title else {}),
        "year": str(release.released.year),
        "month": f"{release.released:%b}".lower(),
        "note": f"Version {release.version} of {release.released.isoformat()}{where}",
        **({"url": address} if address else {}),
    }
    width = max(map(len, fields))
    lines = [f"  {field:<{width}} = {_value(field, value)}," for field, value in fields.items()]
    kind, key = ("incollection", f"{KEY}-{name}") if title else ("book", KEY)
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def apa(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """The same reference as a sentence in the style of the APA, without its italics."""
    day = release.released
    *others, last = [author.apa() for author in release.authors]
    authors = f"{', '.join(others)}, & {last}" if others else last
    address = addresses.page(name)
    where = "" if address or title is None else f", page {name}.html"
    book = f"{release.title} (Version {release.version}{where})."
    work = f"{title}. In {book}" if title else book
    reference = f"{authors.removesuffix('.')}. ({day.year}, {day:%B} {day.day}). {work}"
    return f"{reference} {address}" if address else reference


def _tex(text: str) -> str:
    """Text with what TeX reads as commands escaped, and Greek letters as formulas."""
    return str(codecs.encode(text, "ulatex"))


def _value(field: str, value: str) -> str:
    """BibTeX knows the months by their English abbreviations, which stand without braces."""
    return value if field == "month" else f"{{{value}}}"
