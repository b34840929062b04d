"""The interactive figure of the chapter `failure-modes`."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from companion import data
from companion.experiments.training import train
from companion.explore.interactive import InteractiveFigure
from companion.modules import BatchNorm1d
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, figure
from companion.reference import moments

UNITS, STEPS, LEARNING_RATE = 16, 1000, 0.1
MOST = 32  # images of each kind
SUBJECTS = (0, 3, 8)
START = {"subject": "0", "own": 4, "others": 32, "dim": 0}
CONTRAST, BRIGHTNESS = 0.3, 0.5


@cache
def trained() -> dict[str, Any]:
    """A network that has learned the digits, and what its units receive from some images."""
    split = data.digits(dtype=torch.float64)
    torch.manual_seed(0)
    first, norm, last = nn.Linear(64, UNITS, bias=False), BatchNorm1d(UNITS), nn.Linear(UNITS, 10)
    model = nn.Sequential(first, norm, nn.ReLU(), last).double()
    settings = {"steps": STEPS, "batch_size": 64, "learning_rate": LEARNING_RATE}
    train(model, split.x_train, split.y_train, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        received = first(split.x_train)
        mean, var = moments(received.numpy())
        dim = first(CONTRAST * split.x_train + BRIGHTNESS)
    rows = {c: (split.y_train == c).nonzero()[:, 0] for c in range(10)}

    def in_turn(classes: list[int]) -> list[int]:
        """Images of the classes in turn; none is a subject or of its own class's company."""
        turns = zip(*(rows[c][MOST + 1 :].tolist() for c in classes), strict=False)
        return list(chain.from_iterable(turns))[:MOST]

    def inputs(values: torch.Tensor, images: Any) -> Any:
        return values[images].numpy().round(3).tolist()

    return {
        "subjects": {
            str(c): {
                "image": inputs(received, rows[c][0]),
                "own": inputs(received, rows[c][1 : MOST + 1]),
                "others": inputs(received, in_turn([k for k in range(10) if k != c])),
            }
            for c in SUBJECTS
        },
        "dimmed": inputs(dim, in_turn(list(range(10)))),
        "mean": mean.tolist(),
        "var": var.tolist(),
        "gamma": norm.weight.tolist(),
        "beta": norm.bias.tolist(),
        "out": last.weight.tolist(),
        "bias": last.bias.tolist(),
        "eps": norm.eps,
    }


def answer(network: dict[str, Any], x: Any, mean: Any, var: Any) -> tuple[Any, Any]:
    """Normalized values and probabilities for what the units receive, with these statistics."""
    x_hat = (np.asarray(x) - mean) / np.sqrt(np.asarray(var) + network["eps"])
    hidden = np.maximum(np.array(network["gamma"]) * x_hat + np.array(network["beta"]), 0)
    logits = np.array(network["out"]) @ hidden + np.array(network["bias"])
    weights = np.exp(logits - logits.max())
    return x_hat, weights / weights.sum()


def company() -> InteractiveFigure:
    """One image in a batch that is composed of its own class, other classes and dim images.

    The network has 16 normalized hidden units and has learned the digits
    (:func:`companion.data.digits`); its weights stay as they are.

    References
    ----------
    Eq. (3) of the chapter `failure-modes`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.company()
    >>> sorted(figure.start["subjects"]), figure.start["own"], figure.start["others"]
    (['0', '3', '8'], 4, 32)
    """
    network = trained()

    def picture() -> Figure:
        fig, (left, right) = figure(2, height=3.2)
        one = network["subjects"][str(START["subject"])]
        batch = [one["image"], *one["own"][: START["own"]], *one["others"]]
        shown, expected = (
            answer(network, one["image"], *statistics)
            for statistics in (moments(np.array(batch)), (network["mean"], network["var"]))
        )
        left.axline((0, 0), slope=1, color=NEUTRAL, linestyle="--")
        left.plot(expected[0], shown[0], "o", color=BATCH)
        left.set(xlabel="x̂ in evaluation mode", ylabel="x̂ in this batch")
        left.set(xlim=(-4, 4), ylim=(-6, 6))
        for offset, values, color in ((-0.15, shown, BATCH), (0.15, expected, INFERENCE)):
            right.vlines(np.arange(10) + offset, 0, values[1], color=color, linewidth=4)
        right.set(xlabel="digit", ylabel="probability", ylim=(0, 1.05), xticks=range(10))
        return fig

    return InteractiveFigure(
        "company",
        "One image, and the company you give it",
        "Two drawings. The first has sixteen points, one for each hidden unit of a network that "
        "reads digits: across, the normalized value of one image in evaluation mode, upwards, "
        "its value in a batch. At first they lie near the diagonal, and the second drawing, the "
        "probabilities of the ten digits, is the same for both. Three sliders say how many "
        "images of its own class, of other classes, and of less contrast are in the batch with "
        "it. Without the other classes the points leave the diagonal and the answer is lost; "
        "with one image alone all points are at plus or minus 1.",
        {**network, **START},
        picture,
    )
