"""Figures of the chapter `recurrent`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion import closed_forms
from companion.experiments.recorded import trials
from companion.plots.style import (
    BATCH,
    INFERENCE,
    NAVY,
    NEUTRAL,
    ORANGE,
    PLAIN,
    PURPLE,
    THEORY,
    figure,
)

GAMMAS = {0.1: PURPLE, 1.0: BATCH}
NORMS = {"plain": PLAIN, "bn 0.1": BATCH, "bn 1": NAVY, "layer": ORANGE}
READ = {
    "every step": "statistics for every step",
    "shared": "one set of statistics",
    "layer": "layer normalization",
}
SAID = {
    "plain": "none",
    "bn 0.1": "batch, γ = 0.1",
    "bn 1": "batch, γ = 1",
    "layer": "layer, γ = 1",
}


def steps_back(norms: Mapping[tuple[str, float], Sequence[ArrayLike]]) -> Figure:
    """Gradients by the number of steps back, of each start of W_h and each γ; all seeds."""
    fig, axes = figure(2, height=3.4, sharey=True)
    starts = list(dict.fromkeys(start for start, _ in norms))
    for ax, start in zip(axes, starts, strict=True):
        for (kind, gamma), runs in norms.items():
            for number, run in enumerate(runs if kind == start else ()):
                values = np.ravel(run)
                label = f"γ = {gamma:g}" if number == 0 else None
                ax.plot(values / values[0], color=GAMMAS[gamma], linewidth=1.2, label=label)
        ax.set(yscale="log", xlabel="steps back", title=f"recurrent weights: {start}")
    axes[0].set(ylabel="gradient / the last step's")
    axes[0].legend(loc="lower left")
    return fig


def factors(measured: Mapping[tuple[float, float], Sequence[float]]) -> Figure:
    """Factors of a step against γ_h, by γ_x/γ_h: predicted lines, and measured points."""
    fig, ax = figure(height=3.6)
    gammas = np.geomspace(0.08, 2.5, 60)
    shown = {0.0: BATCH, 0.2: INFERENCE, 1.0: PLAIN}
    for ratio, color in shown.items():
        share = 1 / (1 + ratio**2)
        widths = gammas * np.hypot(1, ratio)
        predicted = [closed_forms.recurrent_factor(width, share) for width in widths]
        ax.plot(gammas, predicted, color=color)
        for (gamma, other), values in measured.items():
            if other == ratio:
                ax.plot([gamma] * len(values), values, "o", color=color, markersize=5)
        text = {0.0: "no input", 1.0: "γₓ = γₕ"}.get(ratio, f"γₓ = {ratio:g} γₕ")
        lift = {0.0: 5, 0.2: -11, 1.0: -4}[ratio]
        ax.annotate(text, (gammas[-1], predicted[-1]), (6, lift), textcoords="offset points")
    slopes = [closed_forms.tanh_slope(gamma) for gamma in gammas]
    ax.plot(gammas, slopes, color=THEORY, linestyle="--")
    ax.text(0.095, 0.79, "dashed: mean slope of tanh", color=THEORY)
    ax.axhline(1, color=NEUTRAL, linewidth=1)
    ax.set(xscale="log", xlabel="γₕ", ylabel="factor of a step", ylim=(0.3, 1.45), xlim=(0.08, 4.2))
    ticks = (0.1, 0.3, 1.0, 2.0)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    return fig


def heaps(values: Mapping[str, ArrayLike]) -> Figure:
    """Histograms of what a unit's normalized values are at several steps."""
    fig, axes = figure(len(values), height=2.5, sharey=True)
    for ax, (label, x_hat) in zip(axes, values.items(), strict=True):
        ax.hist(np.ravel(x_hat), bins=np.linspace(-2.6, 2.6, 40).tolist(), color=BATCH)
        ax.set(title=label, xlabel="x̂", yticks=[])
    return fig


def over_time(means: Mapping[str, ArrayLike]) -> Figure:
    """Means of some units' term at each step, ``(steps, units)``, a panel a term."""
    fig, axes = figure(len(means), height=2.8, sharey=True)
    for ax, (label, each) in zip(axes, means.items(), strict=True):
        values = np.asarray(each)
        ax.plot(np.arange(1, len(values) + 1), values, color=INFERENCE, linewidth=1.2)
        ax.set(xlabel="step", title=label, xticks=range(5, len(values) + 1, 5))
    axes[0].set_ylabel("mean, in standard deviations")
    return fig


def lengths(curves: Mapping[str, ArrayLike], trained: int) -> Figure:
    """Accuracy at each step, ``(seeds, steps)``, of networks that saw `trained` steps."""
    fig, ax = figure(height=3.0)
    for (label, each), color in zip(curves.items(), (BATCH, NAVY, ORANGE), strict=True):
        values = np.asarray(each)
        steps = np.arange(3, 3 + values.shape[1])
        ax.plot(steps, values.mean(axis=0), color=color, label=READ[label], linewidth=1.4)
    ax.axvline(trained, color=NEUTRAL, linestyle="--", linewidth=1)
    ax.text(trained + 0.6, 0.86, "beyond the training's length")
    ax.set(xlabel="step", ylabel="test accuracy", ylim=(0.84, 1.0))
    ax.legend(loc="lower right")
    return fig


def rates(run: dict[str, Any]) -> Figure:
    """Test accuracies of a recorded run against the learning rate, all seeds."""
    fig, axes = figure(2, height=3.4, sharey=True)
    chosen = run["config"]["rates"]
    for ax, (cell, title) in zip(axes, {"rnn": "tanh", "lstm": "LSTM"}.items(), strict=True):
        for place, (norm, color) in enumerate(NORMS.items()):
            found = [
                [trial["scalars"]["accuracy"] for trial in trials(run, f"{cell} {norm}, {rate:g}")]
                for rate in chosen
            ]
            at = np.asarray(chosen) * 1.07 ** (place - 1.5)
            ax.plot(at, [np.mean(each) for each in found], color=color, label=SAID[norm])
            for x, each in zip(at, found, strict=True):
                ax.plot([x] * len(each), each, ".", color=color, markersize=4)
        ax.set(xscale="log", xlabel="learning rate η", title=title)
        ax.set_xticks(chosen, [f"{rate:g}" for rate in chosen])
        ax.set_xticks([], minor=True)
    axes[0].set_ylabel("test accuracy")
    axes[1].legend(loc="lower left")
    return fig
