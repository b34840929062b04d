"""How deep a normalized stack still learns, with shortcuts and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from companion import BatchNorm1d, data

from .experiment import Experiment, Trial, by_seed, number
from .inputs import rows
from .networks import perceptron
from .tasks import Computation, Record, Scalars, Task
from .training import minibatches

STACKS = {
    "relu, plain": (nn.ReLU, None),
    "relu": (nn.ReLU, BatchNorm1d),
    "sigmoid": (nn.Sigmoid, BatchNorm1d),
    "relu, equal turns": (nn.ReLU, BatchNorm1d),
}
SHORTCUTS = {"shortcuts": 1.0, "shortcuts, γ = 0": 0.0}


@dataclass(frozen=True)
class Config:
    """scikit-learn's digits, and networks of one width.

    Each trial tries all of its learning rates: `rates`, or for equal turns `turns`, which are the
    steps' lengths as fractions of the lengths of the weight matrices.
    """

    width: int = 64
    depths: tuple[int, ...] = (5, 10, 20, 40, 60)
    steps: int = 200
    batch_size: int = 128
    rates: tuple[float, ...] = (0.01, 0.1, 1.0)
    turns: tuple[float, ...] = (0.003, 0.01, 0.03)


class Shortcut(nn.Module):
    """x + BN(W·relu(BN(x))); the γ of the last normalization starts at `gamma`."""

    def __init__(self, features: int, gamma: float) -> None:
        super().__init__()
        first, last = BatchNorm1d(features), BatchNorm1d(features)
        nn.init.constant_(last.get_parameter("weight"), gamma)
        middle = nn.Linear(features, features, bias=False)
        self.branch = nn.Sequential(first, nn.ReLU(), middle, last)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(x)
        return x + branch


def network(kind: str, features: int, width: int, depth: int) -> nn.Sequential:
    """`depth` layers, or blocks with a shortcut, and an output layer for ten classes."""
    if kind in STACKS:
        activation, normalization = STACKS[kind]
        return perceptron([features, *[width] * depth, 10], activation, normalization)
    blocks = [Shortcut(width, SHORTCUTS[kind]) for _ in range(depth)]
    first, last = nn.Linear(features, width), nn.Linear(width, 10)
    return nn.Sequential(first, *blocks, BatchNorm1d(width), nn.ReLU(), last)


def growth(model: nn.Sequential, x: Tensor, y: Tensor) -> float:
    """Growth of the gradient's norm per layer, from the last activation down to the first."""
    outputs: list[Tensor] = []
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            outputs.append(x)
    loss = nn.functional.cross_entropy(x, y)
    below, above = torch.autograd.grad(loss, [outputs[0], outputs[-1]])
    return float((below.norm() / above.norm()).item() ** (1 / (len(outputs) - 1)))


def _descend(model: nn.Module, rate: float, *, equal: bool) -> None:
    """One step; with equal turns each weight matrix moves by `rate` times its own length."""
    with torch.no_grad():
        for p in model.parameters():
            assert p.grad is not None
            size = p.norm() if p.ndim > 1 else math.sqrt(p.numel())
            scale = size / (p.grad.norm() + 1e-30) if equal else 1.0
            p.sub_(rate * scale * p.grad)
            p.grad = None


def learn(
    model: nn.Module, split: data.Split, config: Config, rate: float, seed: int, *, equal: bool
) -> float:
    """Mean training loss of the last tenth of the steps, in nats."""
    generator = torch.Generator().manual_seed(seed)
    batches = minibatches(split.x_train, split.y_train, config.batch_size, generator)
    losses = []
    for _, (x, y) in zip(range(config.steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        _descend(model, rate, equal=equal)
        losses.append(loss.item())
    last = losses[-max(config.steps // 10, 1) :]
    return sum(last) / len(last)


def _variants(config: Config) -> tuple[str, ...]:
    return tuple(f"{kind}, {d} deep" for kind in (*STACKS, *SHORTCUTS) for d in config.depths)


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    kind, _, deep = variant.rpartition(", ")
    depth, equal = int(deep.split()[0]), kind == "relu, equal turns"
    split = rows("digits", device)

    def find() -> Record:
        rates = config.turns if equal else config.rates
        losses, growths = [], []
        for rate in rates:
            torch.manual_seed(seed)
            model = network(kind, split.x_train.shape[1], config.width, depth).to(device)
            x, y = split.x_train[: config.batch_size], split.y_train[: config.batch_size]
            before = growth(model, x, y) if kind == "relu" else None
            loss = learn(model, split, config, rate, seed, equal=equal)
            losses.append(loss if math.isfinite(loss) else math.inf)
            growths.append(growth(model, x, y) if kind == "relu" else None)
        best = losses.index(min(losses))
        scalars: Scalars = {"loss": losses[best], "rate": rates[best]}
        scalars |= {"growth before": before, "growth after": growths[best]}
        return Record(scalars, {})

    return Computation(find)


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The loss at the best of the rates, and the gradient's growth before and after."""
    found: dict[str, Any] = {}
    for variant in _variants(config):
        scalars = [record.scalars for record in by_seed(trials, variant)]
        found[f"{variant}: loss"] = [number(each["loss"]) for each in scalars]
        if variant.rpartition(", ")[0] == "relu":
            for when in ("growth before", "growth after"):
                found[f"{variant}: {when}"] = [number(each[when]) for each in scalars]
    return found


EXPERIMENT = Experiment(
    name="trainable-depth",
    summary="training loss against depth, of stacks and of blocks with shortcuts",
    source="Yang et al. (2019), arXiv:1902.08129; De & Smith (2020), arXiv:2002.10444",
    config=Config(),
    quick=Config(depths=(5, 40), steps=60, rates=(0.1,), turns=(0.01,)),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
