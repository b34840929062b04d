"""The interactive figure of the chapter `alternatives`."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from companion import data
from companion.explore.axes import FILTERS, SCALES
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, NEUTRAL, PLAIN, figure

IMAGES, PLACE, POWER = 8, (2, 2), 0.5


def neighbours() -> InteractiveFigure:
    """Which normalized values change when one image, one channel or all inputs do.

    The maps are those of four filters over nine digits (:func:`companion.data.digits`), every other
    position; the ninth digit is one to put in another's place.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.neighbours()
    >>> figure.start["layer"], figure.start["m"]
    ('batch', 4)
    """
    images = data.digits(dtype=torch.float64).x_train[: IMAGES + 1].reshape(-1, 1, 8, 8)
    scaled = [np.divide(each, scale) for each, scale in zip(FILTERS, SCALES, strict=True)]
    filters = torch.from_numpy(np.stack(scaled)).unsqueeze(1)
    maps = torch.conv2d(images, filters, padding=1, stride=2).numpy().round(3)
    start = {
        "maps": maps.tolist(),
        "place": list(PLACE),
        "m": 4,
        "power": POWER,
        "layer": "batch",
        "change": "image",
    }

    def picture() -> Figure:
        before = maps[:4]
        after = before.copy()
        after[PLACE[0] - 1] *= 10**POWER

        def normalized(x: np.ndarray) -> np.ndarray:
            centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
            return centred / x.std(axis=(0, 2, 3), keepdims=True)

        moved = np.sqrt(np.square(normalized(after) - normalized(before)).mean(axis=(2, 3)))
        rows, columns = np.indices(moved.shape) + 1
        colors = np.where(rows == PLACE[0], PLAIN, BATCH)
        fig, ax = figure(height=3.6)
        ax.scatter(columns, rows, 900, facecolors="none", edgecolors=NEUTRAL, linewidths=0.5)
        ax.scatter(columns, rows, 900 * np.minimum(moved, 1) ** 2, c=colors.ravel())
        ax.set(xlabel="channel", ylim=(4.6, 0.4), xlim=(0.4, 4.6), xticks=range(1, 5))
        ax.set_yticks(range(1, 5), [f"image {row}" for row in range(1, 5)])
        return fig

    return InteractiveFigure(
        "neighbours",
        "Which outputs change",
        "Two drawings. The first has a circle for each of four maps of each image of a batch, "
        "filled as far as its normalized values change when one image, one channel or everything "
        "is multiplied by a factor, or another digit is put in the place of one. The second has "
        "the changes against the factor, where the input was changed and elsewhere; the factor can "
        "be moved. At first one of four images is multiplied by about 3: under batch "
        "normalization the other images' outputs change as well; under layer, group and instance "
        "normalization no output does.",
        start,
        picture,
    )
