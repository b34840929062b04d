"""Zip the built site, so that it opens from a reader's disk: `_build/offline/*.zip`.

usage: python -m tools.build_offline
"""

import argparse
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tqdm import tqdm

from tools.build_book import SUCCEEDED
from tools.downloads import BUILD, FOLDER, archive_name, filled, made, publish
from tools.publication import KEY, release

SITE = BUILD / "html"
TOP = f"{KEY}-{release().version}"  # the one folder in the zip


def members(site: Path) -> list[Path]:
    """The files of the site, less what only its server needs, and earlier zips."""
    return [
        path
        for path in sorted(site.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and path.parent != site / "reports"
        and path != site / FOLDER / archive_name()
    ]


def content(path: Path, site: Path) -> bytes:
    """A file as it is, but for what would fail from disk.

    A page is without its link to the zip that it is in. Search lists titles alone: an excerpt is
    fetched from the page, which browsers refuse for files.
    """
    if path == site / "_static" / "documentation_options.js":
        options = path.read_text(encoding="utf-8")
        return options.replace("SHOW_SEARCH_SUMMARY: true", "SHOW_SEARCH_SUMMARY: false").encode()
    if path.suffix != ".html" or path.parent != site:
        return path.read_bytes()
    present = {file.name for file in (site / FOLDER).glob("*")} - {archive_name()}
    return filled(path.read_text(encoding="utf-8"), present).encode()


def write(site: Path, archive: Path) -> None:
    """Zip `site` into `archive`: the same site gives the same bytes."""
    day = release().released
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(f".{archive.name}")
    with ZipFile(unfinished, "w", ZIP_DEFLATED) as zipped:
        for path in tqdm(members(site), desc="zip", unit="file"):
            name = f"{TOP}/{path.relative_to(site).as_posix()}"
            info = ZipInfo(name, (day.year, day.month, day.day, 0, 0, 0))
            info.compress_type = ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            zipped.writestr(info, content(path, site))
    unfinished.replace(archive)


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tools.build_offline",
        description="Zip the built site, so that it opens from a reader's disk.",
    ).parse_args()
    if not SUCCEEDED.exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    archive = BUILD / "offline" / archive_name()
    for stale in archive.parent.glob("*.zip"):
        stale.unlink()
    publish(SITE, made())
    write(SITE, archive)
    publish(SITE, made())
    print(f"{archive} ({archive.stat().st_size / 1e6:.1f} MB): unzip it and open {TOP}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
