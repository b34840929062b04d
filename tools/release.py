"""Gather what a release consists of in `_build/release`.

The package's archives, the book as PDF, for the disk and as a site, and the teacher's kit.
"""

import argparse
import shutil
import sys
import tarfile
from pathlib import Path

from tools.downloads import BUILD, SITE, made
from tools.publication import KEY, folder_of, release

RELEASE = BUILD / "release"


def gather(target: Path, version: str) -> None:
    """Copy and pack the files of `version` into the new folder `target`."""
    target.mkdir()
    for path in [*sorted((BUILD / "dist").iterdir()), *made()]:
        shutil.copy(path, target)
    kit = target / f"{KEY}-{version}-course"
    shutil.make_archive(str(kit), "zip", BUILD, "course")
    with tarfile.open(target / f"{KEY}-{version}-site.tar.gz", "w:gz") as site:
        site.add(SITE, folder_of(version))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.release",
        description="Gather the files of a release in _build/release.",
    )
    parser.add_argument("tag", nargs="?", help="has to be that of the version, such as v1.2.0")
    tag, version = parser.parse_args().tag, release().version
    if tag not in (None, f"v{version}"):
        print(f"The tag {tag} is not that of the version, v{version}.", file=sys.stderr)
        return 1
    if missing := [name for name in ("dist", "html", "course") if not (BUILD / name).is_dir()]:
        print(f"Not made: {', '.join(missing)}. `make release` makes all.", file=sys.stderr)
        return 1
    shutil.rmtree(RELEASE, ignore_errors=True)
    gather(RELEASE, version)
    for path in sorted(RELEASE.iterdir()):
        print(f"{path.relative_to(BUILD.parent)}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
