"""What the Triton kernels are given: tuples with names, the same on the host and in a kernel.

Triton specializes a kernel for each field of a tuple as for an argument by itself: for integers
that are 1 or multiples of 16, for aligned pointers, and for None. A :class:`Tile` is one constant.

On the host the pointers are tensors; None where there is nothing to read, or to write.
"""

from __future__ import annotations

from typing import NamedTuple

import triton.language as tl
from torch import Tensor


class Moments(NamedTuple):
    """Statistics of every channel, in float64 unless they were given."""

    mean: Tensor | None
    var: Tensor | None


class Affine(NamedTuple):
    """The parameters of the affine map, or their gradients."""

    weight: Tensor | None
    bias: Tensor | None


class State(NamedTuple):
    """Running statistics that a kernel moves."""

    mean: Tensor | None
    mean_stride: int
    var: Tensor | None
    var_stride: int
    counter: Tensor | None
    """Batches seen so far."""


class Shares(NamedTuple):
    """Two sums per channel, of which each part of a block has a share."""

    sums: Tensor | None
    """float64 ``(2, parts, C)``; None if nobody shares."""
    parts: int
    """Programs per block."""


class Tile(NamedTuple):
    """What a kernel is compiled for: values that are loaded at once, and the tiles of a part."""

    LANES: tl.constexpr
    """Values in a row of a tile."""
    ROWS: tl.constexpr
    """Rows of a tile: segments."""
    CHANNELS: tl.constexpr
    """Channels of a block, rounded up to a power of two."""
    UNIT: tl.constexpr
    """Values that a thread loads at once. Every row of every block begins at a multiple of it."""
    LOADS: tl.constexpr
    """Loads of `UNIT` values by which every thread takes its share of a tile."""
    PIECED: tl.constexpr
    """A block's row has several segments: its pieces."""
    EXACT: tl.constexpr
    """No lane is beyond its row."""
    WHOLE: tl.constexpr
    """Every part consists of whole tiles."""
    FOLDED: tl.constexpr
    """A row is several rows of the activation; the last one may be shorter."""
    TILES: tl.constexpr
    """Tiles of its part that a program holds in registers, where programs meet; else 0."""
    FULL: tl.constexpr
    """How many of them, the first ones, are whole in every part."""
    GROUP: tl.constexpr
    """How many of them are added up in float32 before float64 takes over."""
    INDEX: tl.constexpr
    """The type of offsets."""
    COMPUTE: tl.constexpr
    """The type that activations are computed in."""
