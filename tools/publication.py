"""What the book says about itself: version, authors, editor, DOI, and addresses.

`CITATION.cff` has all but the two addresses, the repository's and the site's, which `_config.yml`
has. Both may be empty, as long as the book is not published.
"""

import os
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import yaml

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "batchnorm-companion"
TWINS = "book/notebooks"  # seen from the repository's root
NOTEBOOKS = "notebooks"  # in the site: the twins, and the package's wheel
KEY = "batch-normalization"
# Folders of the published site, beside one for each minor version: tools/versions.py.
STABLE = "stable"
DEV = "dev"


@dataclass(frozen=True)
class Release:
    """What `CITATION.cff` says of the version at hand; `make lint` validates it."""

    title: str
    authors: tuple[dict[str, Any], ...]  # people and bodies, in the words of CFF
    version: str
    released: date
    editors: tuple[dict[str, Any], ...] = ()
    doi: str = ""

    @classmethod
    def read(cls, path: Path) -> "Release":
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(
            title=data["title"],
            authors=tuple(data["authors"]),
            version=str(data["version"]),
            released=data["date-released"],
            editors=tuple(data.get("contact", ())),
            doi=data.get("doi", ""),
        )

    @property
    def tag(self) -> str:
        """The repository's, of this version."""
        return f"v{self.version}"

    @property
    def wheel(self) -> str:
        """The file that this version of the package is installed from."""
        return f"{DISTRIBUTION.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Addresses:
    """Where the book lives. An empty string: nowhere yet.

    Attributes
    ----------
    repository : str
        Such as ``https://github.com/OWNER/NAME``.
    ref : str
        What of it Colab and Binder open: a branch, or the tag of a release.
    site : str
        Such as ``https://OWNER.github.io/NAME/``, with a folder for each edition.
    folder : str
        That of the edition: it holds ``intro.html``.
    """

    repository: str = ""
    ref: str = ""
    site: str = ""
    folder: str = DEV

    def page(self, name: str) -> str:
        """Permanent address of the page `name`."""
        return self.file(f"{name}.html")

    def file(self, path: str) -> str:
        """Address of a file of this edition."""
        return "/".join([self.site.rstrip("/"), self.folder, path]) if self.site else ""

    def colab(self, name: str) -> str:
        """Where Colab opens the twin of `name`; Colab reads from GitHub alone."""
        if not self._on_github:
            return ""
        colab = "https://colab.research.google.com/github"
        return f"{colab}/{self._on_github}/blob/{self.ref}/{TWINS}/{quote(name)}.ipynb"

    def binder(self, name: str) -> str:
        """Where Binder builds the repository and opens the twin of `name`."""
        if not self.repository:
            return ""
        anywhere = f"git/{quote(self.repository, safe='')}"
        source = f"gh/{self._on_github}" if self._on_github else anywhere
        path = quote(f"lab/tree/{TWINS}/{name}.ipynb", safe="")
        return f"https://mybinder.org/v2/{source}/{quote(self.ref, safe='')}?urlpath={path}"

    def report(self, name: str, version: str) -> str:
        """Where GitHub asks what is wrong on the page `name`; its form knows the page already.

        The fields are those of `.github/ISSUE_TEMPLATE/error.yml`.
        """
        if not self._on_github:
            return ""
        page = self.page(name) or f"{name}.html"
        fields = {"template": "error.yml", "title": f"Error on the page {name}"}
        query = urlencode({**fields, "page": page, "version": version}, quote_via=quote)
        return f"https://github.com/{self._on_github}/issues/new?{query}"

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
    """The addresses in `_config.yml`, for the edition at hand."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config["repository"]
    given = Addresses(repository["url"], repository["branch"], config["html"]["baseurl"])
    return of_edition(given, release())


def of_edition(given: Addresses, release: Release) -> Addresses:
    """Where this edition is, of a book whose editions all are at the `given` addresses.

    It is that of the `release` if `make` was told ``EDITION=release``, and else in preparation. A
    release has a folder and a tag, so what is cited stays as it was.
    """
    if os.environ.get("EDITION") == "release":
        return replace(given, ref=release.tag, folder=folder_of(release.version))
    return replace(given, folder=DEV)


def folder_of(version: str) -> str:
    """Where a release is published; a patch takes the place of the last one."""
    major, minor, _ = version.split(".")
    return f"v{major}.{minor}"


def in_words(day: date) -> str:
    """Such as November 21, 2026."""
    return f"{day:%B} {day.day}, {day.year}"
