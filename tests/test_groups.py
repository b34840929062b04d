"""Tests that share what took long to make run in one process: in two, it would be made twice."""

import subprocess
import sys

TESTS = """
import os
from pathlib import Path

import pytest


@pytest.mark.xdist_group("group")
@pytest.mark.parametrize("number", range(6))
def test_which_process(number):
    with Path("processes").open("a") as processes:
        processes.write(f"{os.getpid()}\\n")
"""


def test_a_group_runs_in_one_process(tmp_path):
    (tmp_path / "test_group.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    processes = (tmp_path / "processes").read_text(encoding="utf-8").split()
    assert len(processes) == 6
    assert len(set(processes)) == 1, "the groups that tests are marked with are ignored"
