"""Figures of the chapter `whitening`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from companion.plots.style import BATCH, NEUTRAL, ORANGE, PLAIN, PURPLE, THEORY, figure

CENTRED = ORANGE  # the mean taken off, nothing else: orange
WHITE = PURPLE  # whitened: purple
INPUTS = {"raw": PLAIN, "centred": CENTRED, "standardized": BATCH, "whitened": WHITE}


def _descend(x: NDArray[Any], target: NDArray[Any], rate: float, steps: int) -> NDArray[Any]:
    """Weights of gradient descent from 0 on the squared error, ``(steps + 1, 2)``."""
    path = [np.zeros(x.shape[1])]
    for _ in range(steps):
        path.append(path[-1] - rate * x.T @ (x @ path[-1] - target) / len(x))
    return np.array(path)


def valley(target: ArrayLike, panels: Mapping[str, tuple[ArrayLike, float, int]]) -> Figure:
    """Contours of the loss of two weights, and the path of gradient descent from 0.

    `panels` maps a title to the inputs ``(m, 2)``, the learning rate and the number of steps.
    """
    fig, axes = figure(len(panels), height=3.5)
    t = np.asarray(target)
    for ax, (title, (inputs, rate, steps)) in zip(axes, panels.items(), strict=True):
        x = np.asarray(inputs)
        w = _descend(x, t, rate, steps)
        second_moment = x.T @ x / len(x)
        best = np.linalg.solve(second_moment, x.T @ t / len(x))
        reach = 1.35 * np.abs(w - best).max()
        side = np.linspace(-reach, reach, 201)
        errors = np.stack(np.meshgrid(side, side), axis=-1)
        excess = np.einsum("...i,ij,...j", errors, second_moment, errors) / 2
        first = (w[0] - best) @ second_moment @ (w[0] - best) / 2
        levels = first * np.array([0.001, 0.01, 0.05, 0.2, 0.5, 1, 2, 4, 8])
        ax.contour(best[0] + side, best[1] + side, excess, levels, colors=NEUTRAL, linewidths=0.8)
        color = PLAIN if "whitened" not in title else WHITE
        ax.plot(*w.T, "o-", color=color, markersize=3, linewidth=1)
        ax.plot(*best, "+", color=THEORY, markersize=12, markeredgewidth=2)
        ax.annotate(
            "start",
            w[0],
            (0, -16),
            textcoords="offset points",
            color=color,
            horizontalalignment="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        ax.set(title=title, xlabel="weight of input 1", ylabel="weight of input 2", aspect="equal")
        ax.grid(False)
    return fig


def rates(kappa: float, curves: Mapping[float, ArrayLike]) -> Figure:
    """The worst factor per step against the learning rate, and the loss against the step.

    `curves` maps a condition number to the excess loss, as a fraction of the first.
    """
    fig, (left, right) = figure(2, height=3.3)
    rate = np.linspace(0, 2.2, 441)
    left.axhspan(1, 1.25, color=NEUTRAL, alpha=0.15, linewidth=0)
    left.plot(rate, np.abs(1 - rate), color=PLAIN, linewidth=1)
    left.plot(rate, np.abs(1 - rate / kappa), color=BATCH, linewidth=1)
    worst = np.maximum(np.abs(1 - rate), np.abs(1 - rate / kappa))
    left.plot(rate, worst, color=THEORY, linewidth=2.4)
    best = 2 * kappa / (1 + kappa)
    left.plot(best, (kappa - 1) / (kappa + 1), "o", color=THEORY)
    left.annotate("best rate", (best, (kappa - 1) / (kappa + 1)), (1.42, 0.6), color=THEORY)
    left.annotate("steep direction", (0.3, 0.5), color=PLAIN, rotation=-47, fontsize=9)
    left.annotate("flat direction", (0.62, 0.8), color=BATCH, fontsize=9)
    left.annotate("diverges", (0.08, 1.1), color=NEUTRAL)
    left.set(
        xlabel=r"learning rate $\eta$ × $\lambda_{\max}$", ylabel="factor on the error, per step"
    )
    left.set(ylim=(0, 1.25), xlim=(0, 2.2), title=f"κ = {kappa:g}")
    for (condition, fractions), shade in zip(curves.items(), (0.35, 0.65, 1.0), strict=False):
        measured = np.asarray(fractions)
        steps = np.arange(len(measured))
        bound = ((condition - 1) / (condition + 1)) ** (2 * steps)
        right.semilogy(steps, measured, color=PLAIN, alpha=shade)
        right.semilogy(steps, bound, ":", color=THEORY)
        shown = min(len(measured) - 1, int(np.argmax(np.append(measured, 0) < 3e-7)))
        right.annotate(
            f"κ = {condition:g}",
            (shown, measured[shown]),
            (4, 4),
            textcoords="offset points",
            color=PLAIN,
        )
    right.set(xlabel="steps", ylabel="excess loss / first", ylim=(1e-7, 2))
    right.set(title="measured, and the bound (dotted)")
    return fig


def uncentred(dimensions: Sequence[int], spectra: Mapping[float, Sequence[ArrayLike]]) -> Figure:
    """Eigenvalues of second-moment matrices against the number of features.

    `spectra` maps a mean to the eigenvalues, in ascending order, for each of the `dimensions`.
    """
    fig, ax = figure(height=3.2)
    d = np.asarray(dimensions)
    for mean, values in spectra.items():
        ax.loglog(d, 1 + d * mean**2, color=THEORY, linewidth=1.2)
        ax.loglog(d, [np.asarray(each)[-1] for each in values], "o", color=PLAIN)
        ax.annotate(
            f"μ = {mean:g}",
            (d[-1], 1 + d[-1] * mean**2),
            (8, -4),
            textcoords="offset points",
            color=PLAIN,
        )
    others = [
        np.concatenate([np.asarray(values[i])[:-1] for values in spectra.values()])
        for i in range(len(d))
    ]
    least, largest = [each.min() for each in others], [each.max() for each in others]
    ax.vlines(d, least, largest, color=NEUTRAL, linewidth=5)
    ax.annotate("all others", (d[-1], 1), (8, -4), textcoords="offset points", color=NEUTRAL)
    ax.set(xlabel="number of features d", ylabel="eigenvalues", xlim=(d[0] * 0.8, d[-1] * 2))
    return fig


def three_ways(panels: Mapping[str, ArrayLike], marked: Sequence[int]) -> Figure:
    """The same examples before and after whitenings; the rows in `marked` can be followed."""
    fig, axes = figure(len(panels), height=2.3, sharex=True, sharey=True)
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        x = np.asarray(points)
        ax.plot(*x.T, ".", color=NEUTRAL, markersize=3)
        for name, row, color in zip("ABC", marked, (PLAIN, BATCH, THEORY), strict=False):
            ax.plot(*x[row], "o", color=color, markersize=7)
            ax.annotate(
                name, x[row], (5, 4), textcoords="offset points", color=color, weight="bold"
            )
        ax.set(title=title, aspect="equal", xlabel="first output")
    axes[0].set(xlabel="petal length", ylabel="petal width (cm)")
    axes[0].set_xlabel("petal length (cm)")
    axes[1].set_ylabel("second output")
    return fig


def axis_swapping(images: Mapping[str, ArrayLike]) -> Figure:
    """Where whitenings estimated from many batches put one and the same example."""
    fig, axes = figure(len(images), height=3.3, sharex=True, sharey=True)
    for ax, (title, points) in zip(np.atleast_1d(axes), images.items(), strict=True):
        x = np.asarray(points)
        ax.plot(*x.T, ".", color=WHITE, markersize=3, alpha=0.5)
        ax.axhline(0, color=NEUTRAL, linewidth=0.8)
        ax.axvline(0, color=NEUTRAL, linewidth=0.8)
        ax.set(title=title, aspect="equal", xlabel="first output")
    axes[0].set_ylabel("second output")
    return fig


def _loss_fraction(spectrum: tuple[ArrayLike, ArrayLike], steps: ArrayLike) -> NDArray[np.float64]:
    """Excess loss as a fraction of the first, at the best rate: Eqs. (4) and (5) of the chapter."""
    values, excess = (np.asarray(part, dtype=np.float64) for part in spectrum)
    rate = 2 / (values.min() + values.max())
    with np.errstate(divide="ignore"):
        shrinkage = np.log(np.abs(1 - rate * values))
    small = rate * values < 0.5
    shrinkage[small] = np.log1p(-rate * values[small])
    left = excess * np.exp(2 * np.asarray(steps)[:, None] * shrinkage)
    return np.asarray(left.sum(axis=1) / excess.sum())


def tables(spectra: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]]) -> Figure:
    """Excess loss against steps of gradient descent, for each table and each form of its input.

    `spectra` maps a table to a map from the input's form to eigenvalues and first excess losses.
    """
    fig, axes = figure(len(spectra), height=3.6, sharey=True)
    steps = np.unique(np.concatenate([np.arange(1, 10), np.logspace(1, 13.2, 420)]))
    for ax, (table, forms) in zip(np.atleast_1d(axes), spectra.items(), strict=True):
        ax.axhline(0.01, color=NEUTRAL, linewidth=0.8)
        for form, spectrum in forms.items():
            fraction = _loss_fraction(spectrum, steps)
            if form == "whitened":
                ax.plot([1, 1], [1e-6, 1], color=INPUTS[form], linewidth=3)
            else:
                ax.loglog(steps, fraction, color=INPUTS[form])
        ax.set(title=table, xlabel="steps", ylim=(1e-4, 1.3), xlim=(0.3, 1e13), xscale="log")
        ax.set_yscale("log")
        ax.set_xticks([1, 1e4, 1e8])
        ax.minorticks_off()
    axes[0].set_ylabel("excess loss / first")
    handles = [axes[0].plot([], [], color=color, label=form)[0] for form, color in INPUTS.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def triangles(before: Sequence[ArrayLike], after: Sequence[ArrayLike]) -> Figure:
    """Batches of three examples in two dimensions, before and after whitening."""
    fig, axes = figure(len(before), 2, height=2.1)
    for row, (batches, color) in enumerate(((before, PLAIN), (after, WHITE))):
        for ax, batch in zip(axes[row], batches, strict=True):
            _polygon(ax, np.asarray(batch), color)
    for ax in axes[1]:
        ax.set(xlim=(-2, 2), ylim=(-2, 2))
    axes[0, 0].set_ylabel("before")
    axes[1, 0].set_ylabel("whitened")
    return fig


def _polygon(ax: Axes, corners: NDArray[np.float64], color: str) -> None:
    closed = np.vstack([corners, corners[:1]])
    ax.plot(*closed.T, "o-", color=color)
    middle, reach = corners.mean(axis=0), 1.25 * np.abs(corners - corners.mean(axis=0)).max()
    ax.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    ax.set(aspect="equal", xticklabels=[], yticklabels=[])


def gradient_gap(gaps: ArrayLike, sizes: Mapping[str, ArrayLike]) -> Figure:
    """Size of the gradient through a whitening against the gap of two eigenvalues."""
    fig, ax = figure(height=3.2)
    gap = np.asarray(gaps)
    for (method, values), color in zip(sizes.items(), (WHITE, PLAIN), strict=False):
        ax.loglog(gap, np.asarray(values), "o-", color=color, markersize=4)
        ax.annotate(
            method,
            (gap[-1], np.asarray(values)[-1]),
            (10, 6),
            textcoords="offset points",
            color=color,
        )
    ax.set(xlabel="gap between the two eigenvalues", ylabel="norm of the gradient")
    return fig


def cost(dimensions: Sequence[int], seconds: Mapping[str, ArrayLike]) -> Figure:
    """Time to normalize a batch of 2d examples against their dimension d."""
    fig, ax = figure(height=3.2)
    d = np.asarray(dimensions)
    above, below = (-10, 12, "right"), (-2, -16, "left")
    for (label, values), color, place in zip(
        seconds.items(), (WHITE, BATCH), (above, below), strict=False
    ):
        milliseconds = 1e3 * np.asarray(values)
        ax.loglog(d, milliseconds, "o-", color=color)
        ax.annotate(
            label,
            (d[-2], milliseconds[-2]),
            place[:2],
            textcoords="offset points",
            color=color,
            horizontalalignment=place[2],
        )
    cube = 1e3 * np.asarray(seconds["ZCA whitening"])[-1] * (d / d[-1]) ** 3
    ax.loglog(d, cube, ":", color=THEORY)
    ax.annotate("d³", (d[-3], cube[-3]), (8, -10), textcoords="offset points", color=THEORY)
    ax.set(xlabel="number of features d", ylabel="time (ms)")
    ax.set_xticks(d, [str(size) for size in d])
    ax.minorticks_off()
    return fig
