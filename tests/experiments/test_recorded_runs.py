"""Recorded runs are found in a clone and beside an installed package."""

import json
import tomllib
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from companion.experiments import recorded


def test_trials_come_in_the_order_of_their_seeds():
    run = {
        "trials": [
            {"variant": "bn", "seed": 1},
            {"variant": "plain", "seed": 0},
            {"variant": "bn", "seed": 0},
        ]
    }
    assert [trial["seed"] for trial in recorded.trials(run, "bn")] == [0, 1]
    with pytest.raises(ValueError, match="variant: expected one of bn, plain, got 'gn'"):
        recorded.trials(run, "gn")


def test_a_run_that_is_not_recorded_says_how_to_record_it():
    with pytest.raises(FileNotFoundError, match="python -m companion run no-such --out"):
        recorded.experiment("no-such")


def test_an_installed_package_finds_the_runs_that_came_with_it(tmp_path, monkeypatch):
    shared = PurePosixPath("share/batchnorm-companion/results/smoothness.json")
    there = tmp_path / "prefix" / shared
    there.parent.mkdir(parents=True)
    there.write_text(json.dumps({"seeds": [7]}), encoding="utf-8")

    def file(path):
        return SimpleNamespace(parts=path.parts, locate=lambda: tmp_path / "prefix" / path)

    files = [file(PurePosixPath("companion/__init__.py")), file(shared)]
    monkeypatch.setattr(recorded.metadata, "files", lambda _name: files)
    monkeypatch.setattr(recorded, "__file__", str(tmp_path / "site" / "a" / "b" / "recorded.py"))
    folder = recorded._folder()
    assert folder == there.parent
    assert recorded.read("smoothness", "", folder) == {"seeds": [7]}


def test_the_wheel_has_the_runs():
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    (target, patterns) = next(iter(settings["tool"]["setuptools"]["data-files"].items()))
    assert PurePosixPath(target).parts[-2:] == ("batchnorm-companion", "results")
    assert any(file.samefile(recorded.FOLDER / file.name) for file in root.glob(patterns[0]))
