"""Normalization in recurrent networks: batch against layer normalization, and none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from companion.variants import BatchNormLSTM, BatchNormRNN, LayerNorm, RecurrentBatchNorm

from .experiment import Experiment, Trial, by_seed, number
from .inputs import rows
from .tasks import Task, Training

CELLS: dict[str, Any] = {"rnn": (nn.RNN, BatchNormRNN), "lstm": (nn.LSTM, BatchNormLSTM)}
NORMS = ("plain", "bn 0.1", "bn 1", "layer")


@dataclass(frozen=True)
class Config:
    """Images read in pieces, left to right and top to bottom; every network at every rate."""

    dataset: str = "digits"
    pieces: int = 16
    hidden: int = 48
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    momentum: float = 0.9
    batch_size: int = 64
    steps: int = 300


class EveryStep(LayerNorm):
    """Layer normalization in the place of a recurrent layer's batch normalization."""

    def forward(self, input: Tensor, _step: int = 0) -> Tensor:
        """Normalize each row of ``(N, C)``, whatever the step."""
        return super().forward(input)


def with_layer_norm(layer: nn.Module) -> nn.Module:
    """The layer, in place, with layer normalizations of γ = 1 where it had batch normalizations."""
    for name, part in list(layer.named_children()):
        if isinstance(part, RecurrentBatchNorm):
            setattr(layer, name, EveryStep(len(part.weight), bias=part.bias is not None))
    return layer


class Reader(nn.Module):
    """Names the class of ``(N, D)`` after reading it in `pieces` of D/pieces values.

    Parameters
    ----------
    recurrent
        a recurrent layer, batch first, of PyTorch's or of this package's
    pieces
        how many, a divisor of D
    hidden
        the size of its state
    """

    def __init__(self, recurrent: nn.Module, pieces: int, hidden: int) -> None:
        super().__init__()
        self.recurrent, self.pieces = recurrent, pieces
        self.classify = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(N, 10)``, of the last state."""
        output, _ = self.recurrent(x.unflatten(1, (self.pieces, -1)))
        logits: Tensor = self.classify(output[:, -1])
        return logits


def recurrent_layer(cell: str, norm: str, inputs: int, hidden: int, pieces: int) -> nn.Module:
    """A layer by its names; all begin with orthogonal recurrent weights."""
    layer: nn.Module
    plain, normalized = CELLS[cell]
    if norm == "plain":
        layer = plain(inputs, hidden, batch_first=True)
        for gate in dict(layer.named_parameters())["weight_hh_l0"].split(hidden):
            nn.init.orthogonal_(gate)
        return layer
    gamma = 1.0 if norm == "layer" else float(norm.removeprefix("bn "))
    layer = normalized(inputs, hidden, pieces, batch_first=True, gamma=gamma)
    return with_layer_norm(layer) if norm == "layer" else layer


def _variants(config: Config) -> tuple[str, ...]:
    return tuple(f"{cell} {norm}, {r:g}" for cell in CELLS for norm in NORMS for r in config.rates)


def _start(config: Config, variant: str, seed: int, device: torch.device) -> Task:
    split = rows(config.dataset, device)
    name, rate = variant.split(", ")
    cell, norm = name.split(" ", 1)
    inputs = split.x_train.shape[1] // config.pieces
    layer = recurrent_layer(cell, norm, inputs, config.hidden, config.pieces)
    return Training(
        Reader(layer, config.pieces, config.hidden).to(device),
        split,
        seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=float(rate),
        momentum=config.momentum,
    )


def _conclude(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """Test accuracies of all seeds, each network at the rate that is best for it on average."""
    conclusion: dict[str, Any] = {}
    for cell in CELLS:
        for norm in NORMS:
            at = {
                rate: [
                    number(record.scalars["accuracy"])
                    for record in by_seed(trials, f"{cell} {norm}, {rate:g}")
                ]
                for rate in config.rates
            }
            best = max(config.rates, key=lambda rate: fmean(at[rate]))
            conclusion[f"{cell} {norm}: rate"] = best
            conclusion[f"{cell} {norm}: accuracy"] = at[best]
    return conclusion


EXPERIMENT = Experiment(
    name="recurrent",
    summary="tanh networks and LSTMs with batch, layer and no normalization, four learning rates",
    source="Cooijmans et al. (2017), arXiv:1603.09025; Ba et al. (2016), arXiv:1607.06450",
    config=Config(),
    quick=Config(pieces=8, hidden=32, rates=(0.1,), steps=60),
    variants=_variants,
    start=_start,
    conclude=_conclude,
)
