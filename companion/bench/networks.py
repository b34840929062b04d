"""The networks whose training steps are timed: the shapes of three well-known ones.

They are what people train, made of plain modules: a convolution without a bias, batch
normalization, ReLU. Only ``torch.nn``'s layers stand in them; conversion is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 100
MOBILENET_WIDTHS = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut.

    Source: He et al. (2016), arXiv:1512.03385, Figure 2 and Section 3.3, option B.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut.append(nn.Conv2d(channels, width, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for an activation ``(N, channels, H, W)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y + self.shortcut(x)
        return self.relu(y)


class Dense(nn.Module):
    """Normalization, ReLU and convolution, twice, whose result is put beside the input.

    Source: Huang et al. (2017), arXiv:1608.06993, Section 3, DenseNet-B.
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, `growth` channels more than its input ``(N, channels, H, W)``."""
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return torch.cat((x, y), 1)


def _convolution(
    channels: int, width: int, size: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


def resnet(blocks: tuple[int, ...] = (2, 2, 2, 2), width: int = 64) -> nn.Module:
    """ResNet-18 by default: 20 batch normalizations, 8 of which an addition follows.

    Source: He et al. (2016), arXiv:1512.03385, Table 1.
    """
    layers = [*_convolution(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            layers.append(Residual(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = width
        width *= 2
    return nn.Sequential(*layers, *_head(channels))


def mobilenet(widths: tuple[int, ...] = MOBILENET_WIDTHS) -> nn.Module:
    """MobileNet by default: 27 batch normalizations, each before a ReLU.

    Source: Howard et al. (2017), arXiv:1704.04861, Table 1.
    """
    channels = widths[0] // 2
    layers = _convolution(3, channels, 3, 2)
    for index, width in enumerate(widths):
        # Wherever the width grows the size shrinks, except for the first layer.
        stride = 2 if index > 0 and width > channels else 1
        layers += _convolution(channels, channels, 3, stride, groups=channels)
        layers += _convolution(channels, width, 1, 1)
        channels = width
    return nn.Sequential(*layers, *_head(channels))


def densenet(blocks: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32) -> nn.Module:
    """DenseNet-121 by default: 121 batch normalizations, most of them of concatenations.

    Source: Huang et al. (2017), arXiv:1608.06993, Table 1.
    """
    channels = 2 * growth
    layers = [*_convolution(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(blocks):
        for _ in range(count):
            layers.append(Dense(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        if stage < len(blocks) - 1:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, *_head(channels))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "densenet": densenet,
}
