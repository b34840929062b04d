"""The interactive figure of the chapter `whitening`."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from companion.explore.interactive import InteractiveFigure
from companion.plots.whitening import valley
from companion.whitening import whiten

WEIGHTS = [1.0, 1.0]
LONG, SHORT, ANGLE = 2.4, 0.6, 1.25
POINTS = 60


def descent() -> InteractiveFigure:
    """Gradient descent on a least-squares loss of two weights whose inputs the reader stretches.

    The targets stay, so that half of the loss lies along each axis of the ellipse whatever its
    shape. The learning rate is the best one; with whitened inputs it is 1.

    References
    ----------
    Eqs. (4) to (6) of the chapter `whitening`.

    Examples
    --------
    >>> from companion import explore
    >>> explore.descent().start["inputs"]
    'raw'
    """
    generator = torch.Generator().manual_seed(0)
    z = whiten(torch.randn(POINTS, 2, dtype=torch.float64, generator=generator))

    def picture() -> Figure:
        cos, sin = np.cos(ANGLE), np.sin(ANGLE)
        white = z.numpy()
        x = white @ (np.array([[cos, sin], [-sin, cos]]) * [[LONG], [SHORT]])
        best = 2 / (LONG**2 + SHORT**2)
        return valley(
            white @ WEIGHTS,
            {"as they are, 28 steps": (x, best, 28), "whitened, 1 step": (white, 1.0, 1)},
        )

    return InteractiveFigure(
        "descent",
        "Descent and the shape of the inputs",
        "Two drawings. In the first an ellipse of points, the inputs, with two handles that "
        "stretch and turn it. The second shows the contours of the loss of two weights and the "
        "path of gradient descent at the best learning rate, from the start at 0 to the minimum "
        "in the middle. A long ellipse makes a narrow valley, and the path zigzags over steps "
        "in proportion to the condition number; a circle makes a round bowl. With whitened "
        "inputs the bowl is round whatever the ellipse is, and one step reaches the bottom.",
        {
            "z": z.tolist(),
            "weights": WEIGHTS,
            "long": LONG,
            "short": SHORT,
            "angle": ANGLE,
            "inputs": "raw",
        },
        picture,
    )
