"""Figures of the chapter `bias-drift`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
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

STOPS = {"neither": BATCH, "μ": PURPLE, "σ": ORANGE, "both": PLAIN}
WAYS = (BATCH, ORANGE, PURPLE, PLAIN, INFERENCE)


def marching(u: ArrayLike, biases: Mapping[str, float]) -> Figure:
    """Inputs u + b and outputs of a centred layer at several steps, a row each."""
    fig, axes = figure(2, len(biases), height=1.15, sharex="col", sharey=True)
    values = np.ravel(u)
    for (left, right), (label, bias) in zip(axes, biases.items(), strict=True):
        x = values + bias
        left.hist(x, bins=18, color=PLAIN)
        right.hist(x - x.mean(), bins=18, color=BATCH)
        left.set_ylabel(label)
        for ax in (left, right):
            ax.set_yticks([])
    axes[0, 0].set_title("before the centring: x = u + b")
    axes[0, 1].set_title("after it: y = x − mean")
    axes[-1, 0].set_xlabel("x (cm)")
    axes[-1, 1].set_xlabel("y (cm)")
    return fig


def stops(paths: Mapping[str, ArrayLike]) -> Figure:
    """Paths of (b, w) under descent whose gradient stops at the mean, the width, both, neither."""
    fig, ax = figure(height=3.4)
    places = {"neither": (-10, -4), "μ": (-4, 8), "σ": (10, 0), "both": (8, -4)}
    for stopped, path in paths.items():
        points = np.asarray(path)
        color = STOPS[stopped]
        ax.plot(*points.T, ".-", color=color, markersize=6)
        ax.annotate(
            f"{stopped} stopped" if stopped != "neither" else "neither stopped",
            points[-1],
            xytext=places[stopped],
            textcoords="offset points",
            color=color,
            ha="right" if stopped == "neither" else "left",
        )
    ax.plot(0, 1, "o", color=STOPS["neither"], markersize=8)
    ax.set(xlabel="bias b (cm)", ylabel="weight w", xlim=(-0.3, 0.9), ylim=(0, 3.6))
    return fig


def widths(
    growing: ArrayLike, law: ArrayLike, shrinking: ArrayLike, losses: tuple[float, float]
) -> Figure:
    """A weight whose width descent ignores: targets wider than 1, and narrower."""
    fig, (left, right) = figure(2, height=3.2)
    left.plot(np.ravel(growing), color=PLAIN)
    left.plot(np.ravel(law), color=THEORY, linestyle="--")
    left.text(0.97, 0.06, "dashed: √(w₀² + 2ηT|H|)", ha="right", transform=left.transAxes)
    left.set(xlabel="step", ylabel="weight w", title="targets in mm: grows")
    w = np.ravel(shrinking)
    right.axhline(0, color=NEUTRAL, linewidth=1)
    right.plot(w, color=PLAIN, linewidth=1, marker=".", markersize=4)
    right.text(len(w) - 1, 9.6, f"loss {losses[0]:.2f}", ha="right")
    right.text(0, 2.0, f"loss {losses[0]:.2f}")
    right.text(22, 0.4, f"loss {losses[1]:.2f}, one step long")
    right.set(xlabel="step", title="targets in cm: shrinks, is thrown")
    return fig


def blown(curves: Mapping[str, Sequence[ArrayLike]]) -> Figure:
    """Training losses of several seeds, by what the gradient knows of the statistics."""
    fig, ax = figure(height=3.4)
    for color, (label, runs) in zip(WAYS, curves.items(), strict=True):
        for number, losses in enumerate(runs):
            values = np.ravel(losses)
            known = values[np.isfinite(values)]
            name = label if number == 0 else None
            ax.plot(1 + np.arange(len(known)), known, color=color, linewidth=1.2, label=name)
    ax.set(xscale="log", yscale="log", ylim=(1e-2, 1e6), xlabel="step", ylabel="training loss")
    ax.legend(loc="upper right")
    return fig
