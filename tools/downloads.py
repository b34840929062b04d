"""What a reader can take along, linked from the site where it was made: PDFs, a zip for the disk.

`make book` knows no PDF and no zip; whoever makes one afterwards fills its place in the pages. So a
page never links to what is not there, and no chapter is built twice. This tool makes the zip.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.publication import KEY, ROOT, Addresses, release

BUILD = ROOT / "_build"
SITE = BUILD / "html"
FOLDER = "downloads"  # in the site
LIVE = "live"  # in the site: what runs cells in a served page, of no use on a disk
TOP = f"{KEY}-{release().version}"  # the one folder in the zip
ARCHIVE = f"{TOP}-offline.zip"
PLACE = re.compile(r"(?P<marker><!-- download (?P<file>\S+): (?P<label>[^>]*) -->)(<li>.*?</li>)?")
TAG = re.compile(r"(?P<marker><!-- tag (?P<file>\S+): (?P<address>\S+) -->)(<meta[^>]*>)?")


def place(name: str, *, whole: bool) -> str:
    """Where the links of the page `name` to its PDF, and to the zip of the book, will stand."""
    if not whole:
        return f"<!-- download {name}.pdf: PDF of this chapter -->"
    pdf = f"<!-- download {KEY}.pdf: PDF of the book -->"
    return f"{pdf}\n<!-- download {ARCHIVE}: The book offline (zip) -->"


def pdf_tag(addresses: Addresses, name: str, *, whole: bool) -> str:
    """Where the head of the page `name` will tell Google Scholar of its PDF."""
    file = f"{KEY if whole else name}.pdf"
    return f"\n<!-- tag {file}: {addresses.file(f'{FOLDER}/{file}')} -->"


def publish(site: Path, files: list[Path]) -> None:
    """Copy `files` into the site, in the place of what was there, and link them."""
    folder = site / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if files:
        folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    present = {file.name for file in files}

    def link(match: re.Match[str]) -> str:
        target = f"{FOLDER}/{match['file']}"
        item = f'<li><a href="{target}" download>{match["label"]}</a></li>'
        return match["marker"] + (item if match["file"] in present else "")

    def tag(match: re.Match[str]) -> str:
        meta = f'<meta name="citation_pdf_url" content="{match["address"]}" />'
        return match["marker"] + (meta if match["file"] in present else "")

    for path in site.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        if (linked := TAG.sub(tag, PLACE.sub(link, page))) != page:
            path.write_text(linked, encoding="utf-8")


def pdfs() -> list[Path]:
    return sorted((BUILD / "pdf").glob("*.pdf"))


def made() -> list[Path]:
    """The PDFs and the zip that there are, of this version."""
    return [*pdfs(), *(BUILD / "offline").glob(ARCHIVE)]


def archive(site: Path, target: Path) -> None:
    """Zip the site, in one folder."""
    with TemporaryDirectory() as folder:
        left_out = shutil.ignore_patterns(".*", LIVE)
        shutil.copytree(site, Path(folder, TOP), ignore=left_out)
        made = shutil.make_archive(str(Path(folder, "made")), "zip", folder, TOP)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)


def main() -> int:
    argparse.ArgumentParser(prog="python -m tools.downloads", description=__doc__).parse_args()
    if not (BUILD / ".succeeded").exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    target = BUILD / "offline" / ARCHIVE
    publish(SITE, pdfs())  # the zip has no link to itself
    archive(SITE, target)
    publish(SITE, made())
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB): unzip it and open {TOP}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
