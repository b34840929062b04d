"""The interactive figure of the chapter `learning-rate`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from companion import data
from companion.explore.interactive import InteractiveFigure
from companion.plots.learning_rate import plane

INPUTS = ("sepal width (cm)", "petal length (cm)")
TARGET = "petal width (cm)"
PLACE = (-0.8, -0.6)
RATES = (0.1, 10.0, 1000.0)


def circle() -> InteractiveFigure:
    """Two weights in front of a normalization under descent, at learning rates over six decades.

    Inputs and target are standardized measurements of 150 irises (:func:`companion.data.table`);
    the loss is half the mean squared difference of the normalized output and the target.

    References
    ----------
    Eqs. (1) and (3) to (6) of the chapter `learning-rate`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.circle()
    >>> len(figure.start["u"]), figure.start["rate"]
    (150, 0.1)
    """
    values, features = data.table("iris")
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    u = standard[:, [features.index(name) for name in INPUTS]]
    t = standard[:, features.index(TARGET)]

    def picture() -> Figure:
        covariance, to_target = u.T @ u / len(u), u.T @ t / len(u)
        paths = {}
        for rate in RATES:
            path = [np.array(PLACE)]
            for _ in range(2000):
                w = path[-1]
                std = np.sqrt(w @ covariance @ w)
                slope = (w @ to_target / std**2 * (covariance @ w) - to_target) / std
                path.append(w - rate * slope)
            paths[f"η = {rate:,g}"] = np.array(path)
        return plane(paths, np.linalg.solve(covariance, to_target))

    return InteractiveFigure(
        "circle",
        "Weights on their circle",
        "Two drawings. In the first, the plane of two weights, whose directions are shown as they "
        "are and whose norms on a logarithmic scale, with circles for the norms 1, 10, 100 and so "
        "on, and the path of descent from a start that can be dragged to the best direction, a "
        "dashed ray. The second shows the angle from the best direction against the number of "
        "steps. At a small learning rate the path follows the circle of the start. At a large one "
        "the first step jumps outward, and the next follow the larger circle in small steps. The "
        "path ends at the ray at every rate, after the fewest steps at a rate between.",
        {"u": u.tolist(), "t": t.tolist(), "place": list(PLACE), "rate": 0.1},
        picture,
    )
