"""What synchronization cost in a recorded run of ``python -m companion bench --sync``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from companion.experiments.recorded import FOLDER, read


def recorded(folder: Path = FOLDER) -> dict[str, Any]:
    """Read the run that comes with the book, ``bench-sync.json``.

    Raises
    ------
    FileNotFoundError
        there is none; the message says how to record one
    """
    command = "python -m companion bench --sync --json book/results/bench-sync.json"
    return read("bench-sync", command, folder)


def table(run: dict[str, Any]) -> str:
    """What synchronization added to a layer's forward and backward pass, and what a model says."""
    modelled = {
        (one["ranks"], one["channels"]): one["us"]
        for one in run["predicted"]
        if one["schedule"] == "ring"
    }
    machine, settings = run["machine"], run["settings"]
    lines = [
        f"{run['date'][:10]}, {machine['processor']}, {machine['cores']} cores, "
        f"{settings['device']}, {settings['threads_per_process']} thread per process",
        "",
        "ranks  channels  messages  bytes given  added µs  model µs",
    ]
    for case in run["cases"]:
        if case["ranks"] == 1:
            continue
        passes = case["forward"], case["backward"]
        messages, size, added = (
            sum(numbers)
            for numbers in zip(
                *((one["messages"], one["bytes"], one["added"]["us"]) for one in passes),
                strict=True,
            )
        )
        model = modelled.get((case["ranks"], case["channels"]))
        shown = "–" if model is None else f"{model:.0f}"
        lines.append(
            f"{case['ranks']:5}{case['channels']:10}{messages:10}{size:13}{added:10.0f}{shown:>10}"
        )
    return "\n".join(lines)
