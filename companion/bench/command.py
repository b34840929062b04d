"""The command ``python -m companion bench``: its options, and what is wrong with them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from companion import functional

from . import document, models, operations, session, sync
from .session import Request
from .suite import DTYPES, Case, suite

_BACKENDS = ("auto", "eager", "cpu", "cuda", "torch")
_DESCRIPTION = """\
Time batch normalization, ours and PyTorch's, paired and interleaved, and compare both with a
float64 oracle. Times are printed as multiples of a copy of the tensor, measured in the same
rounds; × is the speed-up over PyTorch. Ctrl-C ends the run after the case under way, and reports
and writes what there is; a second Ctrl-C ends it at once."""


class _Mistake(Exception):
    """What a user asked for cannot be done; the message says why."""


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m companion``."""
    parser = commands.add_parser(
        "bench", help="time batch normalization against PyTorch", description=_DESCRIPTION
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="default: float32; on cuda bfloat16 and float32"
    )
    parser.add_argument(
        "--backend", choices=_BACKENDS, default="auto", help="which of our kernels (default: auto)"
    )
    parser.add_argument("--threads", type=_positive_int, help="default: torch.get_num_threads()")
    parser.add_argument("--quick", action="store_true", help="fewer cases and samples")
    parser.add_argument(
        "--only", type=_pattern, metavar="REGEX", help="cases whose group/name has a match"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="also time torch.compile of PyTorch's, which takes seconds per case to compile "
        "(default: unless --quick, and if there is a compiler)",
    )
    parser.add_argument(
        "--seconds-per-case",
        type=_positive,
        metavar="S",
        help="time spent on samples (default: 1; 0.4 with --quick); slow cases need more",
    )
    parser.add_argument(
        "--sync",
        action="store_true",
        help="measure instead what synchronization over 1, 2 and 4 processes costs, and what it "
        "would over 8, 64 and 1024 (with --device, --quick, --seconds-per-case and --json)",
    )
    parser.add_argument(
        "--models",
        action="store_true",
        help="measure instead whole training steps and evaluations of whole networks (with "
        "--threads, --quick, --only, --list, --compile, --seconds-per-case and --json)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.set_defaults(run=run, parser=parser)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text}")
    return value


_positive.__name__, _positive_int.__name__ = "number", "integer"


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if options.sync:
        return _run_sync(options)
    if options.models:
        return _run_models(options)
    try:
        cases = _cases(options)
        compiled, note = (False, None) if options.list else _check(options)
    except _Mistake as error:
        options.parser.error(str(error))
    if options.list:
        for case in cases:
            print(f"{case.path:<50}{case.bytes / 2**20:9.2f} MiB")
        return 0
    results = session.run(
        cases,
        Request(
            device=options.device,
            backend=options.backend,
            quick=options.quick,
            only=None if options.only is None else options.only.pattern,
            seconds_per_case=options.seconds_per_case or (0.4 if options.quick else 1.0),
            threads=options.threads,
            compiled=compiled,
            compile_note=note,
        ),
    )
    return _finish(results, options)


def _finish(results: Any, options: argparse.Namespace) -> int:
    """Write the file, if one was asked for; returns the exit status of the run."""
    status = _write(results, options)
    if status == 0 and results["summary"]["interrupted"]:
        status = 130
    elif status == 0 and results["summary"]["failed"]:
        status = 1
    return status


def _write(results: Any, options: argparse.Namespace) -> int:
    """Write the file, if one was asked for; returns the exit status."""
    if options.json is not None:
        try:
            document.write(results, options.json)
        except OSError as error:
            print(f"{options.parser.prog}: error: {options.json}: {error}", file=sys.stderr)
            return 1
    return 0


# Options that say nothing of how layers are synchronized, and what they are by default.
_NOT_WITH_SYNC = {
    "dtype": None,
    "backend": "auto",
    "threads": None,
    "only": None,
    "list": False,
    "compile": None,
    "models": False,
}
_NOT_WITH_MODELS = {"device": "cpu", "dtype": None, "backend": "auto"}


def _refuse(options: argparse.Namespace, among: dict[str, Any], chosen: str) -> None:
    """End the program if an option was given that has no meaning with the chosen one."""
    for name, default in among.items():
        if getattr(options, name) != default:
            options.parser.error(f"--{name} has no meaning with {chosen}")


def _run_models(options: argparse.Namespace) -> int:
    """Run ``bench --models``; returns the exit status."""
    _refuse(options, _NOT_WITH_MODELS, "--models")
    try:
        compiled = False if options.list else _check(options)[0]
        cases = models.suite(options.quick, compiled)
        if options.only is not None:
            cases = [case for case in cases if options.only.search(case.name)]
        _check_chosen(cases, options)
    except _Mistake as error:
        options.parser.error(str(error))
    if options.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    seconds = options.seconds_per_case
    asked = models.request(cases, options.quick, seconds, options.threads)
    return _finish(models.run(asked), options)


def _run_sync(options: argparse.Namespace) -> int:
    """Run ``bench --sync``; returns the exit status."""
    _refuse(options, _NOT_WITH_SYNC, "--sync")
    try:
        _check_progress_bar()
        _check_json(options.json)
        request = sync.request(options.device, options.quick, options.seconds_per_case)
    except (_Mistake, sync.Failed) as error:
        options.parser.error(str(error))
    try:
        results = sync.run(request)
    except sync.Failed as error:
        print(f"{options.parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return _write(results, options)


def _cases(options: argparse.Namespace) -> list[Case]:
    default = ("float32",) if options.device == "cpu" else ("bfloat16", "float32")
    dtypes = default if options.dtype is None else (options.dtype,)
    cases = suite(options.device, dtypes, options.quick)
    if options.backend != "auto":
        # The layers choose for themselves.
        cases = [case for case in cases if not case.module]
    if options.only is not None:
        cases = [case for case in cases if options.only.search(case.path)]
    _check_chosen(cases, options)
    return cases


def _check_chosen(cases: Sequence[Any], options: argparse.Namespace) -> None:
    if not cases:
        raise _Mistake(f"--only {options.only.pattern}: no case matches; --list lists them")


def _check(options: argparse.Namespace) -> tuple[bool, str | None]:
    """Find out before the measuring what would fail; whether to compile, and why not."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise _Mistake("--device cuda: no CUDA device is available")
    _check_progress_bar()
    _check_json(options.json)
    if options.backend != "auto":
        _try_backend(options.backend, options.device)
    wanted = options.compile
    if wanted is False or (wanted is None and options.quick):
        return False, "--quick" if wanted is None else "--no-compile"
    note = operations.cannot_compile(options.device)
    if note is not None and wanted:
        raise _Mistake(f"--compile: {note}")
    return note is None, note


def _check_progress_bar() -> None:
    try:
        import tqdm  # noqa: F401
    except ImportError as error:
        raise _Mistake(
            "tqdm, which draws the progress bar, is missing: pip install tqdm"
        ) from error


def _check_json(path: Path | None) -> None:
    if path is not None:
        try:
            document.check_writable(path)
        except OSError as error:
            raise _Mistake(f"--json {error}") from error


def _try_backend(backend: str, device: str) -> None:
    try:
        functional.batch_norm(
            torch.ones(2, 1, device=device), None, None, training=True, backend=backend
        )
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise _Mistake(f"--backend {backend}: {error}") from error
