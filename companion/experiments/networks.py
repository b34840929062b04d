"""The networks of the experiments, as in the papers or small enough for a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

import companion

Activation = Callable[[], nn.Module]


def perceptron(
    sizes: Sequence[int],
    activation: Activation,
    normalization: Callable[[int], nn.Module] | None,
    weight_std: float | None = None,
) -> nn.Sequential:
    """Fully connected layers, each but the last followed by `normalization` and `activation`.

    Weights are N(0, `weight_std`²), or N(0, 2/fan-in) if that is None; biases, which only layers
    without normalization have, are 0. The last module is the output layer, the one before it the
    last activation.

    Parameters
    ----------
    sizes
        of the input, the hidden layers and the output
    activation
        makes an activation, a layer without arguments
    normalization
        makes a layer for a number of features; None: no normalization
    weight_std
        standard deviation of the weights at the start
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers.append(_linear(fan_in, fan_out, weight_std, bias=normalization is None))
        if normalization is not None:
            layers.append(normalization(fan_out))
        layers.append(activation())
    return nn.Sequential(*layers, _linear(sizes[-2], sizes[-1], weight_std, bias=True))


def _linear(fan_in: int, fan_out: int, weight_std: float | None, *, bias: bool) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    with torch.no_grad():
        layer.weight.normal_(0.0, math.sqrt(2.0 / fan_in) if weight_std is None else weight_std)
        if bias:
            layer.bias.zero_()
    return layer


def convolutional(
    channels: int,
    side: int,
    activation: Activation,
    normalization: Callable[[int], nn.Module] | None = companion.BatchNorm2d,
    widths: Sequence[int] = (16, 32, 32),
) -> nn.Sequential:
    """3×3 convolutions, each halving the sides, and a linear layer over what they leave.

    Parameters
    ----------
    channels, side
        of the square input images
    activation
        makes an activation, a layer without arguments
    normalization
        makes a layer for a number of channels, between a convolution and its activation; None: no
        normalization
    widths
        the convolutions' numbers of channels
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(nn.Conv2d(channels, width, 3, 2, 1, bias=normalization is None))
        if normalization is not None:
            layers.append(normalization(width))
        layers.append(activation())
        channels, side = width, (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 10))
