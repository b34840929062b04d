"""From which initial weights a deep network learns, at which rates, without and with BN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d, preserved_statistics

from .experiment import Experiment, Trial, by_seed, number
from .inputs import rows
from .networks import perceptron
from .tasks import Probe, Task, Training

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
STEEPEST: dict[type[nn.Module], float] = {nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Sigmoid: 0.25}
NETWORKS = ("plain", "bn")


@dataclass(frozen=True)
class Config:
    """Hidden weights are N(0, scale²/fan-in); the output layer's are N(0, 1/fan-in) in all."""

    dataset: str = "digits"
    hidden: tuple[int, ...] = (64,) * 5
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid")
    # Too small; Xavier's, as all layers but the last are square; He's; too large.
    scales: tuple[float, ...] = (0.1, 1.0, math.sqrt(2.0), 10.0)
    rates: tuple[float, ...] = (0.01, 0.1, 1.0)
    batch_size: int = 64
    steps: int = 1_000
    look_every: int = 100


def variant_name(activation: str, network: str, scale: float, rate: float) -> str:
    """What the results call a network with these weights at this learning rate.

    Examples
    --------
    >>> variant_name("tanh", "bn", 1.0, 0.1)
    'tanh, bn, scale 1 at 0.1'
    """
    return f"{activation}, {network}, scale {scale:.3g} at {rate:g}"


def saturation(model: nn.Sequential, x: Tensor) -> float:
    """Share of the activations whose derivative is below a tenth of its maximum, on a batch.

    In training mode; afterwards the model is what it was.
    """
    flat = []
    with preserved_statistics(model), torch.enable_grad():
        model.train()
        for layer in model:
            if type(layer) in STEEPEST:
                x = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(layer(x).sum(), x)
                flat.append((slope < STEEPEST[type(layer)] / 10).double().mean())
            x = layer(x)
    return torch.stack(flat).mean().item()


def _probe(x: Tensor) -> Probe:
    def look(model: nn.Module, _: dict[str, Tensor]) -> dict[str, float]:
        assert isinstance(model, nn.Sequential)
        return {"saturated": saturation(model, x)}

    return look


def _settings(config: Config) -> dict[str, tuple[str, str, float, float]]:
    choices = product(config.activations, NETWORKS, config.scales, config.rates)
    return {variant_name(*choice): choice for choice in choices}


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    activation, network, scale, rate = _settings(config)[variant]
    split = rows(config.dataset, device)
    sizes = (split.x_train.shape[1], *config.hidden, 10)
    normalization = BatchNorm1d if network == "bn" else None
    model = perceptron(sizes, ACTIVATIONS[activation], normalization)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):  # has N(0, 2/fan-in)
                layer.weight *= (1.0 if layer is model[-1] else scale) / math.sqrt(2.0)
    return Training(
        model.to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=rate,
        look_every=config.look_every,
        probe=_probe(split.x_train[:256]),
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The final accuracy of each variant, for each seed."""
    return {
        variant: [number(record.scalars["accuracy"]) for record in by_seed(trials, variant)]
        for variant in _settings(config)
    }


EXPERIMENT = Experiment(
    name="initialization",
    summary="accuracy from small, usual and large initial weights, without and with BN",
    source="Ioffe and Szegedy (2015), arXiv:1502.03167, abstract; Glorot and Bengio (2010); "
    "He et al. (2015), arXiv:1502.01852",
    config=Config(),
    quick=Config(activations=("tanh",), scales=(0.1, 10.0), rates=(0.1,), steps=200),
    variants=lambda config: tuple(_settings(config)),
    start=_start,
    conclude=_conclude,
)
