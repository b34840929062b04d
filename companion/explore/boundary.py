"""The interactive figure of the chapter `regularization-noise`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn import datasets
from torch import nn

from companion.experiments.training import train
from companion.explore.interactive import InteractiveFigure
from companion.modules import BatchNorm1d
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, figure
from companion.reference import moments

HIDDEN, POINTS, STEPS, LEARNING_RATE = 12, 256, 600, 0.3
BATCHES, SEED = 16, 1


@cache
def trained() -> dict[str, Any]:
    """Two half moons, and the weights of a network that has learned to tell them apart."""
    points, classes = datasets.make_moons(POINTS, noise=0.22, random_state=0)
    points = points.round(3)
    generator = torch.Generator().manual_seed(0)
    first, norm = nn.Linear(2, HIDDEN, bias=False), BatchNorm1d(HIDDEN)
    last = nn.Linear(HIDDEN, 2)
    model = nn.Sequential(first, norm, nn.ReLU(), last).double()
    with torch.no_grad():
        first.weight.normal_(generator=generator)
        last.weight.normal_(generator=generator)
        last.bias.zero_()
    x, y = torch.from_numpy(points), torch.from_numpy(classes)
    train(model, x, y, steps=STEPS, batch_size=64, learning_rate=LEARNING_RATE)
    return {
        "points": points.tolist(),
        "classes": classes.tolist(),
        "weight": first.weight.tolist(),
        "gamma": norm.weight.tolist(),
        "beta": norm.bias.tolist(),
        # Of two classes, only the difference of their outputs counts.
        "out": (last.weight[1] - last.weight[0]).tolist(),
        "bias": (last.bias[1] - last.bias[0]).item(),
        "eps": norm.eps,
    }


def output(network: dict[str, Any], x: Any, batch: Any) -> Any:
    """The network's output at points `x`, with the statistics of `batch`, both ``(…, 2)``."""
    weight = np.array(network["weight"])
    mean, var = moments(np.asarray(batch) @ weight.T)
    x_hat = (np.asarray(x) @ weight.T - mean) / np.sqrt(var + network["eps"])
    hidden = np.maximum(np.array(network["gamma"]) * x_hat + np.array(network["beta"]), 0)
    return hidden @ np.array(network["out"]) + network["bias"]


def draws(seed: int, below: int, count: int) -> list[int]:
    """What ``js/random.js`` draws."""
    drawn = []
    for _ in range(count):
        seed = (1664525 * seed + 1013904223) % 2**32
        drawn.append(seed * below >> 32)
    return drawn


def boundary() -> InteractiveFigure:
    """The decision boundary of a trained network under 16 batches of a size that is chosen.

    The network has 12 normalized hidden units; its weights stay as they are, and only the batch
    that the statistics are taken from changes.

    Examples
    --------
    >>> from companion import explore
    >>> explore.boundary().start["m"]
    16
    """
    network, m = trained(), 16

    def picture() -> Figure:
        fig, ax = figure(height=4.2)
        points, classes = np.array(network["points"]), np.array(network["classes"])
        ax.plot(*points[classes == 0].T, "o", color=NEUTRAL, markerfacecolor="none", markersize=4)
        ax.plot(*points[classes == 1].T, "o", color=NEUTRAL, markersize=4)
        grid = np.stack(np.meshgrid(np.linspace(-2, 3, 150), np.linspace(-1.6, 2.1, 110)), axis=-1)
        x, y = grid[..., 0], grid[..., 1]
        for batch in np.reshape(draws(SEED, POINTS, BATCHES * m), (BATCHES, m)):
            ax.contour(x, y, output(network, grid, points[batch]), [0], colors=BATCH, linewidths=1)
        ax.contour(x, y, output(network, grid, points), [0], colors=INFERENCE, linewidths=3)
        ax.set(xlabel="input 1", ylabel="input 2")
        return fig

    return InteractiveFigure(
        "boundary",
        "A decision boundary under batches of m",
        "Two classes of points, rings and dots, on two interleaved half moons. A thick line "
        "between them is a trained network's boundary at inference. Sixteen thin lines are the "
        "same network's boundaries with the statistics of sixteen random batches: with batches "
        "of two they go all over the plane, with 256 they lie close to the thick line. A "
        "further point can be dragged; below it says how many of the sixteen batches put it in "
        "the class of the dots.",
        {**network, "m": m, "seed": SEED, "probe": [0.5, 0.3]},
        picture,
    )
