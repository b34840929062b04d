"""Figures of the chapter `covariate-shift-debate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from companion.plots.style import BATCH, NEUTRAL, PLAIN, PURPLE, SKY, figure

Array = NDArray[Any]

_LINES: dict[str, tuple[str, str, Any]] = {
    "plain": ("without normalization", PLAIN, "-"),
    "bn": ("with BN", BATCH, "-"),
    "noisy bn": ("BN and noise", PURPLE, "-."),
    "small bn": ("BN, small weights", SKY, (0, (4, 1.5))),
}


def shifted(inputs: Mapping[str, Sequence[Array]], steps: Sequence[int]) -> Figure:
    """The inputs of one unit in some layers, at several steps, of two networks.

    Parameters
    ----------
    inputs
        for "plain" and "bn", for each step an array ``(layers, images)``
    steps
        one for each
    """
    layers = len(inputs["plain"][0])
    fig, axes = figure(2, layers, height=1.6)
    names = ("first layer", "last hidden layer")
    for column, network in enumerate(("plain", "bn")):
        label, color, _ = _LINES[network]
        for row in range(layers):
            ax = axes[row, column]
            for step, values in zip(steps, inputs[network], strict=True):
                last = step == steps[-1]
                ax.hist(
                    values[row],
                    bins=24,
                    density=True,
                    histtype="stepfilled" if step == steps[0] else "step",
                    color=NEUTRAL if step == steps[0] else color,
                    alpha=0.45 if step == steps[0] else 1,
                    linewidth=1.8 if last else 0.9,
                    label=f"step {step}",
                )
            ax.set_yticks([])
            if column == 0:
                ax.set_ylabel(names[row])
        axes[0, column].set_title(label)
        axes[-1, column].set_xlabel("input of a unit")
    axes[0, 0].legend(loc="upper right", fontsize=9)
    return fig


def by_depth(drifts: Mapping[str, Mapping[str, Array]]) -> Figure:
    """How far one step moves the inputs of each layer.

    Parameters
    ----------
    drifts
        by unit, then for "plain" and "bn" an array ``(seeds, 2, layers)``: δ, then ω
    """
    fig, axes = figure(len(drifts), height=3.4, sharey=True)
    for ax, (unit, networks) in zip(axes, drifts.items(), strict=True):
        for network, found in networks.items():
            label, color, _ = _LINES[network]
            for name, values, line in zip(
                "δω", np.moveaxis(found, 1, 0), ("o-", "s--"), strict=True
            ):
                layers = np.arange(1, values.shape[1] + 1)
                for seed, one in enumerate(values):
                    ax.semilogy(
                        layers,
                        one,
                        line,
                        color=color,
                        markersize=3,
                        linewidth=1,
                        markerfacecolor="none" if name == "ω" else color,
                        label=f"{name}, {label}" if seed == 0 else None,
                    )
        ax.set(title=unit, xlabel="hidden layer", xticks=layers[::2], ylim=(3e-5, 3e3))
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("moved by one step, in σ")
    axes[0].legend(loc="upper left", fontsize=8)
    return fig


def joint(before: ArrayLike, after: ArrayLike, steps: Sequence[int]) -> Figure:
    """Two normalized features against each other, at two steps; arrays are ``(images, 2)``."""
    fig, axes = figure(2, height=3.4, sharex=True, sharey=True)
    for ax, pair, step in zip(axes, (before, after), steps, strict=True):
        first, second = np.asarray(pair).T
        ax.plot(first, second, ".", color=BATCH, markersize=3, alpha=0.6)
        correlation = f"{np.corrcoef(first, second)[0, 1]:.2f}".replace("-", "−")
        ax.set(title=f"step {step}: correlation {correlation}", xlabel="x̂ of one unit")
        ax.set_aspect("equal")
    axes[0].set_ylabel("x̂ of another")
    return fig


def gradient_shifts(shifts: Mapping[str, Mapping[str, Array]]) -> Figure:
    """How far the steps below change each layer's gradient: arrays ``(seeds, layers)``."""
    fig, axes = figure(len(shifts), height=3.2, sharey=True)
    for ax, (setting, networks) in zip(axes, shifts.items(), strict=True):
        for network, found in networks.items():
            label, color, _ = _LINES[network]
            layers = np.arange(1, found.shape[1] + 1)
            for seed, one in enumerate(found):
                name = label if seed == 0 else None
                ax.plot(layers, one, "o-", color=color, markersize=3, linewidth=1, label=name)
        ax.set(title=setting, xlabel="layer of weights", xticks=layers[::2], ylim=(0, 1.5))
    axes[0].set_ylabel("change ÷ length")
    axes[0].legend(loc="upper left", fontsize=9)
    return fig


def _seeds(ax: Axes, network: str, x: ArrayLike, values: ArrayLike) -> None:
    """The mean over seeds as a line, and what lies between the smallest and the largest."""
    label, color, line = _LINES[network]
    found = np.array(values, dtype=float)
    ax.fill_between(x, found.min(0), found.max(0), color=color, alpha=0.2, linewidth=0)
    ax.plot(x, found.mean(0), color=color, linestyle=line, label=label)


def noisy(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure:
    """Test accuracy and drift over training, of the recorded runs of each network."""
    fig, (left, right) = figure(2, height=3.4)
    for network, runs in curves.items():
        steps = runs[0]["step"]
        _seeds(left, network, steps, [run["accuracy"] for run in runs])
        _seeds(right, network, steps[1:], [run["drift"][1:] for run in runs])
    left.set(xlabel="step", ylabel="test accuracy", ylim=(0, 1))
    right.set(xlabel="step", ylabel="drift in ten steps, in σ", yscale="log", ylim=(1e-4, 3))
    left.legend(loc="lower right")
    return fig


def rates(found: Mapping[str, Mapping[float, Mapping[str, Sequence[float | None]]]]) -> Figure:
    """Final loss and mean drift at each learning rate; what is not finite is left out.

    Parameters
    ----------
    found
        by network, rate, and "loss" or "drift": a number for each seed
    """
    fig, axes = figure(2, height=3.6)
    for network, by_rate in found.items():
        label, color, line = _LINES[network]
        for ax, name in zip(axes, ("loss", "drift"), strict=True):
            whole = {}
            for rate, scalars in by_rate.items():
                known = [value for value in scalars[name] if value is not None]
                ax.plot([rate] * len(known), known, ".", color=color, markersize=4, alpha=0.7)
                if len(known) == len(scalars[name]):
                    whole[rate] = np.exp(np.mean(np.log(known)))
            ax.plot(list(whole), list(whole.values()), color=color, linestyle=line, label=label)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="learning rate")
    axes[0].set(ylabel="training loss after 300 steps", ylim=(0.01, 300))
    axes[1].set(ylabel="drift in ten steps, in σ", ylim=(5e-5, 30))
    axes[0].legend(loc="upper left", fontsize=9, handlelength=3)
    return fig


def doses(
    noisy: Mapping[float, tuple[Sequence[float], Sequence[float]]],
    plain: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Figure:
    """Loss against drift, for noise whose shifts reach so far; and of the plain network.

    Parameters
    ----------
    noisy
        by the largest shift of a channel, drifts and losses, one for each seed
    plain
        the same by what is said of the plain network
    """
    fig, ax = figure(height=3.4)
    named = {"quiet" if not reach else f"to {reach:g}": found for reach, found in noisy.items()}
    for group, color, mark in ((named, PURPLE, "o"), (plain, PLAIN, "^")):
        for text, (drifts, losses) in group.items():
            shown = BATCH if text == "quiet" else color
            above = mark == "o" or min(losses) > 1
            ax.plot(drifts, losses, mark, color=shown, markersize=5)
            ax.annotate(
                text,
                (float(np.mean(drifts)), max(losses) if above else min(losses)),
                xytext=(0, 8 if above else -16),
                textcoords="offset points",
                ha="center",
                fontsize=10,
                color=shown,
            )
    ax.set(xscale="log", yscale="log", xlabel="drift in ten steps, in σ")
    ax.set(ylabel="training loss", ylim=(0.02, 6), xlim=(0.008, 4))
    return fig


def ranges(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure:
    """The range of the loss along its gradient, over training; every recorded run."""
    fig, ax = figure(height=3.2)
    for network, runs in curves.items():
        label, color, _ = _LINES[network]
        for seed, run in enumerate(runs):
            name = label if seed == 0 else None
            ax.semilogy(run["step"], run["loss_range"], color=color, linewidth=1, label=name)
    ax.set(xlabel="step", ylabel="range of the loss")
    ax.legend(loc="lower left")
    return fig
