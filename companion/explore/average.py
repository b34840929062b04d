"""The interactive figure of the chapter `inference`."""

from __future__ import annotations

import itertools
import math

import numpy as np
from matplotlib.figure import Figure

from companion import data
from companion.explore.boundary import draws
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, INFERENCE, THEORY, figure
from companion.statistics import ema_lag, ema_variance

STEPS = 100
RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def average() -> InteractiveFigure:
    """A running mean beside the mean that it estimates, and its error against α.

    The values are the petals' lengths of 150 irises (:func:`companion.data.table`), drawn in
    batches; at every step all of them grow by the same amount, as a feature does while the layers
    below it learn.

    References
    ----------
    Eqs. (4) and (5) of the chapter `inference`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.average()
    >>> len(figure.start["x"]), figure.start["alpha"], figure.start["m"], figure.start["drift"]
    (150, 0.1, 8, 0.02)
    """
    values, features = data.table("iris")
    x = values[:, features.index("petal length (cm)")]
    alpha, m, drift, seed = 0.1, 8, 0.02, 1
    start = {
        "x": x.tolist(),
        "seed": seed,
        "steps": STEPS,
        "step": STEPS,
        "rates": RATES,
        "alpha": alpha,
        "m": m,
        "drift": drift,
        "beginning": "kept",
    }

    def picture() -> Figure:
        fig, (left, right) = figure(2, height=3.2)
        steps = np.arange(1, STEPS + 1)
        drawn = x[np.reshape(draws(seed, len(x), m * STEPS), (STEPS, m))].mean(axis=1)
        means = drawn + drift * steps
        running = itertools.accumulate(means, lambda a, b: a + alpha * (b - a), initial=0.0)
        left.plot(steps, means, ".", color=BATCH, alpha=0.5)
        left.plot(steps, x.mean() + drift * steps, color=THEORY, linestyle="--")
        left.plot([0, *steps], list(running), color=INFERENCE)
        left.text(98, 0.7, "running mean", color=INFERENCE, ha="right")
        left.text(98, 6.9, "batches' means", color=BATCH, ha="right")
        left.set(xlabel="step", ylabel="length (cm)", ylim=(0, 8))
        rates = np.geomspace(RATES[0], 1, 100)
        lag = [drift * ema_lag(rate) for rate in rates]
        scatter = [math.sqrt(x.var() / m * ema_variance(rate)) for rate in rates]
        right.loglog(rates, lag, color=BATCH, linestyle="--")
        right.loglog(rates, scatter, color=BATCH, linestyle=":")
        right.loglog(rates, np.hypot(lag, scatter), color=INFERENCE)
        right.text(0.006, 0.8, "lag", color=BATCH)
        right.text(0.99, 0.25, "scatter", color=BATCH, ha="right")
        right.set(xlabel="α", ylabel="error in the end (cm)", ylim=(0.01, 5))
        return fig

    return InteractiveFigure(
        "average",
        "A running mean",
        "Two drawings. In the first, over 100 steps, the means of batches scatter about a line "
        "that rises slowly, the mean of the population; the running mean starts at 0, comes up to "
        "the line and then trails a little below it, inside a band. A point on it can be moved "
        "along the steps. In the second, the expected error at that step against α: the start and "
        "the lag make it large on the left, the scatter on the right, and it is smallest between. "
        "Sliders set α, the batch size, and how far the population moves at each step.",
        start,
        picture,
    )
