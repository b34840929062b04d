"""Figures of the chapter `reproducing-the-paper`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, NAVY, NEUTRAL, PLAIN, PURPLE, SKY, THEORY, figure

Curves = Mapping[str, Sequence[float]]
"""Curves by name, as an experiment records them; "step" is among them."""

_NETWORKS = {"plain": ("without normalization", PLAIN), "bn": ("with BN", BATCH)}
_VARIANTS = {  # the blues are close in the dark theme, so each has a line of its own
    "plain": ("plain", PLAIN, "-"),
    "bn-baseline": ("BN", SKY, (0, (4, 1.5))),
    "bn-x5": ("BN ×5", BATCH, "-"),
    "bn-x30": ("BN ×30", NAVY, (0, (6, 1.5, 1, 1.5))),
    "bn-x5-sigmoid": ("BN ×5, sigmoid", PURPLE, (0, (1, 1))),
}


def _mean_and_range(ax: Axes, trials: Sequence[Curves], color: str, **options: Any) -> None:
    """The mean over seeds as a line, and everything between the smallest and the largest."""
    steps = trials[0]["step"]
    accuracy = np.array([trial["accuracy"] for trial in trials])
    ax.fill_between(
        steps, accuracy.min(axis=0), accuracy.max(axis=0), color=color, alpha=0.25, linewidth=0
    )
    ax.plot(steps, accuracy.mean(axis=0), color=color, **options)


def accuracy(curves: Mapping[str, Curves], threshold: float) -> Figure:
    """Test accuracy over training, of one run of each network."""
    fig, ax = figure(height=3.2)
    for network, (label, color) in _NETWORKS.items():
        run = curves[network]
        ax.plot(run["step"], run["accuracy"], color=color, label=label)
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.35))
    ax.axhline(threshold, color=NEUTRAL, linestyle=":")
    ax.set(xlabel="step", ylabel="test accuracy", ylim=(0, 1))
    return fig


def bands(curves: Mapping[str, Curves]) -> Figure:
    """The {15, 50, 85}th percentiles of one unit's input over training, a panel per network."""
    fig, axes = figure(2, height=3.2, sharey=True)
    for ax, (network, (label, color)) in zip(axes, _NETWORKS.items(), strict=True):
        run = curves[network]
        ax.fill_between(run["step"], run["low"], run["high"], color=color, alpha=0.2, linewidth=0)
        for name, width in (("low", 1.0), ("median", 2.0), ("high", 1.0)):
            ax.plot(run["step"], run[name], color=color, linewidth=width)
        ax.set(title=label, xlabel="step")
    axes[0].set_ylabel("input of the unit")
    return fig


def forgetting(
    spreads: Mapping[str, ArrayLike], gradients: Mapping[str, ArrayLike], factor: float
) -> Figure:
    """Spread over images, forward, and size of the gradient, backward, by layer.

    Parameters
    ----------
    spreads, gradients
        for "plain" and "bn", a number for each hidden layer
    factor
        by which both shrink from layer to layer, at most, by the theorem
    """
    fig, axes = figure(2, height=3.0)
    for network, (label, color) in _NETWORKS.items():
        spread, gradient = np.asarray(spreads[network]), np.asarray(gradients[network])
        layers = np.arange(1, len(spread) + 1)
        axes[0].semilogy(layers, spread, "o-", color=color, label=label)
        axes[1].semilogy(layers, gradient, "o-", color=color)
        if network == "plain":
            down = factor ** (layers - 1.0)
            axes[0].semilogy(layers, spread[0] * down, "--", color=THEORY, linewidth=1)
            axes[1].semilogy(layers, gradient[-1] * down[::-1], "--", color=THEORY, linewidth=1)
    axes[0].legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    axes[0].set(title="forward", ylabel="spread over images")
    axes[1].set(title="backward", ylabel="size of the gradient")
    for ax in axes:
        ax.set(xlabel="hidden layer", xticks=layers)
        ax.yaxis.set_minor_formatter(NullFormatter())
    return fig


def controls(curves: Mapping[str, Mapping[str, Sequence[Curves]]], threshold: float) -> Figure:
    """Test accuracy of each network under each setting: the mean and the range over seeds.

    Parameters
    ----------
    curves
        by network, then by setting, the runs
    threshold
        an accuracy to draw a line at
    """
    fig, axes = figure(2, height=3.4, sharey=True)
    styles = ("-", "--", "-.", ":")
    for ax, (network, (label, color)) in zip(axes, _NETWORKS.items(), strict=True):
        for (setting, runs), line in zip(curves[network].items(), styles, strict=True):
            _mean_and_range(ax, runs, color, linestyle=line, label=setting)
        ax.axhline(threshold, color=NEUTRAL, linestyle=":", linewidth=1)
        ax.set(title=label, xlabel="step", ylim=(0, 1), xlim=(0, 6000))
    axes[0].set_ylabel("test accuracy")
    axes[0].legend(loc="lower right", fontsize=9)
    return fig


def figure_1(curves: Mapping[str, Sequence[Curves]]) -> Figure:
    """Figure 1(a): test accuracy, the mean and the range over seeds, early and to the end."""
    fig, (early, whole) = figure(2, height=3.4)
    for network, (label, color) in _NETWORKS.items():
        for ax in (early, whole):
            _mean_and_range(ax, curves[network], color, label=label)
    early.set(xlabel="step", ylabel="test accuracy", xlim=(0, 6000), ylim=(0, 1), title="early")
    whole.set(xlabel="step", ylim=(0.9, 0.985), title="to the end", xticks=[0, 25_000, 50_000])
    early.legend(loc="lower right")
    return fig


def figure_2(curves: Mapping[str, Sequence[Curves]]) -> Figure:
    """Figure 2 in small: test accuracy of the five variants, the mean and the range over seeds."""
    fig, ax = figure(height=3.8)
    for variant, (label, color, line) in _VARIANTS.items():
        _mean_and_range(ax, curves[variant], color, linestyle=line, label=label)
    ax.set(xlabel="step", ylabel="test accuracy", ylim=(0.9, 0.995))
    ax.legend(loc="lower right", handlelength=3.5)
    return fig
