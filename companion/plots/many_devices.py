"""Figures of the chapter `many-devices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, NEUTRAL, ORANGE, PLAIN, PURPLE, SKY, THEORY, figure

# What a rank normalizes by itself is batch normalization too, of a smaller batch: light blue.
ALONE = SKY
_SENT = PURPLE


def shares(values: ArrayLike) -> Figure:
    """A feature's values by rank, normalized by each rank for itself, and by all together.

    Parameters
    ----------
    values
        ``(ranks, rows)``
    """
    x = np.asarray(values)
    alone = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    together = (x - x.mean()) / x.std()
    fig, axes = figure(3, height=3.0)
    panels = {
        "before": (x, NEUTRAL),
        "each rank by itself": (alone, ALONE),
        "all ranks together": (together, BATCH),
    }
    for ax, (title, (array, color)) in zip(axes, panels.items(), strict=True):
        ranks = np.arange(len(array))
        ax.vlines(ranks, array.min(axis=1), array.max(axis=1), color=color, alpha=0.4)
        ax.plot(np.repeat(ranks, array.shape[1]), array.ravel(), "o", color=color, markersize=5)
        ax.set(title=title, xlabel="rank", xticks=ranks)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("x")
    reach = np.abs(together).max() + 0.2
    for ax in axes[1:]:
        ax.set(ylabel="x̂", ylim=(-reach, reach))
    return fig


_ROWS = {"rank 0": 2.0, "rank 1": 1.0, "rank 2": 0.0}
# Place and text.
_FORWARD = [
    (0.0, "$x_r$"),
    (1.6, r"$n_r, \mu_r, M_r$"),
    (4.6, r"$n, \mu, M$"),
    (6.1, "$y_r$"),
]
_BACKWARD = [
    (0.0, "$g_r$"),
    (1.6, "$G_r, H_r$"),
    (4.6, "$G, H$"),
    (6.1, r"$\partial L/\partial x_r$"),
]


def _messages_of(ax: Axes, title: str, steps: Sequence[tuple[float, str]], sent: str) -> None:
    ax.set_axis_off()
    ax.set(xlim=(-1.5, 6.9), ylim=(-0.5, 2.85))
    ax.set_title(title)
    exchange = (steps[1][0] + steps[2][0]) / 2
    bar = {"boxstyle": "round,pad=0.1", "facecolor": _SENT, "edgecolor": "none", "alpha": 0.2}
    ax.text(exchange, 1.0, " \n" * 9, ha="center", va="center", fontsize=10, bbox=bar)
    ax.text(exchange, 2.6, sent, ha="center", va="center", color=_SENT, fontsize=10)
    for name, height in _ROWS.items():
        ax.text(-1.45, height, name, va="center", fontsize=10)
        box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": THEORY}
        for place, symbol in steps:
            label = symbol.replace("_r", f"_{name[-1]}")
            ax.text(place, height, label, ha="center", va="center", fontsize=10.5, bbox=box)
        for (start, _), (end, _) in ((steps[0], steps[1]), (steps[2], steps[3])):
            into = end - (0.62 if end < exchange else 0.42)
            _arrow(ax, (start + (0.22 if end < exchange else 0.5), height), (into, height))
        for other in _ROWS.values():
            _arrow(ax, (steps[1][0] + 0.75, height), (steps[2][0] - 0.5, other), _SENT, 0.9)


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = THEORY,
    width: float = 1.4,
) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, xytext=start, arrowprops=style)


def messages() -> Figure:
    """What three ranks compute for themselves, and what each has from all of them."""
    fig, (forward, backward) = figure(rows=2, height=2.3)
    _messages_of(forward, "forward", _FORWARD, "2C + 1 numbers a rank")
    _messages_of(backward, "backward", _BACKWARD, "2C numbers a rank")
    return fig


def gradients(
    slopes: ArrayLike, everyone: ArrayLike, own: ArrayLike, rows: Sequence[int]
) -> Figure:
    """∂L/∂x of every row: finite differences, and with two kinds of sums.

    Parameters
    ----------
    slopes, everyone, own
        ``(m,)``, in the order of the ranks
    rows
        how many of them each rank has
    """
    fig, ax = figure(height=3.3)
    places = np.arange(np.size(slopes))
    ax.bar(places - 0.2, np.ravel(everyone), 0.4, color=BATCH, label="sums over all ranks")
    ax.bar(places + 0.2, np.ravel(own), 0.4, color=PLAIN, label="own sums only")
    ax.plot(places, np.ravel(slopes), "D", color=THEORY, markersize=5, label="finite differences")
    ends = np.cumsum(rows)
    for rank, (end, number) in enumerate(zip(ends, rows, strict=True)):
        if end < len(places):
            ax.axvline(end - 0.5, color=NEUTRAL, linestyle=":", linewidth=1.2)
        if number:
            ax.annotate(
                f"rank {rank}",
                (end - number / 2 - 0.5, 0.97),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                color=NEUTRAL,
            )
    ax.axhline(0, color=THEORY, linewidth=0.8)
    reach = 1.35 * max(np.abs(part).max() for part in map(np.asarray, (slopes, everyone, own)))
    ax.set(xlabel="row", ylabel="∂L/∂x", xticks=places, ylim=(-reach, reach))
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside upper left", ncols=3)
    return fig


def small_shares(
    alone: Mapping[int, ArrayLike], together: Mapping[int, ArrayLike], ylabel: str
) -> Figure:
    """Test accuracy against the examples on each device, a dot a seed, a line through the means."""
    fig, ax = figure(height=3.4)
    runs = {"each device by itself": (alone, ALONE, "s"), "synchronized": (together, BATCH, "o")}
    for label, (results, color, marker) in runs.items():
        sizes = list(results)
        ax.semilogx(sizes, [np.asarray(results[size]).mean() for size in sizes], color=color)
        for size, values in results.items():
            ax.semilogx([size] * np.size(values), values, marker, color=color, markersize=5)
        ax.plot([], [], marker=marker, color=color, label=label)
    ax.set(xlabel="examples on each of 8 devices", ylabel=ylabel)
    ax.set_xticks(sizes)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower right")
    return fig


def exchange_times(processes: Sequence[int], seconds: Mapping[str, ArrayLike]) -> Figure:
    """Time that a step waits for messages, against the number of ranks, both axes logarithmic."""
    fig, ax = figure(height=3.4)
    ranks = np.asarray(processes)
    for (how, values), color in zip(seconds.items(), (PLAIN, ORANGE, BATCH), strict=True):
        times = 1e3 * np.asarray(values)
        ax.loglog(ranks, times, color=color)
        ax.annotate(
            how,
            (ranks[-1], times[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
        )
    ax.set(xlabel="ranks", ylabel="waiting, ms a step", xlim=(ranks[0], ranks[-1] * 2.6))
    ax.set_xticks(ranks[::3])
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter("{x:g}")
    return fig
