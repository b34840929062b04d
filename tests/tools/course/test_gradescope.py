"""Gradescope's bundle, unpacked in a clean folder as Gradescope does it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile

import psutil
import pytest
from _submissions import CHAPTER, LEAVES, NAMES, NUMBER, OTHERS, READS, STAYS, read, written, wrong

from companion.exercises.catalogue import EXERCISES

pytestmark = pytest.mark.xdist_group("course")
SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture
def autograder(kit, tmp_path):
    """A folder such as Gradescope's /autograder, and the package of the bundle's wheel."""
    root = tmp_path / "autograder"
    for name in ("source", "submission", "results"):
        (root / name).mkdir(parents=True)
    shutil.unpack_archive(kit / "gradescope" / f"{CHAPTER}.zip", root / "source")
    (wheel,) = (root / "source").glob("*.whl")
    shutil.unpack_archive(wheel, root / "package", "zip")
    return root


def grade(root, python=sys.executable, **environment):
    """Run the autograder; its results, checked for what Gradescope asks of them."""
    variables = {"AUTOGRADER": str(root), "PYTHON": str(python), "PATH": os.environ["PATH"]}
    variables |= {"PYTHONPATH": str(root / "package"), **environment}
    shutil.copy(root / "source" / "run_autograder", root)  # as Gradescope does
    done = subprocess.run(
        ["bash", str(root / "run_autograder")],
        env=variables,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((root / "results" / "results.json").read_text(encoding="utf-8"))
    assert len(results["tests"]) == len(NAMES)
    for test in results["tests"]:
        assert set(test) == {"name", "score", "max_score", "status", "output"}
        assert (test["score"], test["status"]) in [(0, "failed"), (test["max_score"], "passed")]
    return results


def passed(results):
    """The names of the exercises that got their points."""
    scores = dict(zip(NAMES, results["tests"], strict=True))
    return {name for name, test in scores.items() if test["score"]}


def output(results, name="bn-forward"):
    return results["tests"][NAMES.index(name)]["output"]


def submit(kit, root, last=None, name=f"{CHAPTER}.ipynb"):
    notebook = read(kit / "solutions" / f"{CHAPTER}.ipynb")
    return written(notebook, root / "submission" / name, last)


def test_the_bundle_is_what_gradescope_asks_for(kit, autograder):
    names = {path.name for path in (autograder / "source").iterdir()}
    assert {"setup.sh", "run_autograder", "grade.py", "assignment.json"} <= names
    with ZipFile(kit / "gradescope" / f"{CHAPTER}.zip") as bundle:
        for program in ("setup.sh", "run_autograder"):
            assert bundle.getinfo(program).external_attr >> 16 & 0o111
    assignment = json.loads((autograder / "source" / "assignment.json").read_text())
    assert [each["name"] for each in assignment["exercises"]] == NAMES
    # No solution is in it.
    texts = [path.read_bytes() for path in (autograder / "package").rglob("*.py")]
    assert not [text for text in texts if b"def bn_forward(" in text]


def test_the_solutions_get_all_points(kit, autograder):
    submit(kit, autograder)
    assert passed(grade(autograder)) == set(NAMES)


def test_a_wrong_answer_takes_the_points_of_its_own_exercise_and_says_why(kit, autograder):
    submit(kit, autograder, wrong(), name="homework 3.ipynb")
    results = grade(autograder)
    assert passed(results) == OTHERS
    assert "tried" in output(results)
    assert "expected" in output(results)


def test_what_looks_for_the_answer_elsewhere_finds_none_and_breaks_nothing(kit, autograder):
    places = {
        "PACKAGE": autograder / "package" / "companion",
        "BUNDLE": autograder,
        "RESULTS": autograder / "results" / "results.json",
    }
    attack = READS
    for name, place in places.items():
        attack = attack.replace(name, repr(str(place)))
    submit(kit, autograder, attack)
    assert passed(grade(autograder)) == OTHERS


def test_what_does_not_end_is_stopped_and_leaves_nothing_behind(kit, autograder):
    submit(kit, autograder, STAYS)
    mark, start = uuid4().hex, time.monotonic()
    results = grade(autograder, MARK=mark)
    assert time.monotonic() - start < 120
    assert passed(results) == OTHERS
    assert "stopped after 2 seconds" in output(results)
    left = [
        each for each in psutil.process_iter(["environ"]) if mark in str(each.info["environ"] or "")
    ]
    assert not left


@pytest.mark.slow(reason="each grades a submission; a process that ends by itself is a hard case")
@pytest.mark.parametrize(
    ("last", "words"),
    [
        (LEAVES, "ended its process"),
        ("def bn_forward(x, gamma, beta, eps):\n    return (", "its cell does not run: line 2"),
        ("def bn_forward(x, gamma, beta, eps): raise SystemExit(0)", "SystemExit"),
        ("def bn_forward(x, gamma, beta, eps): return x.tolist()", "expected an array"),
    ],
)
def test_other_ways_to_be_wrong(kit, autograder, last, words):
    submit(kit, autograder, last)
    results = grade(autograder)
    assert passed(results) == OTHERS
    assert words in output(results)


FAKE = """
import json, os, sys, time
reports = [{"name": name, "right": True, "report": str(os.getuid())} for name in sys.argv[5::2]]
"""


@pytest.fixture
def fake(autograder):
    """Replace the package by one whose check says what it is told to."""

    def replace(then):
        shutil.rmtree(autograder / "package")
        (autograder / "package" / "companion").mkdir(parents=True)
        main = autograder / "package" / "companion" / "__main__.py"
        main.write_text(FAKE + then, encoding="utf-8")

    return replace


@pytest.mark.parametrize(
    ("files", "then", "words"),
    [
        ([], "", "expected mini-batch-algorithm.ipynb, or one .ipynb or .py file; got none"),
        (["a.py", "b.py"], "", "got a.py, b.py"),
        (["a.py", "._a.py"], "print('check: it is', file=sys.stderr); sys.exit(2)", "it is"),
        (["a.py"], "sys.exit(2)", "it ended the check"),
        (["a.py"], "print('not JSON')", "Expecting value"),
        (["a.py"], "print([1])", "not subscriptable"),
        (["a.py"], "time.sleep(600)", "stopped after 2 seconds"),
    ],
)
def test_whatever_happens_there_is_a_result(autograder, fake, files, then, words):
    fake(then)
    for name in files:
        (autograder / "submission" / name).write_text("x = 1\n", encoding="utf-8")
    results = grade(autograder, AUTOGRADER_SECONDS="2")
    assert passed(results) == set()
    assert words in output(results)


@pytest.mark.skipif(
    os.geteuid() != 0 or not SYSTEM_PYTHON.exists(), reason="only root can become another user"
)
def test_a_submission_runs_as_the_student(autograder, fake):
    fake("print(json.dumps(reports))")
    (autograder / "submission" / "a.py").write_text("x = 1\n", encoding="utf-8")
    for folder in [autograder, *autograder.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    results = grade(autograder, python=SYSTEM_PYTHON, AUTOGRADER_USER="nobody")
    assert passed(results) == set(NAMES)
    assert output(results) == "65534"


def test_the_image_is_set_up_from_the_lock_and_the_wheel(autograder, tmp_path):
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    for name in ("apt-get", "python3", "uv", "useradd", "chmod"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{log}"\n')
        program.chmod(0o755)
    subprocess.run(
        ["bash", str(autograder / "source" / "setup.sh")],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        check=True,
    )
    lines = log.read_text().splitlines()
    (install,) = [line for line in lines if "uv pip install" in line]
    (wheel,) = (autograder / "source").glob("*.whl")
    assert install.endswith(f"--requirements requirements.txt ./{wheel.name}")
    requirements = (autograder / "source" / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in requirements] == ["numpy", "torch"]
    assert "useradd --no-create-home student" in lines


def test_the_exercises_have_the_names_that_the_book_gives_them(autograder):
    assignment = json.loads((autograder / "source" / "assignment.json").read_text())
    titles = {each["name"]: each["title"] for each in assignment["exercises"]}
    assert titles["bn-forward"] == f"Exercise {NUMBER}.1 (Algorithm 1)"
    assert set(titles) <= set(EXERCISES)
