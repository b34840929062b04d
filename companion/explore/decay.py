"""The interactive figure of the chapter `weight-decay`."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from companion import closed_forms
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, THEORY, figure

STEPS = 3000
RATE, DECAY, DROP = 0.4, 0.02, 10


def decay(gradient: float = 0.11) -> InteractiveFigure:
    """Length and turning of scale-invariant weights that decay, and a drop of the learning rate.

    Parameters
    ----------
    gradient
        G, the length of the gradient at weights of length 1: positive and finite; by default about
        what a normalized layer on the digits has

    Raises
    ------
    ValueError
        `gradient` is not positive, or not finite

    References
    ----------
    Eqs. (3), (4), (5) and (8) of the chapter `weight-decay`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.decay(gradient=0.1)
    >>> figure.start["gradient"], figure.start["rate"], figure.start["step"]
    (0.1, 0.4, 1000)
    """
    if not 0 < gradient < math.inf:
        raise ValueError(f"gradient: expected a positive number, got {gradient}")
    start = {
        "gradient": gradient,
        "steps": STEPS,
        "step": 1000,
        "rate": RATE,
        "decay": DECAY,
        "start": 1,
        "drop": DROP,
    }

    def picture() -> Figure:
        fig, (left, right) = figure(2, height=3.0)
        rates = np.where(np.arange(STEPS) < STEPS / 2, RATE, RATE / DROP)
        lengths, angles = _path(rates, gradient)
        for ax, values, label in ((left, lengths, "length r"), (right, angles, "angle (radians)")):
            ax.plot(values, color=BATCH)
            ax.set(xlabel="step", ylabel=label, yscale="log")
        for place, rate in enumerate((RATE, RATE / DROP)):
            span = [place * STEPS / 2, (place + 1) * STEPS / 2]
            rest = closed_forms.equilibrium_norm(rate, DECAY, gradient)
            left.plot(span, [rest, rest], color=THEORY, linestyle="--")
            rest = closed_forms.equilibrium_angle(rate, DECAY)
            right.plot(span, [rest, rest], color=THEORY, linestyle="--")
        return fig

    return InteractiveFigure(
        "decay",
        "Weights that decay",
        f"Two drawings on logarithmic axes, each over {STEPS:,} steps: the length of "
        "scale-invariant weights, and the angle by which a step turns them. Dashed levels are "
        "their equilibria. The length falls from 1 to its level, and the angle rises to its own. "
        "Half way the learning rate is divided by ten: the angle falls to a tenth at once and then "
        "rises to a level at a third of the first, while the length goes down to its new one. "
        "Sliders change learning rate, weight decay, first length and drop; a point moves along "
        "the steps.",
        start,
        picture,
    )


def _path(
    rates: NDArray[np.float64], gradient: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Length before, and angle of, each step from length 1."""
    r, path = 1.0, []
    for rate in rates:
        along, across = (1 - rate * DECAY) * r, rate * gradient / r
        path.append((r, math.atan2(across, along)))
        r = math.hypot(along, across)
    lengths, angles = np.array(path).T
    return lengths, angles
