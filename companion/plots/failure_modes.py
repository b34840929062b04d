"""Figures of the chapter `failure-modes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, INFERENCE, NEUTRAL, PLAIN, figure

AREA = 330  # of the disc of a probability of 1, in square points


def five_answers(answers: Mapping[str, ArrayLike]) -> Figure:
    """Probabilities of the ten digits, a row for each company of the image."""
    fig, ax = figure(height=2.9)
    for row, (company, each) in enumerate(answers.items()):
        color = INFERENCE if company == "evaluation mode" else BATCH
        probabilities = np.ravel(each)
        ax.scatter(range(10), np.full(10, row), s=AREA * probabilities, color=color)
        best = int(probabilities.argmax())
        ax.text(9.65, row, f"{best}: {probabilities[best]:.0%}", va="center", color=color)
    ax.set(xlim=(-0.6, 9.5), ylim=(len(answers) - 0.4, -0.6), xlabel="digit")
    ax.set_xticks(range(10))
    ax.set_yticks(range(len(answers)), list(answers))
    return fig


def label_shift(shares: Sequence[float], curves: Mapping[str, ArrayLike]) -> Figure:
    """Accuracy against the share of one class, with two kinds of statistics, a line a network."""
    fig, ax = figure(height=3.0)
    styles = ((INFERENCE, (1.0, 0.88)), (BATCH, (0.55, 0.45)))
    for (label, runs), (color, place) in zip(curves.items(), styles, strict=True):
        ax.plot(shares, np.array(runs).T, color=color, linewidth=1.2)
        ax.text(*place, label, color=color, ha="right")
    ax.set(xlabel="share of threes among the images", ylabel="test accuracy", ylim=(0, 1.03))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return fig


def cures(rows: Mapping[str, tuple[float, float]]) -> Figure:
    """Accuracy with a failure and with its cure, a row each."""
    fig, ax = figure(height=3.4)
    for row, (sick, cured) in enumerate(rows.values()):
        ax.plot([sick, cured], [row, row], color=NEUTRAL, linewidth=1.5)
        ax.plot(sick, row, "o", color=PLAIN)
        ax.plot(cured, row, "o", color=INFERENCE)
    ax.set(xlim=(0, 1.03), ylim=(len(rows) - 0.5, -0.5), xlabel="test accuracy")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return fig
