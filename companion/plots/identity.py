"""Figures of the chapter `identity`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.plots.style import BATCH, INFERENCE, NEUTRAL, PLAIN, THEORY, figure


def sigmoid_regimes(scales: Sequence[float]) -> Figure:
    """The sigmoid, the density N(0, γ²) of its input, and the best straight line under it."""
    fig, axes = figure(len(scales), height=2.8, sharey=True)
    z = np.linspace(-8, 8, 401)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    for ax, scale in zip(axes, scales, strict=True):
        density = np.exp(-((z / scale) ** 2) / 2)
        slope = (weights * nodes / (1 + np.exp(-scale * nodes))).sum() / scale
        ax.fill_between(z, 0, density, color=BATCH, alpha=0.2, linewidth=0)
        ax.plot(z, 1 / (1 + np.exp(-z)), color=THEORY)
        ax.plot(z, 0.5 + slope * z, color=PLAIN, linestyle="--")
        ax.set(ylim=(-0.05, 1.1), xlabel="sigmoid's input", title=f"γ = {scale:g}")
    axes[0].set_ylabel("output")
    axes[0].annotate("sigmoid", (2.6, 0.86), xytext=(3.0, 0.62), color=THEORY)
    axes[0].annotate("best line", (-1.9, 0.1), xytext=(-7.6, 0.4), color=PLAIN)
    axes[0].annotate("density", (0.7, 0.8), xytext=(-7.6, 0.9), color=BATCH)
    return fig


def transform_lines(x: ArrayLike, outputs: dict[str, ArrayLike]) -> Figure:
    """Outputs of a feature against its values, with the diagonal y = x."""
    fig, ax = figure(height=3.4)
    values = np.asarray(x)
    ax.plot(values, values, color=NEUTRAL, linewidth=6, alpha=0.4, label="y = x")
    for (label, y), color in zip(outputs.items(), (PLAIN, INFERENCE), strict=False):
        ax.plot(values, np.asarray(y), ".", color=color, markersize=5, label=label)
    ax.set(xlabel="input x", ylabel="output y")
    ax.legend()
    return fig


def identity_error(sizes: Sequence[int], measured: ArrayLike, theory: ArrayLike) -> Figure:
    """Mean squared distance from the identity against the batch size, both axes logarithmic."""
    fig, ax = figure(height=3.4)
    m = np.asarray(sizes)
    ax.loglog(m, 3 / (2 * m), color=NEUTRAL, linestyle=":", label="3/(2m)")
    ax.loglog(m, np.asarray(theory), color=THEORY, label="$2(1 − c_m)$")
    ax.loglog(m, np.asarray(measured), "o", color=BATCH, label="measured, training mode")
    ax.set(xlabel="batch size m", ylabel="E(y − x)² / σ²")
    ax.legend()
    return fig


def learned_step(x: ArrayLike, target: ArrayLike, fits: dict[str, ArrayLike]) -> Figure:
    """A target of one input, and what units with and without γ and β made of it."""
    fig, ax = figure(height=3.2)
    values = np.ravel(x)
    order = np.argsort(values)
    ax.plot(
        values[order],
        np.ravel(target)[order],
        color=NEUTRAL,
        linewidth=6,
        alpha=0.4,
        label="target",
    )
    for (label, fit), color in zip(fits.items(), (PLAIN, BATCH), strict=False):
        ax.plot(values[order], np.ravel(fit)[order], color=color, label=label)
    ax.set(xlabel="input x", ylabel="output")
    ax.legend()
    return fig
