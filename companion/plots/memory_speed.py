"""Figures of the chapter `memory-speed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from companion.bench.document import Document, pass_of
from companion.bench.spread import Spread
from companion.experiments.gpu_log import Row
from companion.experiments.memory_traffic import COPY, Traffic, attainable
from companion.plots.style import BATCH, NEUTRAL, ORANGE, PLAIN, PURPLE, SKY, THEORY, figure

READ, WRITTEN, FETCHED = SKY, ORANGE, PURPLE
_BLOCKS = 8


def _sweep(ax: Any, start: float, low: float, high: float, sweeps: Traffic) -> float:
    """Draw one pass over the addresses from `low` to `high`; the time at which it ends."""
    end = start + sweeps.total * (high - low)
    colors = [READ] * sweeps.reads + [FETCHED] * sweeps.fetches + [WRITTEN] * sweeps.writes
    for number, color in enumerate(colors):
        ax.plot([start, end], [low - 0.06 * number, high - 0.06 * number], color=color)
    return end


def sweeps(textbook: Sequence[Traffic], steps: Mapping[str, Traffic]) -> Figure:
    """Address against traffic so far: the order in which each step visits a tensor."""
    fig, axes = figure(rows=len(steps), height=1.35, sharex=True)
    read_only = Traffic(1, 0, 0)
    for ax, (name, traffic) in zip(axes, steps.items(), strict=True):
        ax.set(title=f"{name}: {traffic.total} T", yticks=[0, 1], ylim=(-0.2, 1.1))
        ax.set_yticklabels(["first", "last"])
        end = 0.0
        if name == "textbook":
            for operation in textbook:
                end = _sweep(ax, end, 0.0, 1.0, operation)
        elif traffic.reads == 2:
            end = _sweep(ax, end, 0.0, 1.0, read_only)
            end = _sweep(ax, end, 0.0, 1.0, traffic._replace(reads=1))
        else:
            for block in range(_BLOCKS):
                low, high = block / _BLOCKS, (block + 1) / _BLOCKS
                end = _sweep(ax, end, low, high, read_only)
                end = _sweep(ax, end, low, high, traffic._replace(reads=0))
    labels = {"read": READ, "written": WRITTEN, "fetched for a store": FETCHED}
    for label, color in labels.items():
        axes[-1].plot([], [], color=color, label=label)
    axes[-1].legend(loc="center right")
    axes[-1].set_xlabel("traffic so far, in tensors")
    fig.supylabel("channel", fontsize=11)
    return fig


def steps(traffic: Mapping[str, Traffic], measured: Mapping[str, Spread]) -> Figure:
    """Traffic of each step as a stacked bar, and its time beside it."""
    fig, (left, right) = figure(2, height=3.0, sharey=True)
    rows = np.arange(len(traffic))
    start = np.zeros(len(traffic))
    parts = {"read": READ, "written": WRITTEN, "fetched for a store": FETCHED}
    for column, (label, color) in enumerate(parts.items()):
        width = np.array([sweeps[column] for sweeps in traffic.values()], dtype=float)
        left.barh(rows, width, left=start, color=color, height=0.6, label=label)
        start += width
    left.set(xlabel="traffic, in tensors", yticks=rows, yticklabels=list(traffic))
    left.invert_yaxis()
    left.legend(loc="lower right")
    _whiskers(right, rows, [measured[name] for name in traffic])
    alone = [sweeps.total / COPY.total for sweeps in traffic.values()]
    right.plot(alone, rows, "D", color=THEORY, markerfacecolor="none", label="by its bytes alone")
    right.axvline(1.0, color=NEUTRAL, linestyle=":")
    right.set(xlabel="time / time of a copy", xlim=(0, None))
    right.legend(loc="lower right")
    return fig


def _whiskers(ax: Any, rows: Any, spreads: Sequence[Spread]) -> None:
    medians = [each.median for each in spreads]
    low = [each.median - each.low for each in spreads]
    high = [each.high - each.median for each in spreads]
    ax.errorbar(medians, rows, xerr=[low, high], fmt="o", color=BATCH, label="measured")


def roofline(
    bandwidth: float, rate: float, points: Mapping[str, tuple[float, float]], least: float
) -> Figure:
    """The roof of a machine, and programs under it by their (intensity, operations per second).

    Parameters
    ----------
    bandwidth, rate
        bytes and operations per second
    points
        the programs by name
    least
        intensity at the left edge
    """
    fig, ax = figure(height=3.8)
    ridge = rate / bandwidth
    edges = [least, ridge, 2 * max(ridge, *(intensity for intensity, _ in points.values()))]
    roof = [attainable(edge, bandwidth, rate) / 1e9 for edge in edges]
    ax.loglog(edges, roof, color=THEORY)
    ax.text(ridge * 1.1, roof[1] * 1.15, "arithmetic", color=THEORY)
    middle = (least * ridge) ** 0.5
    ax.text(middle, middle * bandwidth / 0.55e9, "memory", color=THEORY, ha="right")
    markers = ["s", "^", "v", "D", "P", "o"]
    for (label, (intensity, speed)), marker in zip(points.items(), markers, strict=False):
        color = PLAIN if label == "matrix product" else BATCH
        ax.loglog(intensity, speed / 1e9, marker, color=color, label=label, linestyle="none")
    ax.set(xlabel="operations per byte", ylabel="10⁹ operations per second")
    ax.set_ylim(roof[0], roof[1] * 2)
    ax.yaxis.set_minor_formatter("")
    ax.legend(loc="lower right")
    return fig


def block_sizes(
    slab_bytes: Sequence[int], measured: Sequence[Spread], caches: Mapping[str, int]
) -> Figure:
    """Time of the forward pass against the size of its blocks."""
    fig, ax = figure(height=3.2)
    sizes = np.asarray(slab_bytes) / 2**20
    medians = np.array([each.median for each in measured])
    low, high = ([getattr(each, name) for each in measured] for name in ("low", "high"))
    ax.fill_between(sizes, low, high, color=BATCH, alpha=0.2, linewidth=0)
    ax.semilogx(sizes, medians, "o-", color=BATCH)
    ax.set_ylim(0, 1.25 * max(high))
    for name, size in caches.items():
        ax.axvline(size / 2**20, color=NEUTRAL, linestyle=":")
        ax.annotate(
            name,
            (size / 2**20, 0.04),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=NEUTRAL,
        )
    ax.set(xlabel="block, MiB", ylabel="time / time of a copy")
    return fig


def recorded(document: Document) -> Figure:
    """Speed-up over PyTorch of every case of a recorded run, sorted, with its quartiles."""
    names = ("forward", "backward")
    fig, axes = figure(2, height=3.2, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        records = [pass_of(case, name) for case in document["cases"]]
        records.sort(key=lambda record: record["speedup"])
        for rank, record in enumerate(records):
            low, high = record["quartiles"]["speedup"]
            color, marker = (FETCHED, "x") if record["verdict"] == "slower" else (BATCH, ".")
            ax.plot([rank, rank], [low, high], color=color, alpha=0.4)
            ax.plot(rank, record["speedup"], marker, color=color)
        ax.axhline(1.0, color=THEORY, linewidth=1)
        ax.set(yscale="log", title=name, xlabel="cases, sorted", xticks=[])
    axes[0].set_ylabel("PyTorch's time / ours")
    axes[0].yaxis.set_major_formatter("{x:g}")
    return fig


def gpu(rows: Sequence[Row], least: float) -> Figure:
    """Copies that both passes take on a GPU, case by case, the small tensors first."""
    fig, axes = figure(2, height=3.2, sharey=True)
    looks = {
        "torch": ("PyTorch", PLAIN, "v"),
        "compile": ("torch.compile", NEUTRAL, "x"),
        "ours": ("ours", BATCH, "o"),
    }
    for ax, layout in zip(axes, ("contiguous", "channels-last"), strict=True):
        some = [row for row in rows if row.layout == layout]
        some.sort(key=lambda row: row.copy_us)
        for contender, (label, color, marker) in looks.items():
            copies = [row.copies["both"][contender] for row in some]
            ax.plot(copies, marker, color=color, markersize=4, label=label)
        ax.axhline(least, color=THEORY, linewidth=1)
        ax.set(yscale="log", title=layout, xlabel="cases, by size", xticks=[])
    axes[0].set(ylabel="time / copy", yticks=[2.5, 5, 10, 20])
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("")
    axes[1].legend()
    return fig
