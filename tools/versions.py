"""Make one site of the book's versions: `stable`, a folder for each minor version, and `dev`.

A release is an archive of one folder, such as `v0.2`: `make release` writes it. Of several patches
of a minor version the last is taken, and `stable` is a copy of the newest. Each page gets a list of
the versions that have it, and says so if it is not the newest.

The lists are written here and not looked up by a script: a page asks for nothing when it is read,
and one that was built years ago knows the versions of today.
"""

import argparse
import re
import shutil
import sys
import tarfile
from pathlib import Path

from tools.downloads import BUILD, SITE
from tools.publication import DEV, KEY, STABLE, folder_of

ARCHIVE = re.compile(rf"{KEY}-(\d+\.\d+\.\d+)-site\.tar\.gz")
# The places that `book/_templates` leave on a page.
LIST = "<!-- versions -->"
NOTICE = "<!-- newest -->"
FIRST_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Batch Normalization</title>
<meta http-equiv="refresh" content="0; url={folder}/">
<p><a href="{folder}/">Batch Normalization</a></p>
</html>
"""


def last_patches(archives: list[Path]) -> dict[str, Path]:
    """The versions whose archives are taken, the newest first."""
    found = {match[1]: path for path in archives if (match := ARCHIVE.fullmatch(path.name))}
    ascending = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    last = {folder_of(version): version for version in ascending}
    return {version: found[version] for version in reversed(last.values())}


def lay(target: Path, archives: list[Path], dev: Path) -> dict[str, str]:
    """Fill `target`; its folders, and what a reader is told that they are."""
    names = {}
    for version, path in last_patches(archives).items():
        with tarfile.open(path) as archive:
            archive.extractall(target, filter="data")
        folder = folder_of(version)
        if STABLE not in names:
            shutil.copytree(target / folder, target / STABLE)
            names[STABLE] = f"{version}, the newest"
        names[folder] = version
    shutil.copytree(dev, target / DEV)
    return {**names, DEV: "in preparation"}


def listed(page: str, here: str, names: dict[str, str]) -> str:
    """Links to `page` in the other folders."""
    items = "".join(
        f'<li><a href="../{folder}/{page}">{name}</a></li>'
        for folder, name in names.items()
        if folder != here
    )
    summary = f"<summary>Version: {names[here]}</summary>"
    details = f"<details>{summary}<ul>{items}</ul></details>"
    return f'<nav class="versions" aria-label="Versions">{details}</nav>' if items else ""


def notice(page: str, here: str, names: dict[str, str]) -> str:
    """What is said above a page of another version than the newest."""
    newest = names.get(STABLE, "").split(",")[0]
    if not newest or here in (STABLE, folder_of(newest)):
        return ""
    name = "the version in preparation" if here == DEV else f"version {names[here]}"
    link = f'<a href="../{STABLE}/{page}">version {newest}</a>'
    return f'<p class="newest">This is {name}. The newest is {link}.</p>'


def link(target: Path, names: dict[str, str]) -> None:
    """Fill the places on all pages."""
    for path in target.glob("*/*.html"):
        here, page = path.parent.name, path.name
        having = {name: names[name] for name in names if (target / name / page).exists()}
        text = path.read_text(encoding="utf-8")
        text = text.replace(LIST, listed(page, here, having))
        path.write_text(text.replace(NOTICE, notice(page, here, having)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.versions",
        description="Make one site of the built book and of the releases' archives.",
    )
    parser.add_argument("--dev", type=Path, default=SITE, help="the built book")
    parser.add_argument("--releases", type=Path, default=BUILD / "releases", help="the archives")
    parser.add_argument("--target", type=Path, default=BUILD / "published", help="made anew")
    folders = parser.parse_args()
    if not (folders.dev / "404.html").exists():
        print(f"There is no book in {folders.dev}: run `make book` first.", file=sys.stderr)
        return 1
    shutil.rmtree(folders.target, ignore_errors=True)
    folders.target.mkdir(parents=True)
    names = lay(folders.target, sorted(folders.releases.glob("*")), folders.dev)
    link(folders.target, names)
    first = next(iter(names))
    (folders.target / "index.html").write_text(FIRST_PAGE.format(folder=first), encoding="utf-8")
    # The one that servers show for any address; its links name the folder that it comes from.
    shutil.copy(folders.target / first / "404.html", folders.target)
    print(f"{folders.target}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
