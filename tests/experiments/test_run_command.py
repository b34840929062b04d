"""``python -m companion run`` as a user runs it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from companion.__main__ import main
from companion.experiments.catalogue import EXPERIMENTS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "companion", "run"]
SHORT = ["figure-1", "--quick", "--steps", "40"]
LONG = ["figure-1", "--quick", "--steps", "100000"]


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["run", *arguments])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_run_prints_its_conclusion_and_where_it_is(capsys, tmp_path):
    assert main(["run", *SHORT, "--seeds", "2,5", "--out", str(tmp_path / "new" / "folder")]) == 0
    printed = capsys.readouterr().out
    assert "Ioffe & Szegedy (2015)" in printed
    assert "times_sooner_at_threshold: none, none" in printed
    assert str(tmp_path / "new" / "folder" / "result.json") in printed
    result = json.loads((tmp_path / "new" / "folder" / "result.json").read_text(encoding="utf-8"))
    assert result["seeds"] == [2, 5]
    assert result["config"]["steps"] == 40
    assert result["config"]["dataset"] == "digits"


def test_the_results_go_to_a_folder_of_the_experiments_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SHORT]) == 0
    assert (tmp_path / "runs" / "figure-1" / "result.json").exists()
    assert "runs/figure-1/result.json" in capsys.readouterr().out


def test_a_finished_run_can_be_resumed(capsys, tmp_path):
    arguments = ["run", *SHORT, "--out", str(tmp_path)]
    assert main(arguments) == 0
    capsys.readouterr()
    assert "holds a run already" in refused(capsys, *arguments[1:])
    assert main([*arguments, "--resume"]) == 0


def test_the_list_names_every_experiment_and_its_source(capsys):
    assert main(["run", "--list"]) == 0
    printed = capsys.readouterr().out
    for experiment in EXPERIMENTS.values():
        assert experiment.name in printed
        assert experiment.source in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no NAME was given; the experiments are figure-1"),
        (["figure-9"], "there is no 'figure-9'; the experiments are figure-1"),
        (["figure-1", "--seeds", "0"], "expected a positive number"),
        (["figure-1", "--seeds", "1,1"], "different numbers with commas, got '1,1'"),
        (["figure-1", "--seeds", "a"], "got 'a'"),
        (["figure-1", "--steps", "0"], "--steps: expected a positive integer, got 0"),
        (["figure-1", "--save-every", "-1"], "--save-every: expected a number of seconds, got -1"),
    ],
)
def test_a_mistake_is_answered_with_one_line(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_resuming_nothing_is_a_mistake(capsys, tmp_path):
    assert "holds no run to resume" in refused(capsys, *SHORT, "--out", str(tmp_path), "--resume")


def test_cuda_is_refused_where_there_is_none(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device is available" in refused(capsys, "figure-1", "--device", "cuda")


def test_missing_data_is_said_without_a_traceback(tmp_path, capsys, monkeypatch):
    from companion.data import images, remote

    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)
    nowhere = tuple(
        remote.RemoteFile(file.path, ("http://127.0.0.1:9/x",), file.checksum, file.of_content)
        for file in images.MNIST
    )
    monkeypatch.setattr(images, "MNIST", nowhere)
    assert main(["run", "figure-1", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz could not be downloaded" in said
    assert "COMPANION_DATA" in said


def start(*arguments):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # As in a terminal: a process started in the background of a shell ignores interruptions.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.slow(reason="a process that imports all; the next test interrupts a run in this one")
def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    # It writes a checkpoint after every step, so the signal comes while it writes one.
    process = start(*LONG, "--save-every", "0", "--out", str(tmp_path))
    while not (tmp_path / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"interrupted; --out {tmp_path} --resume goes on from there" in said
    assert "Traceback" not in said


def test_an_interrupted_run_keeps_the_steps_since_its_last_checkpoint(tmp_path, monkeypatch):
    from companion.experiments import catalogue, runner

    experiment = catalogue.EXPERIMENTS["figure-1"]
    real, steps = runner.tqdm, []

    class Interrupting(real):
        def update(self, n=1):
            steps.append(n)
            if len(steps) == 7:
                signal.raise_signal(signal.SIGINT)
            return super().update(n)

    monkeypatch.setattr(runner, "tqdm", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        runner.run(
            experiment, experiment.quick, (0,), torch.device("cpu"), tmp_path, progress=False
        )
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["task"]["step"] == 7


def test_an_interruption_before_the_first_step_says_that_nothing_is_written(
    tmp_path, capsys, monkeypatch
):
    from companion.experiments import runner

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner._Run, "start_task", interrupted)
    assert main(["run", *SHORT, "--out", str(tmp_path)]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
