"""The interactive figure of the chapter `whitening`."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from companion.explore.interactive import InteractiveFigure
from companion.plots.whitening import valley
from companion.reference import Array
from companion.whitening import whiten

WEIGHTS = [1.5, 1.0]
LONG, SHORT, ANGLE = 2.4, 0.6, 1.25
POINTS = 60


def _path(x: Array, target: Array, rate: float, steps: int) -> Array:
    """Weights of gradient descent from 0 on the squared error, ``(steps + 1, 2)``."""
    path = [np.zeros(2)]
    for _ in range(steps):
        path.append(path[-1] - rate * x.T @ (x @ path[-1] - target) / len(x))
    return np.array(path)


def descent() -> InteractiveFigure:
    """Gradient descent on a least-squares loss of two weights whose inputs the reader stretches.

    The learning rate is nine tenths of the largest stable one; with whitened inputs it is 1.

    References
    ----------
    Eqs. (4) and (5) of the chapter `whitening`.

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
        target = x @ WEIGHTS
        slow, fast = _path(x, target, 1.8 / LONG**2, 40), _path(white, target, 1.0, 1)
        return valley(target, {"as they are, 40 steps": (x, slow), "whitened": (white, fast)})

    return InteractiveFigure(
        "descent",
        "Descent and the shape of the inputs",
        "Two drawings. In the first an ellipse of points, the inputs, with two handles that "
        "stretch and turn it. The second shows the contours of the loss of two weights and the "
        "path of gradient descent from the start at 0. A long ellipse makes a narrow valley, "
        "and the path zigzags over many steps; a circle makes a round bowl. With whitened "
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
