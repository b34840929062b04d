"""Ask the layers of one framework, in a process where it is installed: JSON on standard output.

``python -m tools.conventions.probe MODULE``, with the numbers of the carried layer on standard
input; MODULE is of `tools.conventions.frameworks`.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np

from .layers import Layer
from .measure import answers


def carried(make: type[Layer], numbers: dict[str, Any]) -> dict[str, Any]:
    """Evaluation of a layer that was given everything, and its statistics after more training."""
    weight, bias, mean, var, x = (
        np.array(numbers[key]) for key in ("weight", "bias", "mean", "var", "x")
    )
    layer = make(len(weight), momentum=numbers["momentum"], eps=numbers["eps"], dtype="float64")
    layer.load(weight, bias, mean, var)
    evaluation = layer.evaluate(x)
    for batch in numbers["batches"]:
        layer.train(np.array(batch))
    low = layer.evaluate(np.zeros((1, len(weight))))[0]
    slope = layer.evaluate(np.ones((1, len(weight))))[0] - low
    return {
        "evaluation": evaluation.tolist(),
        "mean, trained on": ((bias - low) / slope).tolist(),
        "var, trained on": ((weight / slope) ** 2 - numbers["eps"]).tolist(),
    }


def main() -> None:
    numbers = json.load(sys.stdin)
    module = importlib.import_module(f".frameworks.{sys.argv[1]}", __package__)
    layers = {}
    for name, make in module.LAYERS.items():
        if numbers:
            layers[name] = carried(make, numbers)
        else:
            layers[name] = answers(make)
    json.dump({"versions": module.VERSIONS, "layers": layers}, sys.stdout)


if __name__ == "__main__":
    main()
