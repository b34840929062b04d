"""The interactive figure of the chapter `bias-drift`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import closed_forms, data
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, PLAIN, figure

STEPS = 60


def drift() -> InteractiveFigure:
    """The bias of a centred layer under descent that takes the mean for a constant, or does not.

    Inputs and targets are the petals' lengths and widths of 150 irises
    (:func:`companion.data.table`), the loss is half the mean squared error.

    References
    ----------
    Eqs. (4), (6) and (15) of the chapter `bias-drift`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.drift()
    >>> len(figure.start["u"]), figure.start["every"], figure.start["step"]
    (150, 1, 60)
    """
    values, features = data.table("iris")
    u, t = (values[:, features.index(f"petal {side} (cm)")] for side in ("length", "width"))
    start = {
        "u": u.tolist(),
        "t": t.tolist(),
        "steps": STEPS,
        "step": STEPS,
        "mean": "constant",
        "rate": 0.1,
        "every": 1,
    }

    def picture() -> Figure:
        fig, (left, right) = figure(2, height=3.0)
        steps = range(STEPS + 1)
        left.plot(steps, [closed_forms.bias_drift(k, 0.1, t.mean()) for k in steps], color=PLAIN)
        left.axhline(0, color=BATCH)
        left.text(38, 6.2, "mean a constant", color=PLAIN, ha="right")
        left.text(57, 0.3, "mean differentiated", color=BATCH, ha="right")
        left.set(xlabel="step", ylabel="bias b (cm)", ylim=(-0.5, 8))
        loss = (np.square(u - u.mean() - t).mean() / 2).item()
        right.plot([0, STEPS], [loss, loss], color=PLAIN)
        right.set(xlabel="step", ylabel="loss (cm²)", ylim=(0, 1.5))
        return fig

    return InteractiveFigure(
        "drift",
        "A bias under descent",
        "Two drawings, each over 60 steps: the bias of a centred layer, and the loss. At first "
        "descent takes the mean for a constant, and it is computed anew before every step: the "
        "bias rises in a straight line, and the loss is a level line. A point on the line of the "
        "bias can be moved along the steps. With the mean differentiated the bias stays at 0. "
        "With a mean that serves several steps the loss falls, and jumps back whenever the mean "
        "is computed anew.",
        start,
        picture,
    )
