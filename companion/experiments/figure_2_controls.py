"""The small Figure 2 without BN at its larger rates, and with sigmoids: the rows that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from . import figure_2_small
from .experiment import Experiment, Trial, by_seed
from .figure_2_small import Config, Variant, training

VARIANTS = {
    "plain-x5": Variant(5.0, normalized=False),
    "plain-x30": Variant(30.0, normalized=False),
    "plain-x5-sigmoid": Variant(5.0, normalized=False, activation=nn.Sigmoid),
}


def _conclude(_config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    """The maximum accuracies, for each seed."""
    return {
        f"{name}: maximum accuracy": [r.scalars["max_accuracy"] for r in by_seed(trials, name)]
        for name in VARIANTS
    }


EXPERIMENT = Experiment(
    name="figure-2-controls",
    summary="the convolutional network without BN at larger rates, and with sigmoids",
    source="a control of Ioffe & Szegedy (2015), arXiv:1502.03167, Figures 2 and 3; section 4.2.2",
    config=figure_2_small.EXPERIMENT.config,
    quick=figure_2_small.EXPERIMENT.quick,
    variants=lambda _: tuple(VARIANTS),
    start=lambda config, name, seed, device: training(config, VARIANTS[name], seed, device),
    conclude=_conclude,
)
