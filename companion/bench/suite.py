"""The cases: which activations are normalized, in which layout and type."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Case(NamedTuple):
    """One activation, and how its batch normalization is called."""

    group: str
    shape: tuple[int, ...]
    channels_last: bool = False
    dtype: str = "float32"
    module: bool = False
    """Call a ``BatchNorm1d`` instead of the function."""

    @property
    def name(self) -> str:
        """Unique in a suite."""
        parts = ["BatchNorm1d"] if self.module else []
        parts.append("x".join(map(str, self.shape)))
        parts += ["channels-last"] if self.channels_last else []
        parts += [] if self.dtype == "float32" else [self.dtype]
        return "-".join(parts)

    @property
    def path(self) -> str:
        """What the option ``--only`` is matched with."""
        return f"{self.group}/{self.name}"

    @property
    def layout(self) -> str:
        """In words; ``(N, C)`` is contiguous."""
        return "channels-last" if self.channels_last else "contiguous"

    @property
    def bytes(self) -> int:
        """Of one activation tensor."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def m(self) -> int:
        """Values per channel."""
        return math.prod(self.shape) // self.shape[1]


def resnet50_layers() -> list[tuple[int, int]]:
    """Channels and height of the input of ResNet-50's 53 batch normalizations, on 224×224 images.

    The variant with the stride in the 3×3 convolution, as in torchvision ("v1.5").

    Source: He et al. (2015), arXiv:1512.03385, Table 1.
    """
    layers = [(64, 112)]
    # What the pooling leaves, and the width of the first stage.
    size, width = 56, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers.append((width, size))
            if block == 0 and stage > 0:
                size //= 2
            layers += [(width, size), (4 * width, size)]
            if block == 0:
                # The shortcut's projection.
                layers.append((4 * width, size))
        width *= 2
    return layers


def _resnet50(batch_sizes: tuple[int, ...]) -> list[Case]:
    shapes = dict.fromkeys(resnet50_layers())
    return [
        Case("resnet50", (N, C, size, size), channels_last)
        for N in batch_sizes
        for channels_last in (False, True)
        for C, size in shapes
    ]


_ROWS = [
    Case("rows", shape) for shape in ((60, 100), (256, 256), (1024, 1024), (8192, 512), (65536, 64))
]
_FEW_CHANNELS = [
    Case("few-channels", (128, 3, 224, 224)),
    Case("few-channels", (8, 3, 512, 512), channels_last=True),
    Case("few-channels", (10**6, 2)),
]
_TINY = [Case("tiny", shape) for shape in ((4, 16, 8, 8), (2, 3, 5, 5), (32, 10))]
_IRREGULAR = [
    *(
        Case("irregular", shape, channels_last)
        for channels_last in (False, True)
        for shape in ((32, 37, 20, 20), (16, 17, 96, 96), (64, 129, 20, 20), (32, 24, 96, 96))
    ),
    *(
        Case("irregular", shape, channels_last=True)
        for shape in ((8, 64, 32, 32), (32, 96, 32, 32), (64, 64, 32, 32), (32, 56, 64, 64))
    ),
    *(
        Case("irregular", shape)
        for shape in ((1000, 37), (777, 129), (100003, 3), (40000, 17), (40000, 24), (400000, 24))
    ),
    Case("irregular", (5000, 1001)),
]
"""Shapes that nothing was tuned to: odd numbers of channels, rows that end within a vector or a
cache line, maps of other sizes than ResNet's, sizes about those of caches."""

# One or two of each kind.
_QUICK = {
    "resnet50/8x256x14x14",
    "resnet50/8x2048x7x7-channels-last",
    "resnet50/32x64x56x56",
    "resnet50/32x64x56x56-channels-last",
    "resnet50/32x512x28x28",
    "resnet50/32x512x7x7",
    "planes/64x256x14x14",
    "rows/60x100",
    "rows/1024x1024",
    "rows/8192x512",
    "few-channels/8x3x512x512-channels-last",
    "few-channels/1000000x2",
    "tiny/4x16x8x8",
    "tiny/32x10",
    "module/BatchNorm1d-60x100",
}


def suite(device: str, dtypes: tuple[str, ...], quick: bool = False) -> list[Case]:
    """The cases for a device.

    Parameters
    ----------
    device
        "cpu" or "cuda"
    dtypes
        keys of :data:`DTYPES`
    quick
        a selection
    """
    if device == "cuda":
        cases = _resnet50((32, 256)) + _ROWS + _FEW_CHANNELS
    else:
        planes = [Case("planes", (64, 256, 14, 14))]
        module = [Case("module", (60, 100), module=True)]
        cases = _resnet50((8, 32)) + planes + _ROWS + _FEW_CHANNELS + _TINY + _IRREGULAR + module
    if quick:
        cases = [case for case in cases if case.path in _QUICK]
    return [case._replace(dtype=dtype) for dtype in dtypes for case in cases]
