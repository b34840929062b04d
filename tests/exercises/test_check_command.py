"""``python -m companion check`` and ``progress``."""

import json
import subprocess
import sys

import nbformat
import pytest

from companion.__main__ import main
from companion.exercises import check, progress
from companion.exercises.catalogue import EXERCISES

RIGHT = """
import numpy as np
from companion.exercises import check

def bn_forward(x, gamma, beta, eps):
    shape = (1, -1, *[1] * (x.ndim - 2))
    axes = tuple({*range(x.ndim)} - {1})
    centred = x - x.mean(axes, keepdims=True)
    s = np.sqrt((centred**2).mean(axes, keepdims=True) + eps)
    return gamma.reshape(shape) * centred / s + beta.reshape(shape)

check("bn-forward", bn_forward)
"""


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "solved.json"
    monkeypatch.setenv(progress.VARIABLE, str(path))
    return path


def written(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_right_file_is_right_and_kept(tmp_path, capsys, kept):
    assert main(["check", written(tmp_path, RIGHT)]) == 0
    count = len(list(EXERCISES["bn-forward"].cases()))
    assert capsys.readouterr().out.splitlines() == [
        f"✓ bn-forward: right, {count} checks of {count}",
        "1 of 1 right",
    ]
    assert json.loads(kept.read_text()) == ["bn-forward"]


def test_a_notebook_is_checked_without_running_what_is_no_definition(tmp_path, capsys):
    cells = [
        nbformat.v4.new_markdown_cell("text"),
        nbformat.v4.new_code_cell("%pip install nothing\nimport numpy as np\nimport not_there"),
        nbformat.v4.new_code_cell("raise SystemExit"),
        nbformat.v4.new_code_cell(RIGHT),
    ]
    path = tmp_path / "mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert main(["check", str(path), "--only", "bn-forward"]) == 0
    assert "✓ bn-forward" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("def helper(a, b=images):\n    return a", ""),
        ("def helper(a:\n    return a", ""),
        ("def bn_forward(x, gamma, beta, eps=epsilon):\n    ...", "NameError: name 'epsilon'"),
        ("%time\ndef bn_forward(x:\n    ...", "its cell does not run: line 2: "),
    ],
)
def test_a_cell_that_does_not_run_is_the_fault_of_its_own_exercise(tmp_path, capsys, cell, words):
    sources = [cell] if words else [RIGHT, cell]
    path = tmp_path / "mine.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert main(["check", str(path)]) == (1 if words else 0)
    assert (words or "✓ bn-forward") in capsys.readouterr().out


@pytest.mark.parametrize("why", ["", "right"])
def test_a_notebook_cannot_say_itself_that_it_is_right(tmp_path, capsys, why):
    said = json.dumps({"names": [], "failed": {"bn_forward": why}}) + "\n"
    forge = f"""
import os

class Forged:
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, {said.encode()!r})
        except OSError:
            pass
"""
    path = tmp_path / "mine.ipynb"
    cells = [nbformat.v4.new_code_cell(forge)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert main(["check", str(path), "--only", "bn-forward"]) == 1
    assert "✗ bn-forward: not right yet" in capsys.readouterr().out


def test_a_wrong_file_is_told_what_is_wrong_and_not_kept(tmp_path, capsys, kept):
    wrong = RIGHT.replace("gamma.reshape(shape) * ", "")
    assert main(["check", written(tmp_path, wrong), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["name"] == "bn-forward"
    assert report["right"] is False
    assert "γ and β" in report["report"]
    assert not kept.exists() or json.loads(kept.read_text()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], "FILE: expected a .py or .ipynb file with your answers, or --list"),
        (["check", "{folder}/none.py"], "No such file"),
        (["check", "{folder}/mine.txt"], "expected a .py or .ipynb file, got"),
        (["check", "{folder}/empty.py"], "expected a function that answers an exercise, such as"),
        (["check", "{folder}/syntax.py"], "syntax.py: line 2: "),
        (["check", "{folder}/broken.ipynb"], "expected a notebook in Jupyter's format 4"),
        (["check", "{folder}/raises.py"], "raises.py: ZeroDivisionError: division by zero, at"),
        (["check", "{folder}/empty.py", "--only", "bn-foward"], "did you mean 'bn-forward'"),
    ],
)
def test_a_mistake_is_answered_in_a_line(tmp_path, capsys, arguments, words):
    written(tmp_path, "x = 1\n", "empty.py")
    written(tmp_path, "x = 1\ndef f(:\n", "syntax.py")
    written(tmp_path, "{}", "broken.ipynb")
    written(tmp_path, "1 / 0\n", "raises.py")
    written(tmp_path, "", "mine.txt")
    assert main([each.format(folder=tmp_path) for each in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err
    assert err.count("\n") == 1


def test_an_exercise_asked_for_and_not_answered_is_not_right(tmp_path, capsys):
    assert main(["check", written(tmp_path, "x = 1\n"), "--only", "bn-forward"]) == 1
    assert "mine.py has no function bn_forward" in capsys.readouterr().out


def test_the_list_has_a_line_for_each(capsys):
    assert main(["check", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXERCISES)
    for line, each in zip(lines, EXERCISES.values(), strict=True):
        assert line.startswith(each.name)
        assert each.signature in line


def test_progress_in_a_notebook_and_in_a_terminal(capsys, kept):
    assert main(["progress"]) == 0
    assert f"0 of {len(EXERCISES)} solved; kept in {kept}" in capsys.readouterr().out
    namespace = {}
    exec(RIGHT, namespace)
    report = repr(check("bn-forward", namespace["bn_forward"]))
    assert "of this chapter solved" in report
    assert main(["progress"]) == 0
    out = capsys.readouterr().out
    assert "✓ bn-forward" in out
    assert f"1 of {len(EXERCISES)} solved" in out


def test_a_file_that_is_not_ours_is_left_alone(capsys, kept):
    kept.parent.mkdir()
    for content in ("{", '{"a": 1}'):
        kept.write_text(content)
        assert main(["progress"]) == 1
        assert "expected a list of solved exercises" in capsys.readouterr().err
        namespace = {}
        exec(RIGHT, namespace)
        report = check("bn-forward", namespace["bn_forward"])
        assert report
        assert "progress is not kept" in repr(report)
        assert kept.read_text() == content


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "companion", "check", written(tmp_path, RIGHT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 of 1 right\n")
    assert not done.stderr
