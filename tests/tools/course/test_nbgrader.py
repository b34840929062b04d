"""The course for nbgrader: what it releases, and what nbgrader itself makes of submissions."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from _submissions import ATTACKED, CHAPTER, NAMES, NUMBER, OTHERS, READS, read, written, wrong
from nbformat.v4 import new_output

pytestmark = pytest.mark.xdist_group("course")


def nbgrader(folder, *arguments):
    scripts = sysconfig.get_path("scripts")
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def cells(notebook):
    """The cells that nbgrader knows, by their name."""
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {cell.metadata.nbgrader.grade_id: cell for cell in marked}


def test_a_release_is_a_source_without_solutions(kit):
    source, release = (
        read(kit / "nbgrader" / folder / CHAPTER / f"{CHAPTER}.ipynb")
        for folder in ("source", "release")
    )
    assert list(cells(source)) == list(cells(release))
    for name in NAMES:
        answer, check = cells(release)[f"{name}-answer"], cells(release)[name]
        assert "### BEGIN SOLUTION" in cells(source)[f"{name}-answer"].source
        assert answer.source.endswith("...\n\n\n# Complete the function above.")
        assert not answer.metadata.nbgrader.locked
        assert check.source.startswith(f'check("{name}", ')
        assert check.metadata.nbgrader.locked
        assert check.metadata.nbgrader.points == 1
    in_words = [cell for cell in cells(release).values() if cell.cell_type == "markdown"]
    assert in_words
    assert {cell.source for cell in in_words} == {"YOUR ANSWER HERE"}
    solved = [cells(source)[cell.metadata.nbgrader.grade_id].source for cell in in_words]
    assert len(solved[-1]) > 100
    numbers = [cell.metadata.nbgrader.grade_id for cell in in_words]
    assert all(name.startswith(f"exercise-{NUMBER}-") for name in numbers)


# About 20 s: nbgrader starts three times, and each notebook is graded in a process of its own.
def test_nbgrader_gives_each_submission_what_it_deserves(kit, tmp_path):
    course = tmp_path / "course"
    shutil.copytree(kit / "nbgrader", course)

    def submission(kind, answer=None):
        notebook = read(course / kind / CHAPTER / f"{CHAPTER}.ipynb")
        if answer:
            cells(notebook)[f"{ATTACKED}-answer"].source = answer
        return notebook

    forged = submission("source", READS)
    check = cells(forged)[ATTACKED]
    check.source = "1.0"
    check.outputs = [new_output("execute_result", {"text/plain": "1.0"}, execution_count=1)]
    check.metadata.nbgrader.points = 100
    partly = submission("source", wrong())
    partly.cells = [cell for cell in partly.cells if not cell.source.startswith("check(")]
    expected = {
        "right": (submission("source"), NAMES),
        "partly": (partly, OTHERS),
        "blank": (submission("release"), []),
        "forged": (forged, OTHERS),
    }
    for student, (notebook, _) in expected.items():
        written(notebook, course / "submitted" / student / CHAPTER / f"{CHAPTER}.ipynb")
    nbgrader(course, "autograde", CHAPTER)
    nbgrader(course, "export")
    with (course / "grades.csv").open(newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    scores = {student: float(row["raw_score"]) for student, row in rows.items()}
    assert scores == {student: len(right) for student, (_, right) in expected.items()}
    graded = {
        student: cells(read(course / "autograded" / student / CHAPTER / f"{CHAPTER}.ipynb"))
        for student in expected
    }
    assert float(rows["right"]["max_score"]) == len(graded["right"]) - len(NAMES)
    said = graded["partly"][ATTACKED].outputs[0]
    assert said.output_type == "error"
    assert "tried" in "\n".join(said.traceback)
    nbgrader(course, "generate_feedback", CHAPTER)
    feedback = course / "feedback" / "partly" / CHAPTER / f"{CHAPTER}.html"
    assert "not right yet" in feedback.read_text(encoding="utf-8")
