"""The package's wheel, from which it is installed where there is no clone."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, time
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.publication import ROOT, release

FOLDERS = ("companion", "book/results")  # and the files at the top
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file without what a checkout has given it: its date and its permissions."""
    shutil.copyfile(source, target)
    Path(target).chmod(0o644)


def build_wheel(folder: Path) -> Path:
    """Build the wheel into `folder`, without a network and in a copy of the sources.

    The same sources make the same bytes: every file has the date of the release.

    Raises
    ------
    RuntimeError
        It could not be built; with what setuptools said.
    """
    released = datetime.combine(release().released, time(), UTC)
    compiled = shutil.ignore_patterns("__pycache__")
    with TemporaryDirectory() as copied:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, Path(copied, name), ignore=compiled, copy_function=copy)
        for path in ROOT.iterdir():
            if path.is_file():
                copy(path, Path(copied, path.name))
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder.resolve())],
            cwd=copied,
            env={**os.environ, "SOURCE_DATE_EPOCH": f"{released.timestamp():.0f}"},
            umask=0o022,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the wheel was not built: {done.stderr.strip()}")
    return folder / release().wheel
