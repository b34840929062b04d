"""What GitHub runs can be run anywhere, and tests what the package declares."""

import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def jobs(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def commands(path):
    return [
        step["run"] for job in jobs(path).values() for step in job.get("steps", ()) if "run" in step
    ]


def runs_anywhere(command):
    """Whether `command` is a target of the Makefile, or a script in `.ci`."""
    program, *words = shlex.split(command)
    if program == "make":
        return all("=" in word or word in TARGETS for word in words)
    return program.startswith(".ci/") and os.access(ROOT / program, os.X_OK)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_step_can_be_run_here(path):
    assert [line for line in commands(path) if "\n" in line or not runs_anywhere(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_ends(path):
    """But those that call another workflow, whose jobs have their own limits."""
    assert [
        name for name, job in jobs(path).items() if not {"timeout-minutes", "uses"} & set(job)
    ] == []


def test_every_script_is_called():
    called = {shlex.split(line)[0] for path in WORKFLOWS for line in commands(path)}
    assert {f".ci/{path.name}" for path in (ROOT / ".ci").iterdir()} - called == {".ci/run"}


def test_every_declared_python_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [name.rpartition(" ")[2] for name in project["classifiers"] if ":: 3." in name]
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == declared


def test_a_cache_knows_all_that_cells_read():
    """What tools/execution_cache.py makes its key of."""
    keys = [
        step["with"]["key"]
        for path in WORKFLOWS
        for job in jobs(path).values()
        for step in job.get("steps", ())
        if step.get("uses", "").startswith("actions/cache@")
    ]
    assert keys
    for key in keys:
        for source in ("companion/**", "book/results/*.json", "requirements.lock"):
            assert source in key
