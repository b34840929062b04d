"""Figures of the chapter `twenty-minutes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import ArrayLike
from torch import Tensor

from companion.modules import BatchNorm1d
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, PLAIN, THEORY, figure


def algorithm_steps(stages: Mapping[str, ArrayLike], features: Sequence[int]) -> Figure:
    """Values of some of the features ``(m, C)`` after each stage: dots, with mean ± deviation."""
    fig, axes = figure(len(stages), height=2.6, sharey=True)
    for ax, (title, values) in zip(axes, stages.items(), strict=True):
        for row, column in enumerate(np.asarray(values)[:, features].T):
            mean, width = column.mean(), column.std()
            ax.plot(column, np.full(len(column), row), "o", color=NEUTRAL, alpha=0.35, markersize=4)
            ax.plot([mean - width, mean + width], [row + 0.25] * 2, color=BATCH, linewidth=3)
            ax.plot(mean, row + 0.25, "o", color=BATCH, markersize=6)
        ax.set(title=title)
    rows = range(len(features))
    axes[0].set_yticks(rows, [f"feature {row + 1}" for row in rows])
    axes[0].set_ylim(len(features) - 0.4, -0.5)
    return fig


def place() -> Figure:
    """A block of a network: linear layer without bias, batch normalization, nonlinearity."""
    fig, ax = figure(height=1.9)
    ax.set_axis_off()
    ax.set(xlim=(0, 100), ylim=(0, 26))
    boxes = [
        ("Linear or Conv\nbias=False", "turns", THEORY, 12),
        ("BatchNorm\nγ, β", "centres and scales, moves by β", BATCH, 42),
        ("ReLU", "bends", THEORY, 72),
    ]
    for words, role, color, left in boxes:
        box = FancyBboxPatch(
            (left, 9), 20, 12, boxstyle="round,pad=0.6", facecolor="none", edgecolor=color
        )
        ax.add_patch(box)
        ax.text(left + 10, 15, words, ha="center", va="center")
        ax.text(left + 10, 3, role, ha="center", va="center", color=color)
    for start, end in [(2, 11), (33, 41), (63, 71), (93, 100)]:
        arrow = {"arrowstyle": "->", "color": NEUTRAL, "linewidth": 1.5}
        ax.annotate("", (end, 15), (start, 15), arrowprops=arrow)
    return fig


def modes(x: Tensor, layer: BatchNorm1d, unit: int, batches: int = 12, m: int = 32) -> Figure:
    """The layer's output for one feature of ``x`` (m, C): a line for each batch, and evaluation's.

    Batches are the first rows of ``x``, `m` at a time.
    """
    fig, ax = figure(height=3.2)
    values = x.detach()[:, unit]
    ends = np.array([values.min(), values.max()])
    gamma, beta = layer.weight[unit].item(), layer.bias[unit].item()

    def line(mean: Tensor, var: Tensor) -> np.ndarray:
        return gamma * (ends - mean.item()) / (var.item() + layer.eps) ** 0.5 + beta

    for number, batch in enumerate(values[: batches * m].split(m)):
        label = None if number else "training: a line for each batch"
        y = line(batch.mean(), batch.var(unbiased=False))
        ax.plot(ends, y, color=BATCH, linewidth=1, alpha=0.7, label=label)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    y = line(layer.running_mean[unit], layer.running_var[unit])
    ax.plot(ends, y, color=INFERENCE, linewidth=3, label="evaluation: one line")
    ax.plot(values, np.full(len(values), ax.get_ylim()[0]), "|", color=NEUTRAL, alpha=0.3)
    ax.set(xlabel="value of the feature", ylabel="output of the layer")
    ax.legend()
    return fig


def company(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Accuracy in both modes, with test batches mixed and of one class each."""
    fig, ax = figure(height=2.6)
    orders = list(scores)
    for order, row in zip(orders, range(len(orders)), strict=True):
        for (mode, value), color, shift in zip(
            scores[order].items(), (BATCH, INFERENCE), (-0.19, 0.19), strict=True
        ):
            ax.barh(row + shift, value, 0.34, color=color)
            ax.text(value + 0.01, row + shift, f"{mode}, {value:.0%}", color=color, va="center")
    ax.set_yticks(range(len(orders)), orders)
    ax.set(xlim=(0, 1.45), xticks=np.linspace(0, 1, 6), xlabel="test accuracy")
    ax.set_ylim(len(orders) - 0.5, -0.5)
    return fig


def small_batches(sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Test accuracy against the batch size of the training, on a logarithmic axis."""
    fig, ax = figure(height=3.2)
    for (label, values), color, marker in zip(
        curves.items(), (BATCH, PLAIN, NEUTRAL), "osD", strict=True
    ):
        ax.semilogx(sizes, values, marker=marker, color=color, label=label)
    ax.set(xlabel="batch size m", ylabel="test accuracy", ylim=(0.5, 1.02))
    ax.set_xticks(sizes, [str(m) for m in sizes])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return fig


def stale(steps: Sequence[int], running: Sequence[float], precise: Sequence[float]) -> Figure:
    """Test accuracy of the same weights with running averages and with exact statistics."""
    fig, ax = figure(height=3.0)
    ax.plot(steps, precise, "o-", color=INFERENCE, label="statistics computed anew")
    ax.plot(steps, running, "s--", color=NEUTRAL, label="running averages")
    ax.set(xlabel="training step", ylabel="test accuracy", ylim=(0, 1.03))
    ax.legend(loc="lower right")
    return fig
