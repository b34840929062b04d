"""Build the book into `_build/html`: every chapter executed, every warning an error.

`jupyter-book build` alone can report success for a broken book: a warning is not repeated when the
page that caused it is unchanged, so that the second build of a failing book passes. Here a build
starts from the parsed pages of the last one only if that one succeeded.
"""

import errno
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

from tools.downloads import made, publish
from tools.publication import NOTEBOOKS
from tools.wheel import build_wheel

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "_build"
SUCCEEDED = BUILD / ".succeeded"
WRITABLE = ": make it writable, or clone the repository into a folder of yours"
ADVICE = {
    errno.EACCES: WRITABLE,
    errno.EROFS: WRITABLE,
    errno.ENOSPC: ": make room there, and build again",
}
ARGUMENTS = [
    *("build", "book", "--path-output", "."),
    *("--config", "_config.yml", "--toc", str(ROOT / "_toc.yml")),
    *("--warningiserror", "--keep-going"),
]


def reason(error: BaseException) -> str:
    """What ended a build, from the error that jupyter-book ended with."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, SystemExit):  # once warnings have been printed, or after Ctrl-C
        interrupted = isinstance(error.code, KeyboardInterrupt)
        return "It was interrupted." if interrupted else "See the warnings above."
    if isinstance(error, sqlite3.Error):
        return f"{BUILD}: {error}"
    if isinstance(error, OSError):
        path = ROOT / (error.filename2 or error.filename or BUILD)
        return f"{path}: {error.strerror}{ADVICE.get(error.errno or 0, '')}"
    return str(error)


def main() -> int:
    os.chdir(ROOT)
    # Several chapters are executed at a time, and their tensors are small: one thread each.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start = time.monotonic()
    try:
        if not SUCCEEDED.exists():
            shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
            shutil.rmtree(BUILD / "html", ignore_errors=True)
        SUCCEEDED.unlink(missing_ok=True)
        jupyter_book(ARGUMENTS, standalone_mode=False)
        build_wheel(BUILD / "html" / NOTEBOOKS)
        publish(BUILD / "html", made())
        SUCCEEDED.touch()
    except (RuntimeError, SystemExit, OSError) as error:
        print(f"The book was not built ({time.monotonic() - start:.0f} s).", file=sys.stderr)
        print(reason(error), file=sys.stderr)
        return 1
    index = BUILD / "html" / "index.html"
    print(f"The book is built ({time.monotonic() - start:.0f} s): open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
