"""The interactive figure of the chapter `memory-speed`."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from companion.experiments.memory_traffic import OPERATIONS, attainable, bytes_moved
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, THEORY, figure

# Examples, channels, and height and width, of layers of a ResNet; the last is a dense layer.
RESNET = [(32, 64, 112), (32, 256, 56), (32, 512, 28), (32, 1024, 14), (32, 2048, 7)]
SHAPES = [*RESNET, (256, 1024, 1)]
MIB = 2**20


def roofline(bandwidth: float = 2e10, rate: float = 1e11, cache: int = 16) -> InteractiveFigure:
    """Bytes that a pass moves for a shape, a block and a cache, and the roofline's speed.

    Parameters
    ----------
    bandwidth, rate
        bytes and operations per second of the machine
    cache
        MiB that stay in the cache between the two sweeps, from 1 to 128

    Raises
    ------
    ValueError
        a number that is not positive, a cache out of range, or a machine whose ridge,
        ``rate / bandwidth``, is not above 0.5 operations per byte

    References
    ----------
    Eqs. (2) and (3) of the chapter `memory-speed`.

    Examples
    --------
    >>> from companion import explore
    >>> explore.roofline(bandwidth=1e10, rate=5e10).start["machine"]
    {'bandwidth': 10000000000.0, 'rate': 50000000000.0}
    """
    for name, value in (("bandwidth", bandwidth), ("rate", rate)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    if rate <= bandwidth / 2:
        raise ValueError(
            f"rate: expected more than half an operation per byte of bandwidth, {bandwidth / 2:g}, "
            f"got {rate:g}"
        )
    if not 1 <= cache <= 128:
        raise ValueError(f"cache: expected 1 to 128 MiB, got {cache}")
    n, c, h = SHAPES[0]
    tensor = 4 * n * c * h * h

    def picture() -> Figure:
        fig, ax = figure(height=3.4)
        ridge = rate / bandwidth
        edges = np.array([0.125, ridge, 4 * ridge])
        roof = [attainable(edge, bandwidth, rate) / 1e9 for edge in edges]
        ax.loglog(edges, roof, color=THEORY)
        intensity = OPERATIONS["forward"] * tensor / 4
        intensity /= bytes_moved("forward", tensor, tensor, cache * MIB)
        speed = attainable(intensity, bandwidth, rate) / 1e9
        ax.loglog(intensity, speed, "o", color=BATCH, markersize=8)
        ax.text(1.1 * intensity, 0.6 * speed, "forward, all channels in a block")
        ticks = [2.0**k for k in range(-3, 20) if 2.0**k <= edges[-1]]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_formatter("")
        ax.yaxis.set_minor_formatter("")
        ax.set(xlabel="operations per byte", ylabel="10⁹ operations / s")
        return fig

    return InteractiveFigure(
        "roofline",
        "Traffic of a shape on the roofline",
        "A roof on logarithmic axes: speed against operations per byte, at first rising, where "
        "memory is the limit, then flat, where arithmetic is. A point under the rising part is "
        "a pass of batch normalization. Radio buttons choose the tensor's shape and the pass, "
        "sliders the channels in a block and the cache. When a block fits the cache the bytes "
        "moved drop to two tensors, and the point moves up the roof, still far from the flat "
        "part.",
        {
            "shapes": [list(shape) for shape in SHAPES],
            "shape": 0,
            "machine": {"bandwidth": bandwidth, "rate": rate},
            "operations": OPERATIONS,
            "block": c,
            "cache": cache,
        },
        picture,
    )
