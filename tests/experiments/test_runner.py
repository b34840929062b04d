"""Runs that are killed for real and taken up again, and the files they leave."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from companion.experiments import results, runner
from companion.experiments.catalogue import EXPERIMENTS
from companion.experiments.figure_1 import Config
from companion.experiments.tasks import Computation, Record

ROOT = Path(__file__).parents[2]
FIGURE_1 = EXPERIMENTS["figure-1"]
TINY = Config(dataset="digits", hidden=(6, 6), steps=60, look_every=20)
CPU = torch.device("cpu")


def run(folder, config=TINY, seeds=(0, 1), **options):
    return runner.run(FIGURE_1, config, seeds, CPU, folder, progress=False, **options)


def findings(folder):
    """What must not depend on interruptions: all but times and dates."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for trial in result["trials"]:
        del trial["seconds"]
    arrays = np.load(folder / "arrays.npz")
    kept = {key: result[key] for key in ("config", "seeds", "trials", "conclusion")}
    return kept, {name: arrays[name].tobytes() for name in arrays.files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def test_a_run_leaves_its_result_and_arrays_alone(undisturbed):
    assert {path.name for path in undisturbed.iterdir()} == {"result.json", "arrays.npz"}
    result = results.load(undisturbed / "result.json")
    assert [(t["variant"], t["seed"]) for t in result["trials"]] == [
        ("plain", 0),
        ("plain", 1),
        ("bn", 0),
        ("bn", 1),
    ]
    assert result["config"] == json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert result["trials"][0]["curves"]["step"] == [0, 20, 40, 60]
    assert len(result["conclusion"]["widening_ratio"]) == 2
    assert result["versions"]["torch"] == torch.__version__
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", result["date"])
    assert np.load(undisturbed / "arrays.npz")["bn/1/accuracy"].shape == (4,)


def test_a_run_does_not_depend_on_what_was_drawn_before(undisturbed, tmp_path):
    torch.manual_seed(99)
    run(tmp_path)
    assert findings(tmp_path) == findings(undisturbed)


KILLING = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from test_runner import CPU, run, torch
from companion.experiments.inputs import rows
torch.set_num_threads({threads})
rows("digits", CPU, binary=True)
checkpoint, chance = Path({folder!r}) / "checkpoint.pt", random.Random(0)

def written():
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

# Forks start fast. Nothing is computed before them, for threads do not survive a fork.
killed, over = 0, False
while killed < 10 and not over:
    before = written()
    child = os.fork()
    if child == 0:
        run(checkpoint.parent, resume=before > 0, save_every=0.0)
        os._exit(0)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and written() == before:
        time.sleep(0.001)
    if ended == (0, 0):
        time.sleep(chance.uniform(0.0, {seconds}))
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    # On a machine that is quicker now than before, it is over before it was killed ten times.
    over = not os.WIFSIGNALED(ended[1])
    killed += not over
assert killed > 0
run(checkpoint.parent, resume=True)
"""


@pytest.mark.slow(reason="kills ten processes; the next test breaks a run off in this one")
def test_a_run_killed_again_and_again_ends_with_the_same_bits(undisturbed, tmp_path):
    seconds = results.load(undisturbed / "result.json")["seconds"]
    script = KILLING.format(
        here=str(Path(__file__).parent),
        threads=torch.get_num_threads(),
        folder=str(tmp_path),
        seconds=seconds / 20,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert findings(tmp_path) == findings(undisturbed)


@pytest.mark.parametrize("at", [1, 61, 119, 240])
def test_a_run_broken_off_at_a_step_ends_with_the_same_bits(undisturbed, tmp_path, monkeypatch, at):
    steps = 0
    original = runner._replace

    def breaking(path, state):
        nonlocal steps
        original(path, state)
        steps += 1
        if steps == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_replace", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, save_every=0.0)
    monkeypatch.undo()
    torch.manual_seed(99)
    run(tmp_path, resume=True)
    assert findings(tmp_path) == findings(undisturbed)


class Drawing:
    """A task whose every step is a random number."""

    steps = 6

    def __init__(self):
        self.values = []

    @property
    def step(self):
        return len(self.values)

    def advance(self):
        self.values.append(torch.rand(()).item())

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]

    def status(self):
        return ""

    def record(self):
        return Record({}, {"value": self.values})


def test_random_numbers_go_on_where_they_were(tmp_path, monkeypatch):
    drawing = dataclasses.replace(
        FIGURE_1,
        variants=lambda _: ("only",),
        start=lambda *_: Drawing(),
        conclude=lambda *_: {},
    )
    original = runner._replace

    def breaking(path, state):
        original(path, state)
        if state["task"] is not None and len(state["task"]["values"]) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_replace", breaking)
    options = {"progress": False, "save_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        runner.run(drawing, TINY, (5,), CPU, tmp_path, **options)
    monkeypatch.undo()
    torch.manual_seed(99)
    result = runner.run(drawing, TINY, (5,), CPU, tmp_path, resume=True, **options)
    torch.manual_seed(5)
    assert result["trials"][0]["curves"]["value"] == [torch.rand(()).item() for _ in range(6)]


def test_a_failure_while_writing_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    runner._replace(path, {"step": 1})

    def failing(_state, file):
        file.write(b"half")
        raise OSError("no space")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="no space"):
        runner._replace(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_folder_with_a_run_is_not_written_over(undisturbed, tmp_path):
    with pytest.raises(runner.CannotRun, match="holds a run already: resume it, or choose another"):
        run(undisturbed)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(runner.CannotRun, match="holds a run already"):
        run(tmp_path)


def test_a_finished_run_is_left_as_it_is(undisturbed):
    before = (undisturbed / "result.json").read_bytes()
    result = run(undisturbed, resume=True)
    assert result == json.loads(before)
    assert (undisturbed / "result.json").read_bytes() == before


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(runner.CannotRun, match="holds no run to resume"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": dataclasses.replace(TINY, learning_rate=0.2)}, "config"),
        ({"seeds": (0,)}, "seeds"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, monkeypatch, change, named):
    monkeypatch.setattr(results, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    with pytest.raises(runner.CannotRun, match=f"the run to resume has another {named}: "):
        run(tmp_path, resume=True, **change)


def test_curves_are_thinned_to_their_ends_and_infinities_are_null(tmp_path):
    values = [float(step) for step in range(1000)]
    losses = [math.inf, *values[1:]]
    one = dataclasses.replace(
        FIGURE_1,
        variants=lambda _: ("only",),
        start=lambda *_: Computation(
            lambda: Record({"never": None}, {"step": values, "loss": losses})
        ),
        conclude=lambda _, trials: {"count": len(trials)},
    )
    result = runner.run(one, TINY, (0,), CPU, tmp_path, progress=False)
    curves = result["trials"][0]["curves"]
    assert 0.8 * results.POINTS < len(curves["step"]) <= results.POINTS
    assert curves["step"] == sorted(set(curves["step"]))
    assert sum(step < 100 for step in curves["step"]) > results.POINTS / 4, "early ones are denser"
    assert curves["step"][0] == 0
    assert curves["step"][-1] == 999
    assert curves["loss"][0] is None
    assert result["trials"][0]["scalars"] == {"never": None}
    written = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert written["conclusion"] == {"count": 1}
    assert np.load(tmp_path / "arrays.npz")["only/0/loss"].tolist() == losses


def test_a_file_that_is_no_result_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"schema": 2}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"path: expected an experiment's result of schema 1"):
        results.load(path)


def test_a_progress_bar_names_the_trial(tmp_path, capsys):
    runner.run(FIGURE_1, TINY, (3,), CPU, tmp_path)
    drawn = capsys.readouterr().err
    assert "plain, seed 3 (1 of 2)" in drawn
    assert "60/60" in drawn
