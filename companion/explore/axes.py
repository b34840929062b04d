"""The interactive figure of the chapter `convolution`."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from companion import data
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, NEUTRAL, PLAIN, figure

DIGITS = (0, 3, 4, 7)
# A blur, edges from left to right and from top to bottom, and spots.
FILTERS = [
    [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
]
SCALES = (16, 8, 8, 8)


def axes() -> InteractiveFigure:
    """Which values of a batch of feature maps share one mean, by the axes that are chosen.

    The maps are those of four filters over four digits (:func:`companion.data.digits`).

    Examples
    --------
    >>> from companion import explore
    >>> explore.axes().start["shape"]
    [4, 4, 8, 8]
    """
    split = data.digits(dtype=torch.float64)
    first = [int((split.y_train == digit).nonzero()[0]) for digit in DIGITS]
    images = split.x_train[first].reshape(-1, 1, 8, 8)
    scaled = [np.divide(each, scale) for each, scale in zip(FILTERS, SCALES, strict=True)]
    filters = torch.from_numpy(np.stack(scaled)).unsqueeze(1)
    maps = torch.conv2d(images, filters, padding=1).numpy().round(3)
    start = {
        "maps": maps.tolist(),
        "shape": list(maps.shape),
        "place": [1, 1, 3, 4],
        "axes": {"N": "together", "C": "apart", "H": "together", "W": "together"},
    }

    def picture() -> Figure:
        fig, ax = figure(height=4.2)
        sizes = np.abs(maps) / np.abs(maps).max(axis=(0, 2, 3), keepdims=True)
        block = sizes.transpose(0, 2, 1, 3).reshape(32, 32)  # images below, channels beside
        rows, columns = np.indices(block.shape)
        colors = np.where(columns // 8 == 1, BATCH, NEUTRAL)
        areas = 2 + 60 * block**2
        ax.scatter(columns.ravel(), rows.ravel(), areas.ravel(), c=colors.ravel())
        ax.plot(8 + 4, 8 + 3, "o", color=PLAIN, markersize=9)
        for edge in np.arange(5) * 8 - 0.5:
            ax.axvline(edge, color=NEUTRAL, linewidth=1)
            ax.axhline(edge, color=NEUTRAL, linewidth=1)
        middles = np.arange(4) * 8 + 3.5
        ax.set_xticks(middles, range(1, 5))
        ax.set_yticks(middles, [f"image {k}" for k in range(1, 5)])
        ax.set(xlim=(-0.5, 31.5), ylim=(31.5, -0.5), aspect="equal", xlabel="channel")
        ax.grid(visible=False)
        return fig

    return InteractiveFigure(
        "axes",
        "Which values share a mean",
        "Two drawings. The first has the feature maps of four images, one below the other, and of "
        "four channels, side by side: sixteen maps of 8 by 8 values. For each of the axes N, C, H "
        "and W one chooses whether its values are averaged together or stay each alone; channels "
        "may form two groups, too. The values that share a mean with the one at a point, which "
        "can be moved, are coloured: at first the whole second channel, in all images. The second "
        "drawing has the distribution of these values, and their mean.",
        start,
        picture,
    )
