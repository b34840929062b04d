"""The interactive figure of the chapter `recurrent`."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from companion import closed_forms, data
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, THEORY, figure

UNITS, EXAMPLES, IMAGES, STRIDE, STEPS = 24, 48, 96, 7, 50


def _orthogonal(rows: int, columns: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return nn.init.orthogonal_(torch.empty(rows, columns, dtype=torch.float64), generator=random)


def through_time() -> InteractiveFigure:
    """The gradient of a normalized tanh recurrence against the number of steps back.

    24 units read 48 sequences of handwritten digits (:func:`companion.data.digits`) for 51 steps;
    γ, that of the input, and the start of the recurrent weights can be chosen.

    References
    ----------
    Eqs. (2) and (8) of the chapter `recurrent`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.through_time()
    >>> figure.start["gamma"], figure.start["ratio"], figure.start["back"]
    (1.0, 0, 50)
    """
    images = data.digits().x_train[:IMAGES].double()
    features = images @ _orthogonal(UNITS, images.shape[1], 1).T
    start = {
        "orthogonal": _orthogonal(UNITS, UNITS, 0).numpy().round(9).tolist(),
        "features": features.numpy().round(4).tolist(),
        "examples": EXAMPLES,
        "stride": STRIDE,
        "steps": STEPS,
        "back": STEPS,
        "start": "orthogonal",
        "gamma": 1.0,
        "ratio": 0,
    }

    def picture() -> Figure:
        fig, ax = figure(height=3.2)
        back = np.arange(STEPS + 1)
        for ratio, place in ((0.0, 1.5), (0.2, 0.3), (1.0, -3.3)):
            width, share = np.hypot(1, ratio), 1 / (1 + ratio**2)
            factor = closed_forms.recurrent_factor(width, share)
            ax.plot(back, back * np.log10(factor), color=BATCH)
            text = f"γₓ = {ratio:g}" if ratio else "no input"
            ax.text(38, place, text, color=THEORY)
        ax.set(xlabel="steps back", ylabel="power of 10", ylim=(-6, 3))
        ax.set_title("gradient divided by the last step's, predicted at γ = 1")
        return fig

    return InteractiveFigure(
        "through_time",
        "A gradient on its way back",
        "A drawing of the gradient of a normalized recurrent network against the number of steps "
        "back, on a logarithmic scale, and a dashed straight line, what is predicted. At first "
        "the recurrent weights are orthogonal, γ is 1 and nothing is read: the gradient grows "
        "along the line, to about 60 times in 50 steps. With an input of equal weight it falls. "
        "With the identity as recurrent weights it leaves the line. A point on the curve can be "
        "moved along the steps.",
        start,
        picture,
    )
