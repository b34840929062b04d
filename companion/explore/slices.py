"""The interactive figure of the chapter `covariate-shift-debate`."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from companion import data
from companion.experiments.networks import perceptron
from companion.experiments.smoothness import along_gradient
from companion.experiments.training import train
from companion.explore.interactive import InteractiveFigure
from companion.modules import BatchNorm1d
from companion.plots.style import BATCH, NEUTRAL, PLAIN, figure

STEPS = (0, 10, 30, 100)
RATES = tuple(float(f"{rate:.3g}") for rate in np.logspace(-4, 1, 36))
HIGHEST = 9.0  # losses above leave the drawing
NETWORKS = {"plain": (None, 1.0), "batch": (BatchNorm1d, 1.0), "small": (BatchNorm1d, 0.1)}
Slice = dict[str, list[float]]


@cache
def measured(seed: int = 0) -> dict[str, list[Slice]]:
    """Three networks that learn to read digits, looked at along their gradients at `STEPS`.

    Without normalization, with it, and with it from hidden weights of a tenth. At each look a dict
    with the "losses" at the learning rates 0 and `RATES`, and the "changes" of the gradient,
    relative to its length.
    """
    split = data.digits()
    x, y = split.x_train[:256], split.y_train[:256]
    found: dict[str, list[Slice]] = {}
    for name, (normalization, scale) in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = perceptron([64] * 9 + [10], nn.ReLU, normalization)
        with torch.no_grad():
            for layer in list(model)[:-1]:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(scale)
        found[name] = []
        for before, step in pairwise((0, *STEPS)):
            train(
                model,
                split.x_train,
                split.y_train,
                steps=step - before,
                batch_size=64,
                learning_rate=0.03,
                seed=step,
            )
            losses, changes = along_gradient(model, x, y, (0.0, *RATES))
            found[name].append({"losses": losses, "changes": changes})
    return found


def slices(step: int = 0, rate: float = 0.1) -> InteractiveFigure:
    """The loss along its own gradient, without and with batch normalization.

    Networks of eight hidden layers on digits (:func:`companion.data.digits`), all trained at a
    learning rate of 0.03, at four moments of their training.

    Parameters
    ----------
    step
        of the training that is shown first: 0, 10, 30 or 100
    rate
        the learning rate that is chosen first; the nearest of those computed is taken

    Raises
    ------
    ValueError
        there is no such `step`

    References
    ----------
    Santurkar et al. (2018), arXiv:1805.11604, Figure 4.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.slices()
    >>> figure.start["rates"][figure.start["at"]], sorted(figure.start["networks"])
    (0.1, ['batch', 'plain', 'small'])
    """
    if step not in STEPS:
        raise ValueError(f"step: expected one of {STEPS}, got {step}")
    networks = {
        name: [{key: [_short(v) for v in values] for key, values in look.items()} for look in looks]
        for name, looks in measured().items()
    }
    at = int(np.argmin(np.abs(np.log(RATES) - np.log(rate))))

    def picture() -> Figure:
        fig, (left, right) = figure(2, height=3.2)
        look = STEPS.index(step)
        for name, label, color in (("plain", "without", PLAIN), ("batch", "with BN", BATCH)):
            shown: Any = networks[name][look]
            left.plot(RATES, shown["losses"][1:], color=color, label=label)
            right.plot(RATES, shown["changes"][1:], color=color)
        for ax in (left, right):
            ax.axvline(RATES[at], color=NEUTRAL, linestyle="--", linewidth=1)
            ax.set(xscale="log", xlabel="learning rate of the step")
        left.set(ylabel="loss", ylim=(0, HIGHEST), title=f"step {step}")
        right.set(ylabel="change of the gradient", ylim=(0, 3))
        left.legend(loc="lower left")
        return fig

    return InteractiveFigure(
        "slices",
        "The loss along its gradient",
        "Two drawings over the learning rate of one step along the gradient, on a logarithmic "
        "axis: the loss after the step, and how much the gradient has changed, as a fraction of "
        "its length. Each has a line for the network without normalization and one for the "
        "network with it. The learning rate can be moved, a slider goes through the training, "
        "and with a choice the normalized network has started from hidden weights of a tenth. "
        "Without normalization the loss leaves the drawing at a learning rate of about 1. With it "
        "the loss falls, rises again and stays in the drawing; from smaller weights it does so at "
        "rates a hundred times smaller.",
        {"steps": list(STEPS), "rates": list(RATES), "step": step, "at": at, "networks": networks},
        picture,
    )


def _short(value: float) -> float:
    """Six digits, and nothing beyond what a drawing can show of a diverged loss."""
    return float(f"{min(value, 1e6):.6g}")
