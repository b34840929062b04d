"""Figures of the chapter `inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from companion.plots.style import (
    BATCH,
    INFERENCE,
    NEUTRAL,
    ORANGE,
    PLAIN,
    PURPLE,
    THEORY,
    figure,
)

WAYS = (INFERENCE, PLAIN, PURPLE, ORANGE)


def same_weights(scores: Mapping[str, ArrayLike]) -> Figure:
    """Test accuracy of the same networks with several statistics, a dot a network."""
    fig, ax = figure(height=3.0)
    for row, (label, values) in enumerate(scores.items()):
        accuracies = np.ravel(values)
        color = INFERENCE if label.startswith("exact") else BATCH
        ax.plot(accuracies, np.full(len(accuracies), row), "o", color=color, alpha=0.5)
        ax.plot(accuracies.mean(), row, "|", color=THEORY, markersize=18, markeredgewidth=2)
    ax.set(ylim=(len(scores) - 0.5, -0.5), xlabel="test accuracy", xlim=(0, 1))
    ax.set_yticks(range(len(scores)), list(scores))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return fig


def two_parts(parts: Mapping[str, tuple[float, float]]) -> Figure:
    """Share of the variance within the batches, and what the paper's formula finds."""
    fig, ax = figure(height=2.3)
    for row, (within, paper) in enumerate(parts.values()):
        ax.barh(row, within, 0.55, color=BATCH)
        ax.barh(row, 1 - within, 0.55, left=within, color=ORANGE)
        ax.plot([paper, paper], [row - 0.42, row + 0.42], color=THEORY, linewidth=2.5)
    ax.text(0.02, -0.62, "within the batches", color=BATCH)
    ax.text(0.99, -0.62, "between their means", color=ORANGE, ha="right")
    ax.set(xlim=(0, 1.06), ylim=(len(parts) - 0.45, -0.95), xlabel="share of the variance")
    ax.set_yticks(range(len(parts)), list(parts))
    ax.grid(visible=False, axis="y")
    return fig


def error_against_rate(
    rates: Sequence[float], kept: Sequence[ArrayLike], removed: Sequence[ArrayLike]
) -> Figure:
    """Errors of running means after training, a line a network: with the start, and without."""
    fig, ax = figure(height=3.3)
    for runs, color in ((removed, INFERENCE), (kept, PLAIN)):
        for errors in runs:
            ax.loglog(rates, np.ravel(errors), color=color, linewidth=1.2)
    ax.text(0.0075, 0.5, "as a layer holds it:\nthe start is still there", color=PLAIN)
    ax.text(rates[0], 0.048, "start taken out:\nwhat is left is lag", color=INFERENCE)
    ax.text(0.98, 0.030, "scatter", color=THEORY, ha="right")
    ax.set(xlabel="weight α of a new batch", ylabel="error of the mean, in σ", ylim=(0.02, 1.5))
    return fig


def averaged_weights(scores: Mapping[str, ArrayLike]) -> Figure:
    """Test accuracy of the last weights and of averaged ones, a line a network."""
    fig, ax = figure(height=3.0)
    values = np.array([np.ravel(each) for each in scores.values()])
    ax.plot(values, "-", color=NEUTRAL, linewidth=1)
    for place, row in enumerate(values):
        color = (BATCH, PLAIN, INFERENCE)[place]
        ax.plot(np.full(len(row), place), row, "o", color=color, alpha=0.8)
    ax.set_xticks(range(len(scores)), list(scores))
    ax.set(ylabel="test accuracy", xlim=(-0.4, len(scores) - 0.6))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return fig


def shifted_inputs(pairs: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Accuracy on shifted inputs, with training's statistics and with those of the inputs."""
    fig, axes = figure(len(pairs), height=2.9, sharey=True)
    for ax, (title, (before, after)) in zip(axes, pairs.items(), strict=True):
        both = np.array([np.ravel(before), np.ravel(after)])
        ax.plot(both, "-", color=NEUTRAL, linewidth=1)
        for place, color in ((0, PLAIN), (1, INFERENCE)):
            ax.plot(np.full(both.shape[1], place), both[place], "o", color=color, alpha=0.8)
        ax.set_xticks([0, 1], ["training's", "their own"])
        ax.set(title=title, xlim=(-0.5, 1.5), ylim=(0, 1.03))
    axes[0].set_ylabel("test accuracy")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set_xlabel("statistics")
    return fig


def layer_gaps(gaps: Mapping[str, ArrayLike]) -> Figure:
    """Each layer's running statistics against exact ones: errors of means, ratios of variances."""
    fig, (left, right) = figure(2, height=3.0)
    for (label, values), color in zip(gaps.items(), WAYS, strict=False):
        shifts, ratios = np.asarray(values).T
        layers = 1 + np.arange(len(shifts))
        left.semilogy(layers, shifts, "o-", color=color, label=label)
        right.semilogy(layers, ratios, "o-", color=color)
    left.set(ylabel="error of the mean, in σ", ylim=(0.003, 10))
    right.set(ylabel="running over exact variance", ylim=(0.8, 8))
    right.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    right.minorticks_off()
    for ax in (left, right):
        ax.set(xlabel="layer", xticks=layers, xlim=(0.7, len(layers) + 0.3))
    left.legend(loc="upper right", fontsize=9, ncols=1)
    return fig


def faults(scores: Mapping[str, ArrayLike], looks: Sequence[str]) -> Figure:
    """Accuracy of sound and faulty networks, a row each, looked at in several ways."""
    fig, ax = figure(height=3.9)
    for row, values in enumerate(scores.values()):
        accuracies = np.ravel(values)
        for column, accuracy in enumerate(accuracies):
            color = PLAIN if accuracy < accuracies.max() - 0.03 else BATCH
            ax.barh(row, 0.86 * accuracy, 0.7, left=column, color=color, alpha=0.35)
            ax.text(column + 0.04, row, f"{accuracy:.0%}", va="center")
    ax.set(xlim=(0, len(looks)), ylim=(len(scores) - 0.5, -0.5))
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set_xticks([place + 0.43 for place in range(len(looks))], looks, fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return fig
