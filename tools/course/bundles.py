"""What a teacher grades with: a zip for Gradescope and an assignment for nbgrader, per chapter."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from tools.course.exercises import CHECK, solutions, tasks
from tools.notebooks import SOLUTIONS, TWINS
from tools.publication import ROOT

HERE = Path(__file__).parent
PINNED = ("numpy", "torch")  # what answers are written with
POINTS = 1  # of each exercise
# Where a cell of text is cut, so that the answer to an exercise in words has its place.
CUT = re.compile(r"^(?=> \*\*Exercise |## )", re.MULTILINE)
NUMBER = re.compile(r"> \*\*(Exercise [\d.]+)\*\*")
SOLUTION = re.compile(r"<summary>Solution to (.*?)</summary>\n\n(.*?)\n\n</details>", re.DOTALL)


def requirements() -> str:
    """The locked versions of what answers are written with."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = [re.search(rf"^{name}==\S+", lock, re.MULTILINE) for name in PINNED]
    return "".join(f"{line[0]}\n" for line in lines if line)


def assignment(chapter: str) -> dict[str, object]:
    """What Gradescope's grader asks of a submission."""
    exercises = [
        {"name": task.checker.name, "title": task.heading, "points": POINTS}
        for task in tasks(chapter)
        if task.checker
    ]
    return {"chapter": chapter, "exercises": exercises}


def write_gradescope(chapter: str, wheel: Path, folder: Path) -> None:
    """Write the autograder of a chapter, a zip in Gradescope's form.

    Its scripts are marked as programs, for whoever unpacks it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "assignment.json": json.dumps(assignment(chapter), ensure_ascii=False, indent=1),
        "requirements.txt": requirements(),
    }
    with ZipFile(folder / f"{chapter}.zip", "w", ZIP_DEFLATED) as archive:
        for path in [wheel, *sorted((HERE / "gradescope").glob("*[!c]"))]:
            archive.write(path, path.name)
        for name, text in texts.items():
            archive.writestr(name, text)


def marked(grade_id: str, cell: NotebookNode, **options: object) -> NotebookNode:
    """A cell with nbgrader's metadata."""
    cell.metadata.nbgrader = {
        "schema_version": 3,
        "grade_id": grade_id,
        "cell_type": cell.cell_type,
        "grade": False,
        "solution": False,
        "locked": False,
        "task": False,
        **options,
    }
    return cell


def in_words(chapter: str) -> dict[str, str]:
    """The answers to the exercises that no check grades, by the exercise's number."""
    solved = nbformat.read(SOLUTIONS / f"{chapter}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in solved.cells if cell.cell_type == "markdown")
    found = dict(SOLUTION.findall(text))
    elsewhere = "It is in the notebook with the solutions."
    numbers = [task.number for task in tasks(chapter) if not task.checker]
    return {number: found.get(number, elsewhere) for number in numbers}


def with_answers(chapter: str) -> Iterator[NotebookNode]:
    """The cells of a chapter's notebook as nbgrader's source: marked, with the solutions."""
    answers, code = in_words(chapter), solutions(chapter)
    stub = None
    for cell in nbformat.read(TWINS / f"{chapter}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            for count, part in enumerate(CUT.split(cell.source)):
                yield new_markdown_cell(part.strip(), id=f"{cell.id}-{count}" if count else cell.id)
                number = NUMBER.match(part)
                if number and number[1] in answers:
                    name = re.sub(r"\W", "-", number[1]).lower()
                    answer = new_markdown_cell(answers[number[1]], id=f"{cell.id}-{name}")
                    yield marked(name, answer, grade=True, solution=True, points=POINTS)
            continue
        if check := CHECK.match(cell.source):
            name = check["name"]
            if stub:
                region = f"### BEGIN SOLUTION\n{code[name]}\n### END SOLUTION"
                stub.source = f"{stub.source}\n\n\n{region}"
                marked(f"{name}-answer", stub, solution=True)
            marked(name, cell, grade=True, locked=True, points=POINTS)
        stub = cell if "exercise" in cell.metadata.get("tags", []) and not check else None
        yield cell


def write_nbgrader(chapters: list[str], wheel: Path, folder: Path) -> None:
    """Write a course for nbgrader: its settings, source notebooks, and what it releases.

    Raises
    ------
    RuntimeError
        nbgrader could not make a release of an assignment; with what it said
    """
    shutil.copytree(HERE / "nbgrader", folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(wheel, folder)
    # nbgrader looks for its database's program in the path.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    for chapter in chapters:
        notebook = nbformat.read(TWINS / f"{chapter}.ipynb", as_version=4)
        notebook.cells = list(with_answers(chapter))
        source = folder / "source" / chapter
        source.mkdir(parents=True)
        nbformat.write(notebook, source / f"{chapter}.ipynb")
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", chapter]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"nbgrader made no release of {chapter}: {done.stderr.strip()}")
