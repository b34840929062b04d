"""The interactive figure of the chapter `twenty-minutes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from companion import data
from companion.contexts import preserved_statistics
from companion.experiments.networks import perceptron
from companion.experiments.training import train
from companion.explore.interactive import InteractiveFigure
from companion.modules import BatchNorm1d
from companion.plots.style import BATCH, PLAIN, figure

STEPS = (0, 10, 20, 30, 40, 50, 75, 100, 125, 150, 175, 200)
REACH, BINS = 3.0, 60  # values beyond ± REACH are not drawn
HEIGHT = 0.85  # of a histogram, as a part of the distance between two
NETWORKS = {"plain": "without normalization", "batch": "with batch normalization"}

Looks = Mapping[int, Sequence[Tensor]]  # at each step, what enters each layer's nonlinearity


def watch(
    model: nn.Sequential,
    split: data.Split,
    steps: Sequence[int] = STEPS,
    *,
    batch_size: int = 64,
    learning_rate: float = 0.1,
) -> dict[int, list[Tensor]]:
    """Train `model`, and keep what enters each of its tanh at some steps.

    At those steps the whole training set goes through the model as one batch, in training mode.
    The running averages do not move.

    Parameters
    ----------
    model
        is trained in place
    split
        images ``(m, features)`` and classes
    steps
        when to look, in ascending order; 0 is before training
    batch_size, learning_rate
        of the training

    Returns
    -------
    dict
        for each step the inputs, ``(m, units)``, one for each tanh
    """
    looks: dict[int, list[Tensor]] = {}
    for before, step in pairwise((0, *steps)):
        train(
            model,
            split.x_train,
            split.y_train,
            steps=step - before,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=step,
        )
        looks[step], x = [], split.x_train
        with torch.no_grad(), preserved_statistics(model):
            for layer in model:
                if isinstance(layer, nn.Tanh):
                    looks[step].append(x)
                x = layer(x)
    return looks


@cache
def trained() -> dict[str, dict[int, list[Tensor]]]:
    """Two small networks that learn to read digits, watched."""
    watched = {}
    for name, normalization in {"plain": None, "batch": BatchNorm1d}.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = perceptron([64] * 6 + [10], nn.Tanh, normalization, weight_std=0.07)
        watched[name] = watch(model, data.digits())
    return watched


def histograms(
    plain: Looks | None = None, batch: Looks | None = None, step: int = 20
) -> InteractiveFigure:
    """What enters each layer's nonlinearity while two networks learn.

    Parameters
    ----------
    plain, batch
        the inputs ``(m, units)`` of every layer's nonlinearity at each step, without and with
        normalization; by default, those of two small networks that are trained on digits
    step
        which of the steps is shown first

    Raises
    ------
    ValueError
        `plain` and `batch` have different steps or numbers of layers, or not this `step`

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.histograms()
    >>> [round(spread, 2) for spread in figure.start["networks"]["batch"]["spreads"][0]]
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    default = trained() if plain is None or batch is None else {}
    looks = {"plain": plain or default["plain"], "batch": batch or default["batch"]}
    shapes = {
        name: {at: len(layers) for at, layers in each.items()} for name, each in looks.items()
    }
    if shapes["plain"] != shapes["batch"]:
        raise ValueError(
            f"batch: expected the steps and numbers of layers of plain, {shapes['plain']}, "
            f"got {shapes['batch']}"
        )
    steps = list(looks["plain"])
    if step not in steps:
        raise ValueError(f"step: expected one of {steps}, got {step}")
    networks: dict[str, dict[str, Any]] = {
        name: {
            "heights": [[_heights(layer) for layer in layers] for layers in each.values()],
            "spreads": [[_spread(layer) for layer in layers] for layers in each.values()],
        }
        for name, each in looks.items()
    }

    def picture() -> Figure:
        fig, axes = figure(2, height=3.6, sharey=True)
        at = steps.index(step)
        for ax, (name, words), color in zip(axes, NETWORKS.items(), (PLAIN, BATCH), strict=True):
            for row, heights in enumerate(networks[name]["heights"][at], start=1):
                outline = row - HEIGHT * np.array(heights) / 100
                middles = (np.arange(BINS) + 0.5) * 2 * REACH / BINS - REACH
                ax.fill_between(middles, row, outline, color=color, alpha=0.2, linewidth=0)
                ax.plot(middles, outline, color=color, linewidth=1.5)
            ax.set(xlabel="input of the tanh", title=f"{words}, step {step}")
        layers = len(networks["plain"]["heights"][at])
        axes[0].set_yticks(range(1, layers + 1), [f"layer {k}" for k in range(1, layers + 1)])
        axes[0].set_ylim(layers + 0.15, 0)
        return fig

    return InteractiveFigure(
        "histograms",
        "What enters each layer",
        "Two drawings, one for each network, with a histogram for each of its layers: the values "
        "that enter its tanh, of all units and all training images, from -3 to 3. A slider moves "
        "through the training. Before training, the histograms without normalization get narrower "
        "from layer to layer, and in the course of training wider; those with batch normalization "
        "have the same width in every layer at every step.",
        {"steps": steps, "step": step, "reach": REACH, "networks": networks},
        picture,
    )


def _heights(values: Tensor) -> list[int]:
    """The histogram of all values, in percent of its highest bin."""
    counts, _ = np.histogram(values.double().numpy(), bins=BINS, range=(-REACH, REACH))
    return np.rint(100 * counts / max(counts.max(), 1)).astype(int).tolist()


def _spread(values: Tensor) -> float:
    """Standard deviation of a unit over the images, averaged over the units."""
    return round(values.double().std(dim=0, correction=0).mean().item(), 4)
