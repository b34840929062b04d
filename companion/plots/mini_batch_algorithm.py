"""Figures of the chapter `mini-batch-algorithm`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from companion import closed_forms
from companion.plots.style import BATCH, INFERENCE, NEUTRAL, ORANGE, PLAIN, PURPLE, THEORY, figure


def batch_columns(x: ArrayLike, y: ArrayLike, marked: int) -> Figure:
    """A batch as a matrix, and its features as strips of points before and after normalization."""
    before, after = np.asarray(x), np.asarray(y)
    m, features = before.shape
    fig, (table, left, right) = figure(3, height=3.6, width_ratios=[1.15, 1, 1])
    fig.set_layout_engine("constrained", w_pad=0.1)
    table.imshow(before, cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
    for corner, width, height, color in (
        ((marked - 0.5, -0.5), 1, m, BATCH),
        ((-0.5, 6.5), features, 1, PLAIN),
    ):
        frame = Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=2.5)
        frame.set_clip_on(False)
        table.add_patch(frame)
    table.set_title("a batch")
    table.set(xlabel="feature", ylabel="example i", xticks=range(features), yticks=range(m))
    table.set_xticklabels(range(1, features + 1))
    table.set_yticklabels(range(1, m + 1), fontsize=8)
    table.grid(False)
    table.tick_params(length=0)
    for ax, values, color, title in (
        (left, before, PLAIN, "features before"),
        (right, after, BATCH, "features after"),
    ):
        for j in range(features):
            ax.plot(np.full(m, j + 1), values[:, j], "o", color=color, alpha=0.45, markersize=5)
            mean, std = values[:, j].mean(), values[:, j].std()
            ax.plot([j + 1, j + 1], [mean - std, mean + std], color=THEORY, linewidth=1.5)
            ax.plot(j + 1, mean, "_", color=THEORY, markersize=12, markeredgewidth=2)
        ax.set(xlabel="feature", title=title, xticks=range(1, features + 1))
        ax.set_xlim(0.4, features + 0.6)
    left.set_ylabel("ink, from 0 to 1")
    right.set_ylabel("x̂, standard deviations")
    return fig


def x_hat_variance(var: ArrayLike, measured: ArrayLike, eps: float) -> Figure:
    """Mean of x̂² against the feature's variance, with σ²/(σ² + ε)."""
    fig, ax = figure(height=3.2)
    grid = np.logspace(-7, 0, 200)
    ax.semilogx(grid, grid / (grid + eps), color=THEORY)
    ax.semilogx(np.asarray(var), np.asarray(measured), "o", color=BATCH, alpha=0.7)
    ax.axvline(eps, color=NEUTRAL, linestyle=":")
    ax.annotate("σ² = ε", (eps, 0.05), xytext=(eps * 1.2, 0.05), color=NEUTRAL)
    ax.annotate("σ²/(σ² + ε)", (3e-6, 0.3), xytext=(2.2e-7, 0.35), color=THEORY)
    ax.annotate("one pixel each", (1e-2, 1), xytext=(4e-3, 0.84), color=BATCH)
    ax.set(xlabel="variance σ² of the pixel", ylabel="mean of x̂²", ylim=(-0.03, 1.08))
    return fig


def x_hat_distribution(samples: dict[int, ArrayLike]) -> Figure:
    """Histograms of x̂ for several batch sizes, with their densities and the bound √(m - 1)."""
    fig, axes = figure(len(samples), height=2.7, sharey=True)
    for ax, (m, values) in zip(axes, samples.items(), strict=True):
        bound = closed_forms.x_hat_bound(m)
        edge = min(bound, 3.2)
        bins = np.linspace(-edge, edge, 41) if m > 2 else np.linspace(-1.1, 1.1, 23)
        if m == 2:
            ax.plot([-1, -1], [0, 0.5], [1, 1], [0, 0.5], color=BATCH, linewidth=5)
            ax.annotate("½ each", (0, 0.58), ha="center", va="center", color=BATCH, fontsize=9)
        else:
            ax.hist(np.ravel(values), bins=bins, density=True, color=BATCH, alpha=0.35)
            inner = bound * (1 - 1e-3)
            grid = np.linspace(-inner, inner, 600)
            density = [closed_forms.x_hat_density(value, m) for value in grid]
            ax.plot(grid, density, color=THEORY, linewidth=1.4)
        for side in (-bound, bound):
            if m > 2 and abs(side) < 3.2:
                ax.axvline(side, color=NEUTRAL, linestyle=":", linewidth=1.2)
        ax.set(title=f"m = {m}", xlim=(-3.3, 3.3), ylim=(0, 0.75), xticks=[-2, 0, 2])
        ax.set_xlabel("x̂")
    axes[0].set_ylabel("density")
    return fig


def variance_errors(ratios: ArrayLike, errors: dict[str, ArrayLike]) -> Figure:
    """Relative error of the variance against |μ|/σ, with u(μ/σ)²."""
    fig, ax = figure(height=3.6)
    at = np.asarray(ratios, dtype=float)
    unit = 2.0**-24
    ax.loglog(at, unit * (1 + at**2), color=THEORY, linestyle="--", linewidth=1.4)
    ax.annotate("u(1 + μ²/σ²)", (at[-3], unit * at[-3] ** 2), xytext=(1e5, 6), color=THEORY)
    colors = (PLAIN, ORANGE, PURPLE, BATCH)
    for (label, values), color in zip(errors.items(), colors, strict=True):
        shown = np.maximum(np.asarray(values), 1e-17)
        ax.loglog(at, shown, "o-", color=color, label=label, markersize=4)
    ax.axhline(1, color=NEUTRAL, linestyle=":")
    ax.annotate("no correct digit above", (1, 1), xytext=(1, 2.5), color=NEUTRAL)
    ax.set(xlabel="offset |μ|/σ", ylabel="relative error of σ²", ylim=(3e-18, 3e7))
    ax.legend(fontsize=9, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.33))
    return fig


def sorted_batches(batches: Sequence[ArrayLike], whole: ArrayLike, averaged: float) -> Figure:
    """Batches of a sorted feature, each with mean and width, beside the widths of all values."""
    fig, ax = figure(height=3.4)
    for number, batch in enumerate(batches, start=1):
        values = np.ravel(batch)
        ax.plot(np.full(values.size, number - 0.12), values, ".", color=NEUTRAL, alpha=0.3)
        ax.errorbar(number + 0.18, values.mean(), values.std(), color=BATCH, fmt="_", markersize=9)
    everything = np.ravel(whole)
    last = len(batches) + 1
    mean = everything.mean()
    for place, std, color, label in (
        (last + 0.4, everything.std(), THEORY, "merged"),
        (last + 1.8, math.sqrt(averaged), PLAIN, "variances\naveraged"),
    ):
        ax.errorbar(place, mean, std, color=color, fmt="_", markersize=14, capsize=4)
        ax.annotate(label, (place, mean + std + 0.7), color=color, ha="center", fontsize=9)
    ax.set(xlabel="batch, in order of value", ylabel="mean radius")
    ax.set(xticks=range(1, len(batches) + 1), xlim=(0.3, last + 2.7))
    return fig


def layer_errors(cases: Sequence[str], ours: ArrayLike, theirs: ArrayLike) -> Figure:
    """Largest error of the output, ours and PyTorch's, one row per data set."""
    fig, ax = figure(height=3.0)
    rows = np.arange(len(cases))[::-1]
    for errors, color, marker, label in (
        (theirs, PLAIN, "s", "torch.nn"),
        (ours, BATCH, "o", "this package"),
    ):
        values = np.asarray(errors, dtype=float)
        shown = np.clip(np.where(np.isfinite(values), values, 1e4), 1e-9, 1e4)
        ax.semilogx(shown, rows, marker, color=color, label=label, markersize=8, alpha=0.8)
    ax.set(yticks=rows, xlabel="largest error of the output, standard deviations")
    ax.set(xlim=(3e-10, 3e4), ylim=(-0.5, len(cases) - 0.5))
    ax.set_yticklabels(cases)
    ax.legend(fontsize=9, loc="upper center", ncols=2, bbox_to_anchor=(0.4, 1.16))
    return fig


def company(sizes: Sequence[int], outputs: Sequence[ArrayLike], inference: float) -> Figure:
    """The output of one example over many batches: median and 90 % band against the batch size."""
    fig, ax = figure(height=3.2)
    bands = np.array([np.percentile(np.asarray(y), [5, 50, 95]) for y in outputs])
    ax.fill_between(sizes, bands[:, 0], bands[:, 2], color=BATCH, alpha=0.2, linewidth=0)
    ax.semilogx(sizes, bands[:, 1], "o-", color=BATCH, markersize=4)
    ax.axhline(inference, color=INFERENCE)
    ax.annotate("inference", (sizes[-1], inference), xytext=(sizes[-1], inference - 0.16),
                color=INFERENCE, ha="right")  # fmt: skip
    ax.annotate("training mode: 90 % of batches", (sizes[0], bands[0, 2]),
                xytext=(sizes[2] * 1.4, bands[1, 2]), color=BATCH)  # fmt: skip
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel="batch size m", ylabel="output of one example")
    return fig


def calibration(steps: Sequence[int], running: ArrayLike, population: ArrayLike) -> Figure:
    """Test accuracy over training with running and with population statistics."""
    fig, ax = figure(height=3.2)
    for values, color, label, height in (
        (running, PLAIN, "running statistics, α = 0.01", 0.77),
        (population, INFERENCE, "population statistics of the same weights", 1.01),
    ):
        ax.plot(steps, np.asarray(values), "o-", color=color, markersize=4)
        ax.annotate(label, (steps[len(steps) // 3], height), color=color)
    ax.set(xlabel="training step", ylabel="test accuracy", ylim=(0.5, 1.06))
    return fig


def dead_bias(steps: Sequence[int], changes: dict[str, ArrayLike]) -> Figure:
    """How far parameters have moved from their start, largest entry, over training."""
    fig, ax = figure(height=3.2)
    for (label, values), color in zip(changes.items(), (BATCH, PLAIN), strict=True):
        shown = np.maximum(np.asarray(values), 1e-12)
        ax.semilogy(steps, shown, color=color)
        ax.annotate(label, (steps[-1], shown[-1]), xytext=(steps[len(steps) // 3], shown[-1] * 4),
                    color=color)  # fmt: skip
    ax.set(xlabel="training step", ylabel="largest change since the start", ylim=(1e-11, 10))
    return fig
