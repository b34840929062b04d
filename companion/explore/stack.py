"""The interactive figure of the chapter `depth`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from companion import closed_forms, reference
from companion.explore.boundary import draws
from companion.explore.interactive import InteractiveFigure
from companion.plots.style import BATCH, THEORY, figure

WIDTH, DEEPEST, MOST = 96, 30, 32
FINE = 2**16  # values that a random number is drawn from

Array = NDArray[np.float64]

# √(E f′(z)²/Var f(z)) for a standard Gaussian z.
GROWTHS = {
    "line": 1.0,
    "sigmoid": 1.0166574595,
    "tanh": 1.0852682767,
    "relu": float(np.sqrt(np.pi / (np.pi - 1))),
}


def _slope(activation: str, z: Array) -> tuple[Array, Array]:
    """The activation and its derivative."""
    if activation == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(np.float64)
    if activation == "sigmoid":
        value = 1 / (1 + np.exp(-z))
        return value, value * (1 - value)
    if activation == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2
    return z, np.ones_like(z)


@lru_cache(maxsize=4)
def network(seed: int, width: int, deepest: int, most: int) -> tuple[Array, Array, Array]:
    """What ``js/figures/stack.js`` draws: matrices, inputs and a gradient, a row a unit."""
    drawn = np.array(draws(seed, FINE, width * (width * deepest + 2 * most)))
    values = np.sqrt(3) * ((2 * drawn + 1) / FINE - 1)
    matrices, inputs, gradient = np.split(
        values, [width * width * deepest, width * (width * deepest + most)]
    )
    shape = (width, most)
    scaled = matrices.reshape(deepest, width, width) / np.sqrt(width)
    return scaled, inputs.reshape(shape), gradient.reshape(shape)


def gradient_norms(
    activation: str, m: int, depth: int, seed: int, start: Mapping[str, Any]
) -> list[float]:
    """Norms of the gradient in the figure's stack, from the top down."""
    matrices, inputs, gradient = network(seed, start["width"], start["deepest"], start["most"])
    h, _ = _slope(activation, reference.forward(inputs[:, :m].T, eps=1e-12).x_hat)
    layers = []
    for matrix in matrices[:depth]:
        batch = reference.forward(h @ matrix.T, eps=1e-12)
        h, slope = _slope(activation, batch.x_hat)
        layers.append((matrix, batch, slope))
    g = gradient[:, :m].T
    norms = [float(np.linalg.norm(g))]
    for matrix, batch, slope in reversed(layers):
        g = reference.backward(g * slope, batch).x @ matrix
        norms.append(float(np.linalg.norm(g)))
    return norms


def stack() -> InteractiveFigure:
    """The gradient on its way down a random normalized stack, against what is predicted.

    Layers of 96 units, each a matrix, batch normalization (γ = 1, β = 0) and an activation. The
    page computes both passes; activation, depth, batch size and network are chosen.

    References
    ----------
    Eqs. (2) and (7) of the chapter `depth`.

    Examples
    --------
    >>> from companion import explore
    >>> figure = explore.stack()
    >>> figure.start["activation"], figure.start["m"], figure.start["depth"]
    ('relu', 32, 20)
    """
    start = {
        "width": WIDTH,
        "deepest": DEEPEST,
        "most": MOST,
        "activation": "relu",
        "m": 32,
        "depth": 20,
        "seed": 1,
        "growths": GROWTHS,
    }

    def picture() -> Figure:
        fig, ax = figure(height=3.4)
        norms = np.array(gradient_norms("relu", 32, 20, 1, start))
        factor = GROWTHS["relu"] * closed_forms.linear_gradient_growth(32)
        below = np.arange(21)
        ax.semilogy(below, factor**below, color=THEORY, linestyle="--")
        ax.semilogy(below, norms / norms[0], "o", color=BATCH, markersize=5)
        ax.set(xlabel="layers below the top", ylabel="gradient (1 at the top)")
        return fig

    return InteractiveFigure(
        "stack",
        "A gradient on its way down",
        "A drawing on a logarithmic axis: the norm of the gradient against the number of layers "
        "below the top. Dots, one a layer, are computed for a random normalized network of 20 "
        "layers of ReLUs and a batch of 32; they follow a dashed straight line, which rises by "
        "1.23 per layer. Radio buttons choose the activation, sliders the number of layers, the "
        "batch size and the network. Without an activation and with a batch of 8 the line rises "
        "by 1.10 per layer, with a batch of 32 hardly.",
        start,
        picture,
    )
