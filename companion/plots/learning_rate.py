"""Figures of the chapter `learning-rate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, NAVY, NEUTRAL, ORANGE, PLAIN, PURPLE, SKY, THEORY, figure

Accuracies = Mapping[float, Sequence[float]]
"""Of several seeds, by learning rate."""

_NETWORKS = {"plain": ("without normalization", PLAIN), "bn": ("with batch normalization", BATCH)}

_ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}


def steps_needed(
    rates: ArrayLike, steps: ArrayLike, plain_rates: ArrayLike, plain_steps: ArrayLike, limit: float
) -> Figure:
    """Steps to the optimum against the learning rate, of a normalized and of a plain unit."""
    fig, ax = figure(height=3.4)
    ax.loglog(np.ravel(rates), np.ravel(steps), "o-", color=BATCH, markersize=5)
    ax.loglog(np.ravel(plain_rates), np.ravel(plain_steps), "s-", color=PLAIN, markersize=4)
    ax.axvline(limit, color=PLAIN, linestyle="--", linewidth=1.2)
    ax.text(limit * 1.2, 1.5e5, f"the plain unit diverges beyond {limit:.2f}", color=PLAIN)
    ax.text(30, 60, "normalized", color=BATCH)
    ax.text(2e-2, 1.2e4, "plain", color=PLAIN)
    ax.set(xlabel="learning rate η", ylabel="steps to the optimum", ylim=(20, 4e5))
    return fig


def plane(paths: Mapping[str, ArrayLike], best: ArrayLike) -> Figure:
    """Paths of two weights; directions as they are, norms on a logarithmic scale."""
    fig, ax = figure(height=4.6)
    turn = np.linspace(0, 2 * np.pi, 181)
    for power in range(5):
        ax.plot(*((1 + power) * np.array([np.cos(turn), np.sin(turn)])), color=NEUTRAL, lw=0.8)
        ax.text(0, -(1 + power) + 0.08, f"{10**power:,}", color=NEUTRAL, ha="center", fontsize=9)
    ray = np.ravel(best) / np.linalg.norm(best)
    ax.plot(*np.outer(ray, [0, 5.6]), color=THEORY, linestyle="--", linewidth=1.2)
    ax.text(*(5.0 * ray + [0.25, -0.3]), "best direction")
    for (label, path), color in zip(paths.items(), (SKY, BATCH, NAVY), strict=True):
        points = np.asarray(path)
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        x, y = (points / norms * (1 + np.log10(norms))).T
        ax.plot(x, y, ".-", color=color, markersize=4, linewidth=1.2)
        ax.annotate(label, (x[1], y[1]), xytext=(-6, 2), textcoords="offset points", ha="right")
    ax.set(aspect="equal", xticks=[], yticks=[], ylim=(-5.3, 5.6))
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return fig


def largest_rates(
    plain: Accuracies, everything: Accuracies, hidden: Accuracies, warmed: Accuracies
) -> Figure:
    """Accuracy against the learning rate, each seed a point and their mean a line."""
    fig, ax = figure(height=3.8)
    lines = (
        ("without normalization", plain, PLAIN, "s", "-"),
        ("with BN, all parameters at η", everything, BATCH, "o", "-"),
        ("with BN, only hidden weights at η", hidden, ORANGE, "^", "-"),
        ("the same, η warmed up", warmed, PURPLE, "v", "--"),
    )
    for label, runs, color, marker, dash in lines:
        means = [np.mean(values) for values in runs.values()]
        ax.semilogx(list(runs), means, dash, color=color, label=label)
        for rate, values in runs.items():
            spots = np.full(len(values), rate)
            ax.semilogx(spots, values, marker, color=color, markersize=4, alpha=0.6)
    ax.axhline(0.1, color=NEUTRAL, linestyle=":")
    ax.text(3e4, 0.12, "guessing", color=NEUTRAL, ha="right", va="bottom")
    ax.set(xlabel="learning rate η", ylabel="test accuracy", ylim=(0, 1.04))
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.45))
    return fig


def effective_rates(curves: Mapping[str, Mapping[float, ArrayLike]]) -> Figure:
    """Effective learning rates of hidden weights over the steps, by schedule and learning rate."""
    fig, axes = figure(2, height=3.2, sharey=True)
    for ax, (schedule, runs) in zip(axes, curves.items(), strict=True):
        for (rate, rates), color, dash in zip(
            runs.items(), (SKY, BATCH, NAVY), ("-", "--", "-."), strict=True
        ):
            values = np.ravel(rates)
            label = f"η = {rate:,g}"
            ax.loglog(1 + np.arange(len(values)), values, dash, color=color, label=label)
        ax.set(title=schedule, xlabel="step")
    axes[1].legend(loc="lower right")
    axes[0].set_ylabel("effective rate η/‖w‖²")
    return fig


def initializations(
    grid: Mapping[str, Mapping[str, ArrayLike]], scales: Sequence[str], rates: Sequence[float]
) -> Figure:
    """Accuracies by initial scale and learning rate: a row a network, a column an activation.

    Parameters
    ----------
    grid
        for "plain" and "bn", for each activation, an array (scales, rates)
    scales, rates
        what stands beside and below the maps
    """
    fig, axes = figure(3, 2, height=2.5, sharex=True, sharey=True)
    shades = LinearSegmentedColormap.from_list("accuracy", ["#ffffff", BATCH])
    for row, (network, maps) in zip(axes, grid.items(), strict=True):
        for ax, (activation, values) in zip(row, maps.items(), strict=True):
            found = np.asarray(values)
            ax.imshow(found, cmap=shades, vmin=0, vmax=1, aspect="auto")
            for (y, x), value in np.ndenumerate(found):
                color = "#ffffff" if value > 0.55 else "#000000"
                ax.text(x, y, f"{value:.2f}", color=color, ha="center", va="center")
            ax.set_title(f"{_ACTIVATIONS[activation]}, {'with BN' if network == 'bn' else 'plain'}")
            ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
            ax.set_yticks(range(len(scales)), list(scales))
            ax.grid(visible=False)
    for ax in axes[-1]:
        ax.set_xlabel("learning rate")
    for ax in axes[:, 0]:
        ax.set_ylabel("scale of the weights")
    return fig


def saturated(
    steps: ArrayLike, runs: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]]
) -> Figure:
    """Share of saturated units and accuracy over training, a column an activation.

    Parameters
    ----------
    steps
        at which the curves have their values
    runs
        by activation, then by network, "plain" and "bn", the curves "saturated" and "accuracy",
        arrays (seeds, steps)
    """
    fig, axes = figure(2, 2, height=2.3, sharex=True, sharey=True)
    named = {"saturated": "saturated units", "accuracy": "test accuracy"}
    for column, (activation, networks) in zip(axes.T, runs.items(), strict=True):
        for ax, (curve, label) in zip(column, named.items(), strict=True):
            for network, curves in networks.items():
                name, color = _NETWORKS[network]
                values = np.asarray(curves[curve])
                span = values.min(axis=0), values.max(axis=0)
                ax.fill_between(np.ravel(steps), *span, color=color, alpha=0.25, linewidth=0)
                ax.plot(np.ravel(steps), values.mean(axis=0), color=color, label=name)
            ax.set(title=f"{activation}: {label}", ylim=(-0.03, 1))
        column[-1].set_xlabel("step")
    axes[0, 1].legend(loc="upper right", fontsize=9, bbox_to_anchor=(1, 0.5))
    return fig
