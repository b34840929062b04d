"""What a mark on a test does: `xdist_group` keeps tests in one process, `slow` needs a reason."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent

# They share what took long to make: in two processes, it would be made twice.
GROUP = """
import os
from pathlib import Path

import pytest


@pytest.mark.xdist_group("group")
@pytest.mark.parametrize("number", range(6))
def test_which_process(number):
    with Path("processes").open("a") as processes:
        processes.write(f"{os.getpid()}\\n")
"""
SLOW = """
import pytest


@pytest.mark.slow(GIVEN)
def test_slow():
    pass


def test_quick():
    pass
"""


def test_a_group_runs_in_one_process(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("")
    pytester.makepyfile(GROUP)
    done = pytester.runpytest_subprocess("-p", "xdist", "-n", "2", "--dist", "loadgroup")
    done.assert_outcomes(passed=6)
    processes = (pytester.path / "processes").read_text(encoding="utf-8").split()
    assert len(processes) == 6
    assert len(set(processes)) == 1, "the groups that tests are marked with are ignored"


@pytest.fixture
def run(pytester):
    """Run a slow test, marked with what is given, and a quick one, as this project's are run."""
    pytester.makepyprojecttoml((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    pytester.makeconftest((TESTS / "conftest.py").read_text(encoding="utf-8"))

    def run(given, *arguments):
        pytester.makepyfile(SLOW.replace("GIVEN", given))
        return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)

    return run


@pytest.mark.parametrize("given", ["", 'reason=" "', '"it is slow"', 'reason="slow", why="?"'])
def test_a_slow_test_without_a_reason_fails_the_run(run, given):
    done = run(given)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines('*::test_slow: write @pytest.mark.slow(reason="...")')


def test_slow_tests_run_when_asked_for(run):
    given = 'reason="a thousand steps"'
    run(given).assert_outcomes(passed=1, deselected=1)
    run(given, "-m", "").assert_outcomes(passed=2)
