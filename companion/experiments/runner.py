"""Run an experiment's trials one after the other, such that a killed run can be taken up again.

The state is one file, replaced as a whole: the finished trials, the state of the current task, and
that of PyTorch's random numbers. A run that was killed at any moment and resumed gives, on a CPU
and with as many threads, bit for bit the numbers of one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..interruption import Interruption
from . import results
from .experiment import Experiment, Trial
from .tasks import Record, Task

CHECKPOINT = "checkpoint.pt"
RESULT = "result.json"
SAVE_EVERY = 10.0  # seconds
_SHOW_EVERY = 0.5
# What must be the same for a run to be taken up again.
_SAME = ("experiment", "config", "seeds", "device")


class CannotRun(Exception):
    """What was asked for cannot be done; the message says why, for a user."""


class _Run:
    """One run, from its checkpoint or from the start, to its result."""

    def __init__(
        self, experiment: Experiment, config: Any, seeds: Sequence[int], device: torch.device
    ) -> None:
        self.experiment, self.config, self.device = experiment, config, device
        self.description = results.describe(experiment, config, seeds, device)
        self.planned = [(v, seed) for v in experiment.variants(config) for seed in seeds]
        self.trials: list[Trial] = []
        self.task: Task | None = None
        self.spent = 0.0  # seconds on the current task before this process

    def start_task(self) -> Task:
        variant, seed = self.planned[len(self.trials)]
        torch.manual_seed(seed)
        self.task = self.experiment.start(self.config, variant, seed, self.device)
        return self.task

    def state(self, seconds: float) -> dict[str, Any]:
        return {
            "description": self.description,
            "trials": [(*trial[:3], tuple(trial.record)) for trial in self.trials],
            "task": None if self.task is None else self.task.state_dict(),
            "seconds": seconds,
            "random": _random_state(self.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for key in _SAME:
            was, now = state["description"][key], self.description[key]
            if was != now:
                raise CannotRun(f"the run to resume has another {key}: {was}, not {now}")
        self.description = state["description"]
        self.trials = [
            Trial(variant, seed, seconds, Record(*record))
            for variant, seed, seconds, record in state["trials"]
        ]
        if state["task"] is not None:
            self.start_task().load_state_dict(state["task"])
            self.spent = state["seconds"]
            _set_random_state(state["random"], self.device)


def run(
    experiment: Experiment,
    config: Any,
    seeds: Sequence[int],
    device: torch.device,
    folder: Path,
    *,
    resume: bool = False,
    save_every: float = SAVE_EVERY,
    progress: bool = True,
) -> dict[str, Any]:
    """Run all trials and write ``result.json`` and ``arrays.npz`` into `folder`.

    Parameters
    ----------
    experiment
        what to run
    config
        its configuration
    seeds
        one for each trial
    device
        where the trials run
    folder
        made if it is not there; holds ``checkpoint.pt`` until the run is finished
    resume
        go on where a run into `folder` ended; a finished one is left as it is
    save_every
        seconds between checkpoints; 0: after every step
    progress
        whether to draw progress bars on stderr

    Returns
    -------
    dict[str, Any]
        the content of ``result.json``

    Raises
    ------
    CannotRun
        `folder` holds a run already, or, to resume, one of something else, or none
    KeyboardInterrupt
        after a SIGINT, once the step is done and the checkpoint written
    OSError
        `folder` cannot be written
    """
    current = _Run(experiment, config, seeds, device)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, result = folder / CHECKPOINT, folder / RESULT
    if resume and result.exists():
        checkpoint.unlink(missing_ok=True)
        return results.load(result)
    if resume:
        if not checkpoint.exists():
            raise CannotRun(f"{folder} holds no run to resume")
        current.restore(torch.load(checkpoint, map_location=device, weights_only=True))
    elif checkpoint.exists() or result.exists():
        raise CannotRun(f"{folder} holds a run already: resume it, or choose another folder")

    while len(current.trials) < len(current.planned):
        _run_trial(current, checkpoint, save_every, progress)
    content = results.write(folder, current.description, experiment, config, current.trials)
    checkpoint.unlink()
    return content


def _run_trial(current: _Run, checkpoint: Path, save_every: float, progress: bool) -> None:
    count = len(current.trials)
    variant, seed = current.planned[count]
    task = current.task or current.start_task()
    saved = shown = time.monotonic()
    start = saved - current.spent
    title = f"{variant}, seed {seed} ({count + 1} of {len(current.planned)})"
    with (
        Interruption() as interruption,
        tqdm(
            total=task.steps, initial=task.step, desc=title, disable=not progress, unit="step"
        ) as bar,
    ):
        while task.step < task.steps and not interruption.asked:
            task.advance()
            now = time.monotonic()
            if now - shown > _SHOW_EVERY:
                bar.set_postfix_str(task.status(), refresh=False)
                shown = now
            if now - saved >= save_every:
                _replace(checkpoint, current.state(now - start))
                saved = time.monotonic()
            bar.update()
        seconds = time.monotonic() - start
        if task.step == task.steps:
            current.trials.append(Trial(variant, seed, seconds, task.record()))
            current.task, current.spent, seconds = None, 0.0, 0.0
        _replace(checkpoint, current.state(seconds))
        if interruption.asked:
            raise KeyboardInterrupt


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def _replace(path: Path, state: dict[str, Any]) -> None:
    """Write `state` such that `path` is, at any time, what it was or the whole new file."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
