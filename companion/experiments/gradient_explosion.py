"""How gradients grow with depth at initialization, through batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from companion import closed_forms, functional

from .experiment import Experiment, Trial, by_seed, number
from .tasks import Computation, Record, Task


@dataclass(frozen=True)
class Config:
    """Random Gaussian inputs and weights in float64.

    `skipped` layers at either end are not read: the growth is that of layers far from the ends.
    """

    width: int = 512
    depth: int = 30
    skipped: int = 5
    relu_batches: tuple[int, ...] = (128, 256, 512)
    linear_batches: tuple[int, ...] = (8, 16)


def predicted(kind: str, m: int) -> float:
    """Growth of the gradient's norm per layer: √(π/(π−1)) with ReLU, √((m−2)/(m−3)) without.

    References
    ----------
    Yang et al. (2019), arXiv:1902.08129; the first for large batches.

    Examples
    --------
    >>> round(predicted("relu", 256), 4)
    1.2112
    """
    relu = math.sqrt(math.pi / (math.pi - 1))
    return relu if kind == "relu" else closed_forms.linear_gradient_growth(m)


def gradient_norms(kind: str, m: int, width: int, depth: int) -> list[float]:
    """Norms of the gradient at the input of every layer, from the first to the last."""
    h = torch.randn(m, width, dtype=torch.float64)
    inputs = []
    for _ in range(depth):
        h.requires_grad_()
        inputs.append(h)
        weight = torch.randn(width, width, dtype=torch.float64) / math.sqrt(width)
        h = functional.batch_norm(h @ weight, None, None, training=True, eps=1e-12)
        h = nn.functional.relu(h) if kind == "relu" else h
    gradients = torch.autograd.grad(h, inputs, torch.randn_like(h))
    return [gradient.norm().item() for gradient in gradients]


def _variants(config: Config) -> tuple[str, ...]:
    kinds = (("relu", config.relu_batches), ("linear", config.linear_batches))
    return tuple(f"{kind}, m = {m}" for kind, sizes in kinds for m in sizes)


def _start(config: Config, variant: str, _seed: int, _device: torch.device) -> Task:
    kind, _, size = variant.partition(", m = ")

    def find() -> Record:
        norms = gradient_norms(kind, int(size), config.width, config.depth)
        first, last = config.skipped, config.depth - 1 - config.skipped
        growth = (norms[first] / norms[last]) ** (1.0 / (last - first))
        curves = {"step": [float(layer) for layer in range(config.depth)], "norm": norms}
        return Record({"growth": growth, "predicted": predicted(kind, int(size))}, curves)

    return Computation(find)


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Measured over predicted growth per layer, for each seed."""
    return {
        f"{variant}: measured over predicted growth": [
            number(record.scalars["growth"]) / number(record.scalars["predicted"])
            for record in by_seed(trials, variant)
        ]
        for variant in _variants(config)
    }


EXPERIMENT = Experiment(
    name="gradient-explosion",
    summary="growth of the gradient per layer at initialization, against the prediction",
    source="Yang et al. (2019), arXiv:1902.08129, Theorem 3.9 and Figure 1",
    config=Config(),
    quick=Config(width=128, depth=16, skipped=3, relu_batches=(128,), linear_batches=(8,)),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
