"""What the book says about itself: version, authors, addresses, and how a page of it is cited.

`CITATION.cff` has the version, the date and the authors, `_config.yml` the two addresses: the
repository's, and the site's. Both may be empty, as long as the book is not published.
"""

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

import yaml
from pybtex.database import BibliographyData, Entry, Person
from pybtex.style.names.lastfirst import NameStyle

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "batchnorm-companion"
TWINS = "book/notebooks"  # seen from the repository's root
KEY = "batch-normalization"
# Folders of the published site, beside one for each minor version: tools/versions.py.
STABLE = "stable"
DEV = "dev"


@dataclass(frozen=True)
class Release:
    """What `CITATION.cff` says of the version at hand; `make lint` validates it."""

    title: str
    authors: tuple[Person, ...]
    version: str
    released: date

    @classmethod
    def read(cls, path: Path) -> "Release":
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        authors = tuple(
            # Braces keep a body's name, such as a company's, in one piece.
            Person(
                last=entry.get("family-names") or f"{{{entry['name']}}}",
                first=entry.get("given-names", ""),
            )
            for entry in data["authors"]
        )
        return cls(data["title"], authors, str(data["version"]), data["date-released"])


@dataclass(frozen=True)
class Addresses:
    """Where the book lives. An empty string: nowhere yet.

    Attributes
    ----------
    repository : str
        Such as ``https://github.com/OWNER/NAME``.
    branch : str
        The branch that Colab and Binder open.
    site : str
        Address of the folder that holds ``intro.html``.
    """

    repository: str = ""
    branch: str = "main"
    site: str = ""

    def page(self, name: str) -> str:
        """Permanent address of the page `name`."""
        return f"{self.site.rstrip('/')}/{name}.html" if self.site else ""

    def colab(self, name: str) -> str:
        """Where Colab opens the twin of `name`; Colab reads from GitHub alone."""
        if not self._on_github:
            return ""
        colab = "https://colab.research.google.com/github"
        return f"{colab}/{self._on_github}/blob/{self.branch}/{TWINS}/{quote(name)}.ipynb"

    def binder(self, name: str) -> str:
        """Where Binder builds the repository and opens the twin of `name`."""
        if not self.repository:
            return ""
        anywhere = f"git/{quote(self.repository, safe='')}"
        source = f"gh/{self._on_github}" if self._on_github else anywhere
        path = quote(f"lab/tree/{TWINS}/{name}.ipynb", safe="")
        return f"https://mybinder.org/v2/{source}/{quote(self.branch, safe='')}?urlpath={path}"

    def binder_source(self) -> dict[str, str]:
        """The repository in the words of thebe's options for Binder; empty without one."""
        if self._on_github:
            return {"repoProvider": "github", "repo": self._on_github}
        return {"repoProvider": "git", "repo": self.repository} if self.repository else {}

    @property
    def _on_github(self) -> str:
        """``OWNER/NAME``; empty for a repository that is elsewhere."""
        host, path = urlsplit(self.repository)[1:3]
        return path.strip("/").removesuffix(".git") if host == "github.com" else ""


@cache
def release() -> Release:
    return Release.read(ROOT / "CITATION.cff")


@cache
def addresses() -> Addresses:
    """The addresses in `_config.yml`."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config["repository"]
    return Addresses(repository["url"], repository["branch"], config["html"]["baseurl"])


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
        "note": f"{edition}{_where(addresses, name, title)}",
        **({"url": addresses.page(name)} if addresses.site else {}),
    }
    kind, key = ("incollection", f"{KEY}-{name}") if title else ("book", KEY)
    entry = Entry(kind, fields, {"author": list(release.authors)})
    # In ASCII, a Greek letter becomes a formula, for programs that know no other letters.
    written: bytes = BibliographyData({key: entry}).to_bytes("bibtex", encoding="ascii")
    return written.decode().strip()


def apa(release: Release, addresses: Addresses, name: str, title: str | None) -> str:
    """The same reference as a sentence in the style of the APA, without its italics."""
    *others, last = [_apa_name(author) for author in release.authors]
    authors = f"{', '.join(others)}, & {last}" if others else last
    day = f"{release.released:%Y, %B} {release.released.day}"
    edition = f"Version {release.version}{_where(addresses, name, title)}"
    work = f"{title}. In {release.title}" if title else release.title
    reference = f"{authors.removesuffix('.')}. ({day}). {work} ({edition})."
    return f"{reference} {addresses.page(name)}".strip()


def folder_of(version: str) -> str:
    """Where a release is published; a patch takes the place of the last one."""
    major, minor, _ = version.split(".")
    return f"v{major}.{minor}"


def in_words(day: date) -> str:
    """Such as November 21, 2026."""
    return f"{day:%B} {day.day}, {day.year}"


def _apa_name(person: Person) -> str:
    """Family name and initials: Curie, M. S."""
    return str(NameStyle().format(person, abbr=True).format().render_as("text"))


def _where(addresses: Addresses, name: str, title: str | None) -> str:
    """A chapter that has no address is found by its page's name."""
    return f", page {name}.html" if title and not addresses.site else ""
