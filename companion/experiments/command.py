"""The command ``python -m companion run``: its options, and what is wrong with them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from companion.data import DownloadError

from .experiment import Experiment

_DESCRIPTION = """\
Run an experiment of the book as a whole: every variant with every seed. Writes result.json and
arrays.npz into a folder. A run that was interrupted or killed goes on with --resume, and ends, on a
CPU, with the numbers that it would have had."""


class _Mistake(Exception):
    """What a user asked for cannot be done; the message says why."""


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m companion``."""
    parser = commands.add_parser(
        "run", help="run a named experiment and record its results", description=_DESCRIPTION
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the experiment; --list names all")
    parser.add_argument("--list", action="store_true", help="list the experiments and stop")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--seeds", type=_seeds, metavar="N|A,B,...", help="so many seeds from 0, or just these"
    )
    parser.add_argument("--steps", type=_positive_int, help="instead of the experiment's number")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: a taste")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for the results (default: runs/NAME)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where the run in FOLDER ended")
    parser.add_argument(
        "--save-every",
        type=_seconds,
        metavar="S",
        default=10.0,
        help="seconds between checkpoints (default: 10)",
    )
    parser.set_defaults(run=run, parser=parser)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text}")
    return value


def _seeds(text: str) -> tuple[int, ...]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1 and "," not in text and values[0] > 0:
        return tuple(range(values[0]))
    if len(values) < 2 or min(values) < 0 or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(
            f"expected a positive number, or different numbers with commas, got {text!r}"
        )
    return tuple(values)


_positive_int.__name__, _seconds.__name__ = "integer", "number"


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        from . import catalogue, runner
    except ModuleNotFoundError as error:
        options.parser.error(f"{error.name} is missing: pip install {error.name}")
    if options.list:
        for experiment in catalogue.EXPERIMENTS.values():
            print(f"{experiment.name:<28}{experiment.summary}\n{'':<28}{experiment.source}")
        return 0
    try:
        experiment = _experiment(options, catalogue.EXPERIMENTS)
        config = _config(options, experiment)
    except _Mistake as error:
        options.parser.error(str(error))
    folder = options.out or Path("runs") / experiment.name
    try:
        result = runner.run(
            experiment,
            config,
            options.seeds or tuple(range(1 if options.quick else experiment.seeds)),
            torch.device(options.device),
            folder,
            resume=options.resume,
            save_every=options.save_every,
            progress=sys.stderr.isatty(),
        )
    except runner.CannotRun as error:
        options.parser.error(str(error))
    except (DownloadError, ModuleNotFoundError, OSError) as error:
        print(f"{options.parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        resumable = (folder / runner.CHECKPOINT).exists()
        how = f"--out {folder} --resume goes on from there" if resumable else "nothing was written"
        print(f"\ninterrupted; {how}", file=sys.stderr)
        return 130
    _print(result, folder)
    return 0


def _experiment(options: argparse.Namespace, experiments: dict[str, Experiment]) -> Experiment:
    if options.name in experiments:
        return experiments[options.name]
    fault = "no NAME was given" if options.name is None else f"there is no {options.name!r}"
    raise _Mistake(f"{fault}; the experiments are {', '.join(experiments)}")


def _config(options: argparse.Namespace, experiment: Experiment) -> Any:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise _Mistake("--device cuda: no CUDA device is available")
    config = experiment.quick if options.quick else experiment.config
    if options.steps is None:
        return config
    if not experiment.has_steps:
        raise _Mistake(f"--steps: {experiment.name} has no number of steps")
    return dataclasses.replace(config, steps=options.steps)


def _print(result: dict[str, Any], folder: Path) -> None:
    print(f"{result['experiment']}: {result['summary']}\n{result['source']}")
    for name, value in result["conclusion"].items():
        values = value if isinstance(value, list) else [value]
        print(f"  {name}: {', '.join('none' if v is None else f'{v:.4g}' for v in values)}")
    print(f"{result['seconds']:.0f} s; written: {folder / 'result.json'}, {folder / 'arrays.npz'}")
