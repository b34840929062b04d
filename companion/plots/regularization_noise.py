"""Figures of the chapter `regularization-noise`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from companion import closed_forms
from companion.plots.style import BATCH, INFERENCE, NAVY, NEUTRAL, PLAIN, SKY, THEORY, figure

_SIZES = np.unique(np.geomspace(2, 512, 60).astype(int))
_SHADES = (SKY, BATCH, NAVY)  # of the colour of batch statistics, light to dark


def _plain_ticks(ax: Axes, values: Sequence[int]) -> None:
    """Label a logarithmic x-axis with whole numbers at `values` only."""
    ax.set_xticks(list(values))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


def one_image_many_batches(outputs: Mapping[int, ArrayLike], fixed: float) -> Figure:
    """One image's x̂, a dot for each batch it was in; a panel for each batch size."""
    fig, axes = figure(len(outputs) + 1, height=3.2, sharey=True)
    bins = np.linspace(-2.2, 3.0, 53)
    for ax, (m, values), color in zip(axes, outputs.items(), _SHADES, strict=False):
        array = np.asarray(values)
        ax.plot(array[:150], ".", color=color, markersize=3)
        ax.axhline(fixed, color=INFERENCE)
        ax.set(title=f"m = {m}", xlabel="batch", ylim=(bins[0], bins[-1]))
        axes[-1].hist(
            array, bins, orientation="horizontal", density=True, histtype="step", color=color
        )
    axes[0].set_ylabel("x̂ of one image")
    axes[0].annotate(
        "fixed statistics",
        (0.03, fixed),
        xycoords=("axes fraction", "data"),
        xytext=(0, 5),
        textcoords="offset points",
        color=INFERENCE,
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
    axes[-1].axhline(fixed, color=INFERENCE)
    axes[-1].set(title="all batches", xlabel="density", xticks=[])
    return fig


def inverse_moments(sizes: Sequence[int], measured: Mapping[str, ArrayLike]) -> Figure:
    """E[σ_B]/σ, σE[1/σ_B] and σ²E[1/σ_B²] against the batch size: closed forms and measurements."""
    fig, ax = figure(height=3.4)
    curves = {
        "σ² E[1/σ_B²]": (4, closed_forms.inverse_var_mean, r"$1/\sigma_B^2$", (9.5, 1.7)),
        "σ E[1/σ_B]": (3, closed_forms.inverse_std_mean, r"$1/\sigma_B$", (2.05, 1.12)),
        "E[σ_B]/σ": (2, closed_forms.std_shrinkage, r"$\sigma_B$", (4.2, 0.62)),
    }
    for (label, (first, form, name, place)), color in zip(
        curves.items(), (PLAIN, INFERENCE, BATCH), strict=True
    ):
        m = _SIZES[first <= _SIZES]
        ax.semilogx(m, [form(int(size)) for size in m], color=THEORY, linewidth=1)
        shown = [
            (size, value) for size, value in zip(sizes, np.asarray(measured[label]), strict=True)
        ]
        ax.semilogx(*zip(*shown, strict=True), "o", color=color)
        ax.annotate(f"mean of {name}", place, color=color)
    ax.axhline(1, color=NEUTRAL, linestyle=":")
    ax.annotate("infinite for m ≤ 3", (5, 3.75), color=PLAIN)
    ax.axvspan(1.8, 3, color=PLAIN, alpha=0.08, linewidth=0)
    ax.set(xlabel="batch size m", ylabel="mean, for σ = 1", ylim=(0.5, 4.1), xlim=(1.8, 600))
    _plain_ticks(ax, (2, 4, 8, 16, 32, 64, 128, 256, 512))
    return fig


def noise_against_batch_size(
    sizes: Sequence[int], measured: Mapping[float, ArrayLike], theory: Mapping[float, ArrayLike]
) -> Figure:
    """Variance of x̂ over the rest of the batch, for examples at several distances z."""
    fig, ax = figure(height=3.6)
    for (z, values), color in zip(measured.items(), _SHADES, strict=False):
        ax.loglog(sizes, np.asarray(theory[z]), color=THEORY, linewidth=1)
        ax.loglog(sizes, np.asarray(values), "o", color=color)
        ax.annotate(
            f"z = {round(z, 1) + 0.0:.1f}",
            (sizes[-1], np.asarray(values)[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=color,
        )
    ax.set(xlabel="batch size m", ylabel="variance of x̂", xlim=(sizes[0] * 0.85, sizes[-1] * 1.9))
    _plain_ticks(ax, sizes)
    return fig


def noise_against_distance(
    z: ArrayLike, measured: ArrayLike, gaussian: ArrayLike, any_law: ArrayLike
) -> Figure:
    """m times the variance of x̂ against the distance of the example from the mean."""
    fig, ax = figure(height=3.6)
    distance = np.asarray(z)
    order = np.argsort(distance)
    ax.plot(
        distance,
        np.asarray(measured),
        "o",
        color=BATCH,
        markersize=4,
        label="measured, one dot an image",
    )
    ax.plot(
        distance[order],
        np.asarray(any_law)[order],
        color=THEORY,
        label="1 + E[z³]z + (E[z⁴]−1)z²/4",
    )
    ax.plot(
        distance[order],
        np.asarray(gaussian)[order],
        color=NEUTRAL,
        linestyle=":",
        label="1 + z²/2, Gaussian",
    )
    ax.axhline(1, color=NEUTRAL, linewidth=0.8)
    ax.annotate(
        "noise of the batch's mean",
        (distance.max(), 1),
        xytext=(0, -12),
        textcoords="offset points",
        ha="right",
        color=NEUTRAL,
    )
    ax.set(
        xlabel="distance from the mean z, in standard deviations",
        ylabel="m × variance of x̂",
        ylim=(0, None),
    )
    ax.legend()
    return fig


def gamma_shrinkage(sizes: Sequence[int], measured: ArrayLike) -> Figure:
    """The fitted γ over the one that population statistics give, against the batch size."""
    fig, ax = figure(height=3.3)
    ax.semilogx(_SIZES, [closed_forms.std_shrinkage(int(m)) for m in _SIZES], color=THEORY)
    ax.semilogx(_SIZES, 1 - 3 / (4 * _SIZES), color=NEUTRAL, linestyle=":")
    ax.semilogx(sizes, np.asarray(measured), "o", color=BATCH)
    ax.axhline(1, color=INFERENCE)
    ax.annotate(
        "fixed statistics", (2, 1), xytext=(0, -14), textcoords="offset points", color=INFERENCE
    )
    ax.annotate("$c_m$", (2.5, 0.64), xytext=(3.1, 0.62), color=THEORY)
    ax.annotate("1 − 3/(4m)", (2.0, 0.86), color=NEUTRAL)
    ax.annotate("fitted γ", (8, 0.9), xytext=(8.6, 0.85), color=BATCH)
    ax.set(xlabel="batch size m", ylabel="γ*/(aσ)", ylim=(0.5, 1.05))
    _plain_ticks(ax, (2, 4, 8, 16, 32, 64, 128, 256, 512))
    return fig


def loss_penalty(sizes: Sequence[int], gaps: Sequence[ArrayLike], own: float) -> Figure:
    """What batch statistics add to a trained network's training loss, against the batch size."""
    fig, ax = figure(height=3.4)
    m = np.asarray(sizes)
    middle = np.mean(np.asarray(gaps), axis=0)
    ax.loglog(m, middle[-2] * m[-2] / m, color=THEORY)
    for values in gaps:
        ax.loglog(m, np.asarray(values), "o", color=BATCH, markersize=5)
    ax.axhline(own, color=INFERENCE)
    ax.annotate(
        "the loss itself",
        (m[-1], own),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        color=INFERENCE,
    )
    ax.annotate(
        "slope −1",
        (m[1], middle[-2] * m[-2] / m[1]),
        xytext=(-10, -22),
        textcoords="offset points",
        color=THEORY,
    )
    ax.annotate(
        "added by the noise",
        (m[0], middle[0]),
        xytext=(12, 0),
        textcoords="offset points",
        color=BATCH,
    )
    ax.set(xlabel="batch size m", ylabel="training loss (nats)")
    _plain_ticks(ax, sizes)
    return fig


def regularization_runs(panels: Mapping[str, Mapping[str, ArrayLike]], ylabel: str) -> Figure:
    """Test losses of several trainings, a dot a seed, a dash their mean; a panel for each task."""
    fig, axes = figure(len(panels), height=3.6)
    for ax, (title, runs) in zip(axes, panels.items(), strict=True):
        for place, (label, values) in enumerate(runs.items()):
            color = BATCH if "batch" in label or "ghost" in label else PLAIN
            array = np.asarray(values)
            ax.plot(
                np.linspace(-0.15, 0.15, len(array)) + place,
                array,
                "o",
                color=color,
                markersize=4,
                alpha=0.6,
            )
            ax.plot([place - 0.3, place + 0.3], [array.mean()] * 2, color=color, linewidth=2.5)
        ax.set(title=title, ylim=(0, None), xticks=range(len(runs)))
        ax.set_xticklabels([label.replace(" ", "\n") for label in runs], fontsize=9)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel(ylabel)
    return fig


def monte_carlo_variance(scale: ArrayLike, variances: ArrayLike, sizes: Sequence[int]) -> Figure:
    """Variance of the predictions against 1/m less 1/(all images), both axes logarithmic."""
    fig, ax = figure(height=3.4)
    x, y = np.asarray(scale), np.asarray(variances)
    ax.loglog(x, y[-1] * x / x[-1], color=THEORY)
    ax.loglog(x, y, "o", color=BATCH)
    for place, value, m in zip(x, y, sizes, strict=True):
        ax.annotate(
            f"m = {m}", (place, value), xytext=(8, -10), textcoords="offset points", color=BATCH
        )
    ax.annotate(
        "slope 1",
        (x[2], y[-1] * x[2] / x[-1]),
        xytext=(-56, 4),
        textcoords="offset points",
        color=THEORY,
    )
    ax.minorticks_off()
    ax.set_xticks([0.003, 0.01, 0.03], ["0.003", "0.01", "0.03"])
    ax.set_yticks([0.05, 0.1, 0.2, 0.4], ["0.05", "0.1", "0.2", "0.4"])
    ax.set(
        xlabel=f"1/m − 1/{round(1 / (1 / sizes[0] - x[0]))}",
        ylabel="variance of the logits",
        ylim=(y.min() / 1.4, y.max() * 1.3),
        xlim=(x.min() / 1.2, x.max() * 1.6),
    )
    return fig


def uncertainty(groups: Mapping[str, ArrayLike]) -> Figure:
    """Distribution function of the Monte Carlo variance for several groups of inputs."""
    fig, ax = figure(height=3.4)
    for (label, values), color in zip(
        groups.items(), (INFERENCE, PLAIN, NEUTRAL, THEORY), strict=False
    ):
        array = np.sort(np.asarray(values))
        ax.semilogx(array, (np.arange(len(array)) + 0.5) / len(array), color=color, label=label)
    ax.set(
        xlabel="variance of the class probabilities, summed",
        ylabel="fraction of inputs below",
        xlim=(1e-6, 1),
    )
    ax.legend(loc="upper left")
    return fig
