"""Figures of the chapter `backprop`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.plots.style import (
    BATCH,
    INFERENCE,
    NEUTRAL,
    ORANGE,
    PLAIN,
    PURPLE,
    SKY,
    THEORY,
    figure,
)

MEAN_PATH = PURPLE
VAR_PATH = ORANGE
# The direct path alone is the gradient with fixed statistics, so it has that colour.
PATHS = {"direct": INFERENCE, "through the mean": MEAN_PATH, "through the variance": VAR_PATH}

_NODES = {
    "x": (0.0, 0.0),
    "μ": (2.6, 2.0),
    "σ²": (2.6, -2.0),
    "x̂": (6.0, 0.0),
    "y": (8.3, 0.0),
    "L": (10.4, 0.0),
    "γ": (8.3, 2.0),
    "β": (8.3, -2.0),
}
_SYMBOLS = {
    "μ": r"$\mu_\mathcal{B}$",
    "σ²": r"$\sigma^2_\mathcal{B}$",
    "x̂": r"$\hat{x}$",
    "γ": r"$\gamma$",
    "β": r"$\beta$",
}
# From, to, colour, local derivative, place of its label.
_EDGES = [
    ("x", "x̂", INFERENCE, "$1/s$", (3.9, 0.32)),
    ("x", "μ", MEAN_PATH, "$1/m$", (0.85, 1.4)),
    ("μ", "x̂", MEAN_PATH, "$-1/s$", (4.75, 1.4)),
    ("x", "σ²", VAR_PATH, r"$2(x-\mu_\mathcal{B})/m$", (0.35, -1.5)),
    ("σ²", "x̂", VAR_PATH, r"$-(x-\mu_\mathcal{B})/(2s^3)$", (5.25, -1.5)),
    ("μ", "σ²", NEUTRAL, "sums to 0", (1.8, 0.32)),
    ("x̂", "y", THEORY, r"$\gamma$", (7.1, 0.32)),
    ("γ", "y", THEORY, r"$\hat{x}$", (8.62, 1.0)),
    ("β", "y", THEORY, "1", (8.62, -1.0)),
    ("y", "L", THEORY, "$g$", (9.35, 0.32)),
]


def graph() -> Figure:
    """The transform as a graph: quantities in boxes, local derivatives on the arrows."""
    fig, ax = figure(height=3.3)
    ax.set_axis_off()
    ax.set(xlim=(-0.7, 11.0), ylim=(-2.7, 2.7))
    for start, end, color, label, place in _EDGES:
        ax.annotate(
            "",
            _NODES[end],
            xytext=_NODES[start],
            arrowprops={
                "arrowstyle": "-|>",
                "color": color,
                "linewidth": 1.8,
                "linestyle": ":" if color == NEUTRAL else "-",
                "shrinkA": 15,
                "shrinkB": 15,
            },
        )
        ax.text(*place, label, color=color, ha="center", va="center", fontsize=10)
    for name, place in _NODES.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": THEORY}
        symbol = _SYMBOLS.get(name, f"${name}$")
        ax.text(*place, symbol, ha="center", va="center", fontsize=13, bbox=box)
    return fig


def three_paths(values: ArrayLike, parts: Mapping[str, ArrayLike], total: ArrayLike) -> Figure:
    """What each path contributes to every input's gradient, and their sum."""
    fig, (left, right) = figure(2, height=3.2, sharex=True, width_ratios=[2, 1.3])
    places = np.arange(np.size(values))
    for offset, (label, part) in zip((-0.27, 0.0, 0.27), parts.items(), strict=True):
        left.bar(places + offset, np.ravel(part), 0.25, color=PATHS[label], label=label)
    fig.legend(loc="outside upper left", ncols=3)
    left.set(ylabel="part of ∂L/∂x (1/cm)", title="three paths")
    right.bar(places, np.ravel(total), 0.6, color=BATCH)
    right.set(ylabel="∂L/∂x (1/cm)", title="their sum")
    for ax in (left, right):
        ax.axhline(0, color=THEORY, linewidth=0.8)
        shown = places[:: max(1, len(places) // 5)]
        ax.set_xticks(shown, [f"{np.ravel(values)[place]:.1f}" for place in shown])
        ax.set_xlabel("petal length x (cm)")
    return fig


def gradient_split(x_hat: ArrayLike, g: ArrayLike) -> Figure:
    """The incoming gradient with its least-squares line, and what the line leaves over."""
    fig, (left, right) = figure(2, height=3.2, sharex=True, sharey=True)
    z, slopes = np.ravel(x_hat), np.ravel(g)
    line = slopes.mean() + z * (slopes * z).mean() / (z**2).mean()
    left.plot(z, line, color=THEORY)
    left.vlines(z, line, slopes, color=BATCH, linewidth=1.4)
    left.plot(z, slopes, "o", color=INFERENCE, markersize=5)
    left.set(xlabel="x̂", ylabel="gradient", title="incoming: g")
    left.text(
        0.04, 0.95, "level → ∂L/∂β\nslope → ∂L/∂γ", va="top", transform=left.transAxes, color=THEORY
    )
    right.axhline(0, color=THEORY)
    right.vlines(z, 0, slopes - line, color=BATCH, linewidth=1.4)
    right.plot(z, slopes - line, "o", color=BATCH, markersize=5)
    right.set(xlabel="x̂", title="passed on to x: Pg")
    right.text(0.04, 0.95, "no level, no slope", va="top", transform=right.transAxes, color=BATCH)
    return fig


def jacobian(values: ArrayLike, parts: Mapping[str, ArrayLike]) -> Figure:
    """Heat maps of matrices over the sorted values of a feature: blue positive, red negative."""
    fig, axes = figure(len(parts), height=3.0, sharey=True)
    labels = [f"{value:.1f}" for value in np.ravel(values)]
    shown = np.arange(0, len(labels), max(1, len(labels) // 5))
    limit = 0.3
    for ax, (title, matrix) in zip(axes, parts.items(), strict=True):
        image = ax.imshow(np.asarray(matrix), cmap="RdBu", vmin=-limit, vmax=limit)
        ax.set_title(title)
        ax.set_xlabel("of input x (cm)")
        ax.set_xticks(shown, [labels[place] for place in shown], fontsize=9)
        ax.set_yticks(shown, [labels[place] for place in shown], fontsize=9)
        ax.grid(visible=False)
    axes[0].set_ylabel("effect on output of x (cm)")
    bar = fig.colorbar(image, ax=list(axes), shrink=0.75, extend="max")
    bar.set_label("entry")
    return fig


def eigenvalues(spectra: Mapping[float, ArrayLike]) -> Figure:
    """Sorted eigenvalues of P, one row of points for each ε/σ²."""
    fig, ax = figure(height=3.0)
    colors = (BATCH, SKY, VAR_PATH)
    for (ratio, spectrum), color, dodge in zip(
        spectra.items(), colors, (-0.12, 0.0, 0.12), strict=True
    ):
        values = np.sort(np.asarray(spectrum))
        places = np.arange(1, len(values) + 1)
        ax.plot(places + dodge, values, "o", color=color, markersize=6, label=f"ε = {ratio:g} σ²")
    ax.annotate("on 1: always 0", (1, 0), xytext=(2.3, -0.02), color=THEORY)
    ax.annotate("on x̂: ε/(σ² + ε)", (2, 0.5), xytext=(2.5, 0.44), color=THEORY)
    ax.annotate("m − 2 directions: 1", (6, 1), xytext=(5.2, 0.86), color=THEORY)
    ax.set(xlabel="eigenvalue number", ylabel="eigenvalue of P", ylim=(-0.07, 1.1))
    ax.set_xticks(places)
    ax.legend(loc="center right")
    return fig


def scale_law(scales: ArrayLike, weight_norms: ArrayLike, input_norms: ArrayLike) -> Figure:
    """Norms of the gradients of weights aW and of the inputs, relative to a = 1."""
    fig, ax = figure(height=3.3)
    a = np.asarray(scales)
    ax.loglog(a, 1 / a, color=THEORY, linewidth=1.2, label="1/a")
    ax.axhline(1, color=THEORY, linewidth=1.2, linestyle="--")
    ax.loglog(a, np.asarray(weight_norms), "o", color=PLAIN, label="gradient of the weights")
    ax.loglog(a, np.asarray(input_norms), "s", color=BATCH, label="gradient of the inputs")
    ax.set(xlabel="scale a of the weights", ylabel="norm, relative to a = 1")
    ax.legend()
    return fig


def learning_rates(rates: Sequence[float], accuracies: Mapping[str, ArrayLike]) -> Figure:
    """Training accuracy of several seeds against the learning rate."""
    fig, ax = figure(height=3.2)
    for (label, accuracy), color in zip(accuracies.items(), (PLAIN, BATCH), strict=True):
        runs = np.asarray(accuracy)
        ax.semilogx(rates, runs.mean(axis=1), color=color, label=label)
        ax.semilogx(rates, runs, "o", color=color, markersize=4, alpha=0.6)
    ax.axhline(0.1, color=NEUTRAL, linestyle=":")
    ax.text(rates[0], 0.12, "guessing", color=NEUTRAL, va="bottom")
    ax.set(xlabel="learning rate", ylabel="accuracy on the training set", ylim=(0, 1.05))
    ax.legend(loc="upper right")
    return fig


def drift(runs: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """A bias and the loss over the steps of a descent, for several ways to take the gradient."""
    fig, (left, right) = figure(2, height=3.2, sharex=True)
    for (label, (bias, loss)), color in zip(runs.items(), (PLAIN, VAR_PATH, BATCH), strict=True):
        left.plot(np.asarray(bias), color=color, label=label)
        right.plot(np.asarray(loss), color=color, label=label)
    left.set(xlabel="step", ylabel="bias b", title="the bias")
    right.set(xlabel="step", ylabel="loss", title="the loss", ylim=(0, None))
    left.legend(fontsize=9)
    return fig


def gradient_growth(norms: ArrayLike, rate: float) -> Figure:
    """Norm of the gradient layer by layer below the top, for several networks."""
    fig, ax = figure(height=3.0)
    measured = np.asarray(norms)
    layers = np.arange(measured.shape[1])
    ax.semilogy(layers, measured.T / measured[:, :1].T, color=BATCH, alpha=0.6, linewidth=1.2)
    ax.semilogy(layers, rate**layers, color=THEORY, linestyle="--")
    ax.text(layers[-1], rate ** layers[-1] * 1.2, f"{rate:.2f} per layer", color=THEORY, ha="right")
    ax.text(layers[-1], measured[0, -1] / measured[0, 0] / 3, "measured", color=BATCH, ha="right")
    ax.set(xlabel="layers below the top", ylabel="gradient norm, relative")
    ax.set_xticks(layers[::5])
    return fig


def training(losses: ArrayLike) -> Figure:
    """The loss of every step of a training run."""
    fig, ax = figure(height=2.8)
    ax.semilogy(np.asarray(losses), color=BATCH)
    ax.set(xlabel="step", ylabel="loss (nats)")
    return fig


def class_logits(fixed: ArrayLike, batch: ArrayLike, shift: ArrayLike, digit: int) -> Figure:
    """Mean logit of each class over images of one digit, with fixed and with batch statistics."""
    fig, (left, right) = figure(2, height=3.0, sharey=True)
    _class_bars(left, fixed, INFERENCE, digit, "fixed statistics")
    _class_bars(right, batch, BATCH, digit, "statistics of the batch")
    right.plot(np.arange(np.size(shift)), np.asarray(shift), "D", color=THEORY, label="β")
    left.set_ylabel("mean logit")
    right.legend()
    return fig


def _class_bars(ax: Axes, heights: ArrayLike, color: str, digit: int, title: str) -> None:
    places = np.arange(np.size(heights))
    bars = ax.bar(places, np.asarray(heights), color=color)
    bars[digit].set_edgecolor(THEORY)
    bars[digit].set_linewidth(2)
    ax.axhline(0, color=THEORY, linewidth=0.8)
    ax.set_xticks(places)
    ax.set(xlabel="class", title=title)
