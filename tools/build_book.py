"""Build the book into `_build/html`: every chapter executed, every warning an error.

`jupyter-book build` alone can report success for a broken book: a warning is not repeated when the
page that caused it is unchanged, so that the second build of a failing book passes. Here a build
starts from the parsed pages of the last one only if that one succeeded.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

from tools.downloads import made, publish

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "_build"
SUCCEEDED = BUILD / ".succeeded"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ARGUMENTS = [
    *("build", "book", "--path-output", "."),
    *("--config", "_config.yml", "--toc", str(ROOT / "_toc.yml")),
    *("--warningiserror", "--keep-going"),
]


def failed_cells() -> list[str]:
    """The last line of each report that a failed page left, without its colours."""
    reports = sorted((BUILD / "html" / "reports").glob("*.err.log"))
    last_lines = {
        path: path.read_text(encoding="utf-8").strip().splitlines()[-1] for path in reports
    }
    return [
        f"{path.name.removesuffix('.err.log')}: {COLOUR.sub('', line)}"
        for path, line in last_lines.items()
    ]


def main() -> int:
    os.chdir(ROOT)
    # Several chapters are executed at a time, and their tensors are small: one thread each.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if not SUCCEEDED.exists():
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        shutil.rmtree(BUILD / "html", ignore_errors=True)
    SUCCEEDED.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        jupyter_book(ARGUMENTS, standalone_mode=False)
    except (RuntimeError, SystemExit):  # how jupyter-book ends once it has printed what went wrong
        seconds = time.monotonic() - start
        print(f"The book was not built: see the errors above ({seconds:.0f} s).", file=sys.stderr)
        print("\n".join(failed_cells()), file=sys.stderr)
        return 1
    publish(BUILD / "html", made())
    SUCCEEDED.touch()
    index = BUILD / "html" / "index.html"
    print(f"The book is built ({time.monotonic() - start:.0f} s): open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
