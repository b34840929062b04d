"""``python -m companion``: commands that measure what the book claims."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from companion import __version__
from companion.bench import command as bench
from companion.diagnosis import command as diagnosis
from companion.exercises import command as exercises
from companion.experiments import command as experiments
from companion.kernels import select


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands; each sets `run`, a function of the options that returns the exit status."""
    parser = _Parser(prog="python -m companion", description=__doc__)
    parser.add_argument("--version", action="version", version=f"companion {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    bench.add_to(commands)
    experiments.add_to(commands)
    exercises.add_to(commands)
    diagnosis.add_to(commands)
    compiling = commands.add_parser(
        "compile",
        help="compile the CPU kernels now instead of at their first use",
        description="Compile the CPU kernels for float32 and float64 before their first use; and, "
        "where there is a C++ compiler, a way to call them that takes small batches less time. "
        "What is compiled is kept in the user's cache for all copies of this version; "
        "NUMBA_CACHE_DIR and TORCH_EXTENSIONS_DIR name other folders.",
    )
    compiling.add_argument(
        "--all",
        action="store_true",
        help="also for float16 and bfloat16, which else wait for their first use",
    )
    compiling.set_defaults(run=compile_kernels)
    return parser


def compile_kernels(options: argparse.Namespace) -> int:
    """Compile the CPU kernels, or say what is missing."""
    if not select.installed("cpu"):
        print(
            "compile: numba is not installed: pip install 'batchnorm-companion[cpu]'",
            file=sys.stderr,
        )
        return 2
    from companion.kernels.cpu import ahead, formats

    try:
        return ahead.compile_missing(formats.FORMATS if options.all else ahead.USUAL)
    except KeyboardInterrupt:
        print("\ninterrupted; what has been compiled is kept", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"compile: {error}", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        those of the process by default

    Returns
    -------
    int
        the exit status: 0, or 130 if interrupted, or what the command says

    Raises
    ------
    SystemExit
        with status 2 after a mistake of the user's, 0 after ``--help``
    """
    options = build_parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted; no file was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough. Nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
