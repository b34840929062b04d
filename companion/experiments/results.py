"""The files of an experiment's results: ``result.json``, schema 1, and ``arrays.npz``.

The JSON file has the configuration, where and when it ran, the conclusion, and of each trial the
scalars and thinned curves, with six digits. The arrays are the whole curves in float64, named
``VARIANT/SEED/CURVE``. Times are in seconds, losses in nats.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from companion.bench import document, machine

from .experiment import Experiment, Trial

SCHEMA = 1
POINTS = 120  # of a thinned curve, at most


def describe(
    experiment: Experiment, config: Any, seeds: Sequence[int], device: torch.device
) -> dict[str, Any]:
    """What was to be run, and where: everything but the findings."""
    revision = machine.revision()
    return {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "summary": experiment.summary,
        "source": experiment.source,
        "config": dataclasses.asdict(config),
        "seeds": list(seeds),
        "device": device.type,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": None if revision is None else revision[0],
        "modified": None if revision is None else revision[1],
        "versions": machine.versions(),
        "machine": {
            "processor": machine.processor(),
            "cores": machine.cores(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        },
    }


def write(
    folder: Path,
    description: dict[str, Any],
    experiment: Experiment,
    config: Any,
    trials: Sequence[Trial],
) -> dict[str, Any]:
    """Write both files into `folder`, the JSON file last; returns its content.

    Raises
    ------
    OSError
        a file cannot be written
    """
    result = {
        **description,
        "seconds": sum(trial.seconds for trial in trials),
        "conclusion": experiment.conclude(config, trials),
        "trials": [_summary(trial) for trial in trials],
    }
    _write_arrays(folder / "arrays.npz", trials)
    document.write(result, folder / "result.json")
    return result


def _summary(trial: Trial) -> dict[str, Any]:
    count = max((len(values) for values in trial.record.curves.values()), default=0)
    kept = _thinned(count)
    return {
        "variant": trial.variant,
        "seed": trial.seed,
        "seconds": trial.seconds,
        "scalars": trial.record.scalars,
        "curves": {
            name: [_finite(values[index]) for index in kept]
            for name, values in trial.record.curves.items()
        },
    }


def _thinned(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which of `count` points are kept: the first, the last, and more of the early ones."""
    if count <= POINTS:
        return np.arange(count)
    evenly = np.linspace(0, count - 1, POINTS // 2)
    early = np.geomspace(1, count, POINTS - len(evenly)) - 1
    return np.unique(np.concatenate([evenly, early]).round().astype(np.int64))


def _finite(value: float) -> float | None:
    """JSON has no infinities: a diverged loss is null."""
    return value if np.isfinite(value) else None


def _write_arrays(path: Path, trials: Sequence[Trial]) -> None:
    arrays = {
        f"{trial.variant}/{trial.seed}/{name}": np.asarray(values, np.float64)
        for trial in trials
        for name, values in trial.record.curves.items()
    }
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names, not options
    os.replace(new, path)


def load(path: Path | str) -> dict[str, Any]:
    """Read a result file.

    Raises
    ------
    ValueError
        it is not one of this schema
    """
    result = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or "experiment" not in result:
        raise ValueError(f"path: expected an experiment's result of schema {SCHEMA}, got {path}")
    return result
