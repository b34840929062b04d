"""The interactive figure of the chapter `reproducing-the-paper`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion.experiments import recorded
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, NEUTRAL, PLAIN, figure

NETWORKS = {"plain": "plain", "batch": "bn"}  # here, where names are colours; in the record
LABELS = {"plain": "without normalization", "batch": "with BN"}
CURVES = ("low", "median", "high", "accuracy")
START = 500  # steps


def bands() -> InteractiveFigure:
    """The inputs of one sigmoid while two networks learn, without and with normalization.

    Shows the recorded full-length run of ``figure-1``: the {15, 50, 85}th percentiles, over the
    first 1,000 test images, of the input of a unit of the last hidden layer.

    Raises
    ------
    FileNotFoundError
        it has not been recorded

    References
    ----------
    Eqs. (1) and (2) of the chapter `reproducing-the-paper`; Ioffe & Szegedy (2015), Fig. 1.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.bands()
    >>> figure.start["steps"][figure.start["look"]], sorted(figure.start["runs"][0])
    (500, ['batch', 'plain'])
    """
    run = recorded.experiment("figure-1")
    trials = {name: recorded.trials(run, variant) for name, variant in NETWORKS.items()}
    # Before the first step a layer has no statistics yet, and a logarithmic axis has no 0.
    steps = [int(step) for step in trials["plain"][0]["curves"]["step"][1:]]
    look = min(range(len(steps)), key=lambda index: abs(steps[index] - START))
    runs = [
        {
            name: {
                curve: np.round(trials[name][seed]["curves"][curve][1:], 3).tolist()
                for curve in CURVES
            }
            for name in NETWORKS
        }
        for seed in range(len(run["seeds"]))
    ]

    def picture() -> Figure:
        fig, (over, unit) = figure(2, height=3.2)
        x = np.linspace(-4, 4, 81)
        unit.plot(x, _sigmoid(x), color=NEUTRAL, linewidth=1)
        # The other network's small piece of the sigmoid lies on top.
        for name, color, width in (("batch", BATCH, 9), ("plain", PLAIN, 4)):
            curves = runs[0][name]
            over.fill_between(steps, curves["low"], curves["high"], color=color, alpha=0.15)
            over.plot(steps, curves["median"], color=color, label=LABELS[name])
            inside = np.linspace(curves["low"][look], curves["high"][look], 50)
            unit.plot(inside, _sigmoid(inside), color=color, linewidth=width)
            if name == "plain":
                unit.plot(inside[25], _sigmoid(inside[25]), "o", color=color)
        over.axvline(START, color=NEUTRAL, linestyle="--", linewidth=1)
        over.set(xscale="log", xlabel="step", ylabel="input of the unit", ylim=(-3, 3))
        unit.set(xlabel="input", ylabel="output", title=f"step {steps[look]:,}")
        over.legend(loc="lower left")
        return fig

    return InteractiveFigure(
        "bands",
        "The inputs of a sigmoid over training",
        "Two drawings. The first shows three percentiles of a unit's input against the training "
        "step on a logarithmic axis, for two networks, and a vertical line that can be dragged. "
        "Without normalization the three lie together for some hundred steps and then open; "
        "with batch normalization they are apart from the start. The second shows the sigmoid, "
        "with the part of it that each network uses at the chosen step: at first a dot without "
        "normalization, and half of the curve with it.",
        {"steps": steps, "runs": runs, "look": look},
        picture,
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
