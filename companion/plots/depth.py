"""Figures of the chapter `depth`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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

FUNCTIONS = {"sigmoid": PURPLE, "tanh": ORANGE, "ReLU": INFERENCE}


def _runs(ax: Axes, runs: Sequence[ArrayLike], color: str, first: int = 1) -> None:
    """A thin line for each seed."""
    for run in runs:
        values = np.ravel(run)
        ax.plot(first + np.arange(len(values)), values, color=color, linewidth=1.2)


def fates(norms: Mapping[str, Mapping[str, Sequence[ArrayLike]]]) -> Figure:
    """Gradients by layer as multiples of the last one's: without normalization, and with it."""
    fig, axes = figure(2, height=3.6)
    places = {
        "plain": {"sigmoid": (14, 1e-12), "tanh": (3, 1e-3), "ReLU": (2, 30)},
        "batch": {"sigmoid": (5, 1.3), "tanh": (12, 9), "ReLU": (15, 45)},
    }
    titles = {"plain": "without normalization", "batch": "with batch normalization"}
    for ax, (network, kinds) in zip(axes, norms.items(), strict=True):
        for name, runs in kinds.items():
            color = FUNCTIONS[name]
            _runs(ax, [np.ravel(run) / np.ravel(run)[-1] for run in runs], color)
            ax.text(*places[network][name], name, color=color)
        ax.set(yscale="log", xlabel="layer", title=titles[network])
    axes[0].set(ylabel="gradient (1 at the last layer)", ylim=(1e-20, 1e4))
    axes[1].set(ylim=(0.8, 1000))
    return fig


def similarity(found: Mapping[str, Sequence[ArrayLike]], theory: Mapping[str, ArrayLike]) -> Figure:
    """Correlation of two images of one digit by layer, measured and predicted."""
    fig, ax = figure(height=3.2)
    places = {"sigmoid": (22.5, 0.21), "tanh": (7.2, 0.155), "ReLU": (2.1, 0.1)}
    for name, runs in found.items():
        _runs(ax, runs, FUNCTIONS[name])
        ax.text(*places[name], name, color=FUNCTIONS[name])
        line = np.ravel(theory[name])
        ax.plot(1 + np.arange(len(line)), line, color=THEORY, linestyle=":", linewidth=1.2)
    ax.set(xlabel="layer", ylabel="similarity", ylim=(-0.02, 0.45))
    ax.text(29, 0.4, "dotted: Σ $p_k c^k$, layer by layer", ha="right")
    return fig


def recorded(growths: Mapping[str, Mapping[int, Sequence[float]]], relu: float) -> Figure:
    """Recorded growth per layer against the batch size, every seed, and what is predicted."""
    fig, ax = figure(height=3.2)
    sizes = np.geomspace(6, 700, 200)
    part = np.sqrt((sizes - 2) / (sizes - 3))
    ax.plot(sizes, part, color=THEORY, linestyle="--")
    ax.axhline(relu, color=THEORY, linestyle=":")
    for (kind, by_size), color in zip(growths.items(), (BATCH, INFERENCE), strict=True):
        for m, values in by_size.items():
            ax.plot([m] * len(values), values, "o", color=color, markersize=4)
        last = max(by_size)
        name, above = {"linear": ("linear", 0.01), "relu": ("ReLU", -0.025)}[kind]
        ax.text(last * 1.15, np.mean(by_size[last]) + above, name, color=color)
    ax.text(7.2, 1.145, "√((m−2)/(m−3))")
    ax.text(7.2, 1.222, "√(π/(π−1))")
    ax.set(xscale="log", xlabel="batch size m", ylabel="growth per layer", ylim=(1, 1.25))
    ax.set_xticks([8, 16, 32, 64, 128, 256, 512], ["8", "16", "32", "64", "128", "256", "512"])
    ax.xaxis.set_minor_formatter("")
    return fig


def ranks(
    found: Mapping[str, Mapping[str, Sequence[ArrayLike]]],
    by_width: Mapping[int, Sequence[float]],
    width: int,
) -> Figure:
    """Soft rank by layer, plain and normalized; and its level against the width."""
    fig, axes = figure(3, height=3.2, width_ratios=[1, 1, 1])
    for ax, (kind, networks) in zip(axes, found.items(), strict=False):
        for name, color in (("plain", PLAIN), ("batch", BATCH)):
            _runs(ax, networks[name], color)
        ax.axhline(width**0.5, color=THEORY, linestyle=":")
        ax.set(xscale="log", yscale="log", ylim=(0.9, 20), xlabel="layer", title=kind)
        ax.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        ax.yaxis.set_minor_formatter("")
    axes[0].set_ylabel("soft rank")
    axes[0].text(1.1, 1.05, "plain", color=PLAIN)
    axes[0].text(1.6, 13, "with BN", color=BATCH)
    widths = np.array(sorted(by_width))
    for each, values in by_width.items():
        axes[2].plot([each] * len(values), values, "o", color=BATCH, markersize=4)
    axes[2].plot(widths, widths**0.5, color=THEORY, linestyle=":")
    axes[2].text(widths[0], 9.2, "dotted: √n")
    axes[2].set(xscale="log", yscale="log", xlabel="width n", title="level, linear")
    axes[2].set_xticks(widths, [str(each) for each in widths])
    axes[2].set_yticks([3, 5, 10], ["3", "5", "10"])
    for axis in (axes[2].xaxis, axes[2].yaxis):
        axis.set_minor_formatter("")
    return fig


def shortcuts(
    moments: Mapping[str, Sequence[ArrayLike]],
    gradients: Mapping[str, Sequence[ArrayLike]],
    theory: Mapping[str, ArrayLike],
) -> Figure:
    """Second moments by block, and gradients below so many blocks or layers."""
    fig, (left, right) = figure(2, height=3.4)
    for name, color in (("no normalization", PLAIN), ("γ = 1", BATCH), ("γ = 0", PURPLE)):
        _runs(left, moments[name], color, first=0)
    left.text(29, 1e4, "no normalization", color=PLAIN)
    left.text(38, 200, "γ = 1", color=BATCH)
    left.text(38, 2, "γ = 0", color=PURPLE)
    left.set(yscale="log", xlabel="block", ylabel="mean square", ylim=(0.5, 1e12))
    for name, color in (("stack", INFERENCE), ("γ = 1", BATCH), ("γ = 0", PURPLE)):
        _runs(right, gradients[name], color, first=0)
        if name in theory:
            right.plot(np.ravel(theory[name]), color=THEORY, linestyle="--", linewidth=1.2)
    right.text(26, 4e3, "no shortcuts", color=INFERENCE, ha="right")
    right.text(40, 8, "γ = 1", color=BATCH)
    right.text(40, 0.35, "γ = 0", color=PURPLE)
    right.set(yscale="log", xlabel="blocks or layers below the top", ylabel="gradient")
    right.set(ylim=(0.2, 1e6))
    return fig


def learned(losses: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """Recorded training losses against depth, every seed as a point, their means as lines."""
    fig, ax = figure(height=3.6)
    styles = {
        "relu, plain": ("ReLU, plain", PLAIN, (62, 2.9)),
        "relu": ("ReLU, BN", BATCH, (62, 1.55)),
        "relu, equal turns": ("the same, equal turns", NEUTRAL, (62, 0.9)),
        "sigmoid": ("sigmoid, BN", PURPLE, (62, 0.32)),
        "shortcuts": ("shortcuts", ORANGE, (62, 0.0085)),
        "shortcuts, γ = 0": ("shortcuts, γ = 0", INFERENCE, (62, 0.0032)),
    }
    for kind, (label, color, place) in styles.items():
        depths = sorted(losses[kind])
        means = [np.exp(np.mean(np.log(losses[kind][depth]))) for depth in depths]
        ax.plot(depths, means, color=color, linewidth=1.4)
        for depth in depths:
            ax.plot([depth] * len(losses[kind][depth]), losses[kind][depth], ".", color=color)
        ax.text(*place, label, color=color, va="center")
    ax.axhline(np.log(10), color=THEORY, linestyle=":")
    ax.text(4, 2.9, "guessing", va="center")
    ax.set(yscale="log", xlabel="layers, or blocks", ylabel="training loss", xlim=(3, 86))
    ax.set_xticks([5, 10, 20, 40, 60])
    ax.set_ylim(1e-3, 5)
    return fig
