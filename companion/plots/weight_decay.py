"""Figures of the chapter `weight-decay`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

from companion import closed_forms
from companion.plots.style import BATCH, NAVY, NEUTRAL, PLAIN, PURPLE, SKY, THEORY, figure

_SHADES = (SKY, BATCH, NAVY)  # of the colour of batch statistics, light to dark


def three_starts(
    lengths: Mapping[str, ArrayLike],
    angles: Mapping[str, ArrayLike],
    laws: Mapping[str, ArrayLike],
    rest: float,
) -> Figure:
    """Length and angle per step of weights from several starts; `laws` are dashed."""
    fig, (left, right) = figure(2, height=3.3)
    for color, (label, values) in zip(_SHADES, lengths.items(), strict=True):
        left.plot(np.ravel(values), color=color, label=label)
        right.plot(np.ravel(angles[label]), color=color, linewidth=1)
    for values in laws.values():
        left.plot(np.ravel(values), color=THEORY, linestyle="--", linewidth=1.2)
    right.axhline(rest, color=THEORY, linestyle="--", linewidth=1.2)
    right.text(0.97, 0.88, "dashed: arccos(1 − ηλ)", ha="right", transform=right.transAxes)
    left.legend(title="at the start", alignment="left")
    left.set(xlabel="step", ylabel="length of a unit's weights", yscale="log")
    right.set(xlabel="step", ylabel="angle of a step (radians)", yscale="log")
    return fig


def one_step(kept: float) -> Figure:
    """A step in equilibrium: decay leaves `kept` of w, the gradient makes up for the rest."""
    fig, ax = figure(height=3.2)
    across, angle = math.sqrt(1 - kept**2), math.degrees(math.acos(kept))
    ax.add_patch(Arc((0, 0), 2, 2, theta1=-8, theta2=angle + 12, color=NEUTRAL, linestyle=":"))
    ax.add_patch(Arc((0, 0), 0.5, 0.5, theta1=0, theta2=angle, color=THEORY))
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linewidth": 2}
    for start, end, color in (
        ((0, 0), (1, 0), BATCH),
        ((0, 0), (kept, across), BATCH),
        ((1, -0.025), (kept, -0.025), PURPLE),
        ((kept, 0), (kept, across), PLAIN),
    ):
        ax.annotate("", end, start, arrowprops={**arrow, "color": color})
    ax.text(0.37, -0.1, "w", color=BATCH)
    ax.text(0.22, 0.44, "w after the step", color=BATCH, ha="right")
    ax.text((1 + kept) / 2, -0.12, "−ηλw", color=PURPLE, ha="center")
    ax.text(kept - 0.02, 0.16, "−η∇L", color=PLAIN, ha="right")
    ax.text(0.27, 0.08, "θ", color=THEORY)
    ax.text(1.03, 0.12, "same length", color=NEUTRAL)
    ax.set(xlim=(-0.3, 1.5), ylim=(-0.17, 0.85), aspect="equal")
    ax.axis("off")
    return fig


def recorded(runs: Mapping[tuple[float, float], Sequence[Mapping[str, Any]]]) -> Figure:
    """Lengths and angles of recorded runs, all seeds, by learning rate and decay."""
    fig, (left, right) = figure(2, height=3.4)
    for color, ((rate, decay), trials) in zip(_SHADES, runs.items(), strict=True):
        for number, curves in enumerate(trials):
            steps, angles = np.array(curves["step"]), np.array(curves["angle"])
            left.plot(steps, curves["norm"], color=color, linewidth=1)
            # The first look has no step before it.
            mean = np.sqrt(np.convolve(angles[1:] ** 2, np.ones(9) / 9, "valid"))
            label = f"η = {rate:g}, λ = {decay:g}" if number == 0 else None
            right.plot(steps[5:-4], mean, color=color, linewidth=1, label=label)
        rest = closed_forms.equilibrium_angle(rate, decay)
        right.axhline(rest, color=THEORY, linestyle="--", linewidth=1.2, zorder=3)
    left.set(xlabel="step", ylabel="length of a unit's weights", yscale="log")
    left.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel="step", ylabel="angle of a step (radians)", ylim=(0, 0.25))
    right.legend(loc="upper left", fontsize=9)
    return fig


def same_path(
    lengths: Mapping[str, ArrayLike], losses: Mapping[str, ArrayLike], rates: ArrayLike
) -> Figure:
    """A run with decay and one with a growing rate: their lengths, the rate, and their losses."""
    fig, (left, right) = figure(2, height=3.3)
    styles = ((BATCH, 4.0), (PURPLE, 1.4))
    for (label, values), (color, width) in zip(lengths.items(), styles, strict=True):
        left.plot(np.ravel(values), color=color)
        right.plot(np.ravel(losses[label]), color=color, linewidth=width, label=label)
    left.plot(np.ravel(rates), "--", color=PURPLE, linewidth=1.4)
    left.text(150, 1.2, "length, with decay", color=BATCH)
    left.text(10, 14, "length, growing η", color=PURPLE)
    left.text(60, 0.3, "the growing η", color=PURPLE)
    left.set(xlabel="step", yscale="log", title="lengths and learning rate")
    right.set(xlabel="step", yscale="log", title="training loss")
    right.legend(loc="upper right")
    return fig


def drop(angles: ArrayLike, losses: ArrayLike, at: int, levels: Sequence[float]) -> Figure:
    """Angle and loss of a run whose learning rate drops; `levels` are the angles at rest."""
    fig, (left, right) = figure(2, height=3.2)
    values = np.ravel(angles)
    left.plot(values, color=BATCH, linewidth=1)
    for level, ends in zip(levels, ((0, at), (at, len(values))), strict=True):
        left.plot(ends, [level, level], color=THEORY, linestyle="--")
    mean = np.convolve(np.ravel(losses), np.ones(100) / 100, "valid")
    right.plot(50 + np.arange(len(mean)), mean, color=BATCH, linewidth=1.4)
    left.text(0.97, 0.88, "dashed: arccos(1 − ηλ)", ha="right", transform=left.transAxes)
    left.set(xlabel="step", ylabel="angle of a step (radians)", yscale="log")
    right.set(xlabel="step", ylabel="training loss, over 100 steps")
    return fig


def places(losses: Mapping[str, ArrayLike], lengths: Mapping[str, ArrayLike]) -> Figure:
    """What decay does, by what decays: the training loss, and the length of what decays."""
    fig, (left, right) = figure(2, height=2.6, sharey=True)
    for row, (place, values) in enumerate(losses.items()):
        dots = {"color": BATCH, "markersize": 6, "alpha": 0.7}
        left.plot(np.ravel(values), np.full(np.size(values), -row), "o", **dots)
        for shift, mark, part in zip(
            (0.12, -0.12), "os", np.transpose(lengths[place]), strict=True
        ):
            color = (BATCH, PURPLE)[mark == "s"]
            right.plot(part, np.full(len(part), shift - row), mark, color=color, markersize=5)
    first, last = np.asarray(next(iter(lengths.values())))[0]
    right.text(first - 0.3, 0.12, "first layer", color=BATCH, ha="right", va="center", fontsize=9)
    right.text(last - 0.3, -0.14, "last layer", color=PURPLE, ha="right", va="center", fontsize=9)
    left.set_yticks([-row for row in range(len(losses))], list(losses))
    left.set_ylim(0.6 - len(losses), 0.5)
    left.set(xlabel="training loss at the end", xlim=(0, 0.2))
    right.set(xlabel="length of (γ, β)", xlim=(0, 11))
    return fig
