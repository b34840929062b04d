"""Ask every framework, and write ``book/results/conventions.json``: ``make conventions``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from companion import data

from .cited import CITED

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / "_build" / "conventions" / "bin" / "python"
RECORD = ROOT / "book" / "results" / "conventions.json"

_QUIET = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
_PROBES: list[tuple[str, dict[str, str]]] = [
    ("pytorch", {}),
    ("keras3", {"KERAS_BACKEND": "jax"}),
    ("keras3", {"KERAS_BACKEND": "tensorflow"}),
    ("flax", {}),
    ("equinox", {}),
    ("onnx", {}),
    ("tensorflow", {}),
]
_CARRIED: list[tuple[str, dict[str, str]]] = [
    ("keras3", {"KERAS_BACKEND": "tensorflow"}),
    ("flax", {}),
    ("tensorflow", {}),
]


def carried_numbers() -> dict[str, Any]:
    """A layer of four channels with numbers of the irises, and batches to train it on."""
    iris, _ = data.table("iris")
    order = np.random.default_rng(0).permutation(len(iris))
    first, second = iris[order[:75]], iris[order[75:]]
    chosen = np.random.default_rng(1).integers(len(iris), size=(40, 8))
    return {
        "weight": second.std(0).tolist(),
        "bias": second.mean(0).tolist(),
        "mean": first.mean(0).tolist(),
        "var": first.var(0).tolist(),
        "momentum": 0.875,  # its complement has no rounding in binary
        "eps": 1e-3,
        "x": iris[::30].tolist(),
        "batches": iris[chosen].tolist(),
    }


def probe(module: str, environment: dict[str, str], numbers: dict[str, Any]) -> dict[str, Any]:
    """Run a probe where its framework is installed."""
    python = sys.executable if module == "pytorch" else str(ENVIRONMENT)
    done = subprocess.run(
        [python, "-m", "tools.conventions.probe", module],
        cwd=ROOT,
        env={**os.environ, **_QUIET, **environment},
        input=json.dumps(numbers),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    versions: dict[str, str] = {}
    layers: dict[str, Any] = {}
    for module, environment in _PROBES:
        found = probe(module, environment, {})
        versions |= found["versions"]
        layers |= found["layers"]
    numbers, carried = carried_numbers(), dict[str, Any]()
    for module, environment in _CARRIED:
        carried |= probe(module, {**environment, "JAX_ENABLE_X64": "1"}, numbers)["layers"]
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": dict(sorted(versions.items())),
        "layers": {**layers, **CITED},
        "carried": {"numbers": numbers, "found": carried},
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(RECORD.relative_to(ROOT))


if __name__ == "__main__":
    main()
