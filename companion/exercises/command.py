"""The commands ``python -m companion check`` and ``python -m companion progress``."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from . import progress
from .catalogue import EXERCISES, exercise
from .isolated import Answers, LoadError
from .judging import Report, judge

# What a notebook's cells define at their outer level is its answers; the rest of them is not run.
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
OURS = "companion"
# Of a notebook's imports these are an answer's; the others are the chapter's, and take time.
WRITTEN_WITH = {"numpy", "torch", *sys.stdlib_module_names}


def add_to(commands: Any) -> None:
    """Add the commands to the subparsers of ``python -m companion``."""
    checking = commands.add_parser(
        "check",
        help="check your answers to the book's exercises",
        description="Check the functions of a Python file or a notebook that answer exercises of "
        "the book, such as bn_forward for bn-forward. They run in a process of their own, which "
        "can use NumPy and PyTorch, and are stopped when they do not end. "
        "The status is 0 if all are right, else 1.",
    )
    checking.add_argument("file", nargs="?", metavar="FILE", help="a .py or .ipynb file")
    checking.add_argument(
        "--only", action="append", metavar="NAME", help="this exercise; may be given again"
    )
    checking.add_argument("--list", action="store_true", help="a line for each exercise, and stop")
    checking.add_argument("--json", action="store_true", help="the result as JSON")
    checking.set_defaults(run=check)
    showing = commands.add_parser(
        "progress",
        help="which exercises you have solved",
        description=f"Which exercises have been solved on this computer. The environment variable "
        f"{progress.VARIABLE} names the file in which this is kept; nothing is sent.",
    )
    showing.set_defaults(run=show_progress)


def show_progress(_options: argparse.Namespace) -> int:
    """Print what is solved."""
    try:
        print("\n".join(progress.overview()))
    except (OSError, ValueError) as error:
        print(f"progress: {error}", file=sys.stderr)
        return 1
    return 0


def check(options: argparse.Namespace) -> int:
    """Check a file's answers, or list the exercises."""
    if options.list:
        for each in EXERCISES.values():
            print(f"{each.name:<24}{each.chapter:<24}{each.signature}: {each.summary}")
        return 0
    try:
        if options.file is None:
            raise ValueError("FILE: expected a .py or .ipynb file with your answers, or --list")
        reports = graded(Path(options.file), options.only)
    except (LoadError, OSError, ValueError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    try:
        progress.record([report.name for report in reports if report])
    except (OSError, ValueError) as error:
        print(f"check: progress is not kept: {error}", file=sys.stderr)
    if options.json:
        print(
            json.dumps([as_dictionary(report) for report in reports], ensure_ascii=False, indent=1)
        )
    else:
        print("\n".join(map(repr, reports)))
        print(f"{sum(map(bool, reports))} of {len(reports)} right")
    return 0 if all(reports) else 1


def as_dictionary(report: Report) -> dict[str, object]:
    return {"name": report.name, "right": bool(report), "report": repr(report)}


def graded(path: Path, only: list[str] | None = None) -> list[Report]:
    """A report for each exercise that a file answers, or for those asked for.

    Parameters
    ----------
    path
        a Python file, or a notebook
    only
        names of exercises; one that the file does not answer is not right

    Raises
    ------
    ValueError
        the file answers no exercise or is neither Python nor a notebook; a name is unknown
    OSError
        the file cannot be read
    LoadError
        its code does not run
    """
    asked = [exercise(name) for name in only] if only else list(EXERCISES.values())
    text, failed = answers_of(path)
    reports = []
    with Answers(text, path.name) as answers:
        defined = answers.load()
        failed |= answers.failed
        for each in asked:
            if each.function in defined:
                reports.append(judge(each, partial(answers.call, each.function)))
            elif each.function in failed:
                # What the process says alone could be nothing, which would be a right answer.
                why = f"its cell does not run: {failed[each.function]}"
                reports.append(Report(each.name, 0, why))
            elif only:
                reports.append(Report(each.name, 0, f"{path.name} has no function {each.function}"))
    if not reports:
        raise ValueError(
            f"{path}: expected a function that answers an exercise, such as {asked[0].function}; "
            f"it defines {', '.join(defined) or 'none'}"
        )
    return reports


def answers_of(path: Path) -> tuple[str, dict[str, str]]:
    """The Python of a file without what uses this package; of a notebook, its definitions.

    The second result has the functions of a notebook's cells that are no Python, and why not.

    Raises
    ------
    ValueError, OSError
        as :func:`graded`
    """
    if path.suffix not in (".py", ".ipynb"):
        raise ValueError(f"FILE: expected a .py or .ipynb file, got {path}")
    text = path.read_text(encoding="utf-8")
    notebook = path.suffix == ".ipynb"
    failed: dict[str, str] = {}
    try:
        if notebook:
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            text = "\n".join(python_of("".join(cell["source"]), failed) for cell in cells)
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a notebook in Jupyter's format 4: {error}") from None
    lines = text.splitlines()
    for node in tree.body:
        kept = isinstance(node, KEPT) and imported(node) <= WRITTEN_WITH
        if ours(node) or (notebook and not kept):
            for number in range(first_line(node) - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines), failed


def python_of(cell: str, failed: dict[str, str]) -> str:
    """A cell without its magics; nothing of one that is no Python, whose functions have failed."""
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines()]
    source = "\n".join(lines)
    try:
        ast.parse(source)
    except SyntaxError as error:
        why = f"line {error.lineno}: {error.msg}"
        failed |= dict.fromkeys(re.findall(r"^def (\w+)", source, re.MULTILINE), why)
        return ""
    return source


def first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def ours(node: ast.stmt) -> bool:
    """Whether a statement imports from this package, or calls `check`."""
    call = node.value if isinstance(node, ast.Expr) else None
    checks = (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check"
    )
    return checks or OURS in imported(node)


def imported(node: ast.stmt) -> set[str]:
    """The packages that a statement imports from."""
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    names = node.names if isinstance(node, ast.Import) else []
    return {each.name.partition(".")[0] for each in names}
