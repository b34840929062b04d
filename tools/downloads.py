"""What a reader can take along, linked from the site where it was made.

`make book` knows no PDF and no zip; whoever makes one afterwards fills its place in the pages. So a
page never links to what is not there, and no chapter is built twice.
"""

import re
import shutil
from pathlib import Path

from tools.publication import KEY, ROOT, release

BUILD = ROOT / "_build"
FOLDER = "downloads"  # in the site
PLACE = re.compile(r"<!-- download (?P<file>\S+): (?P<label>[^>]*) -->(<li>.*?</li>)?")


def archive_name() -> str:
    return f"{KEY}-{release().version}-offline.zip"


def place(name: str, *, whole: bool) -> str:
    """Where the links of the page `name` to its PDF, and to the zip of the book, will stand."""
    if not whole:
        return f"<!-- download {name}.pdf: PDF of this chapter -->"
    pdf = f"<!-- download {KEY}.pdf: PDF of the book -->"
    return f"{pdf}\n<!-- download {archive_name()}: The book offline (zip) -->"


def filled(page: str, present: set[str]) -> str:
    """A page's HTML with a link in the place of every file in `present`, and in no other."""

    def link(match: re.Match[str]) -> str:
        marker = f"<!-- download {match['file']}: {match['label']} -->"
        if match["file"] not in present:
            return marker
        target = f"{FOLDER}/{match['file']}"
        return f'{marker}<li><a href="{target}" download>{match["label"]}</a></li>'

    return PLACE.sub(link, page)


def publish(site: Path, files: list[Path]) -> None:
    """Copy `files` into the site, in the place of what was there, and link them."""
    folder = site / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if files:
        folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    present = {file.name for file in files}
    for path in site.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        if (new := filled(page, present)) != page:
            path.write_text(new, encoding="utf-8")


def made() -> list[Path]:
    """The PDFs and the zip that there are, of this version."""
    return [*sorted((BUILD / "pdf").glob("[!.]*.pdf")), *(BUILD / "offline").glob(archive_name())]
