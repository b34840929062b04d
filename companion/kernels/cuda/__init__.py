"""Batch normalization on CUDA devices, in Triton: the functions of ``interface.Kernels``.

This module decides nothing about the data: it allocates what the kernels write, and launches them.
Read in this order: :mod:`.plans`, how the work is cut; :mod:`.tiles`, what the kernels share;
:mod:`.forward` and :mod:`.backward`, the kernels, with :mod:`.held` and :mod:`.running`.

Device memory traffic, in units of one activation tensor (T), and launches:

    ====================  =================  =================
                          meeting            split
    ====================  =================  =================
    normalize, training   2T, 1 launch       3T, 2 launches
    differentiate         3T, 1 launch       5T, 2 launches
    normalize, fixed      (as split)         2T, 1 launch
    differentiate, fixed  (as split)         3T, 2 launches
    ====================  =================  =================

A residual adds 1T forward. ReLU adds nothing: the backward pass recomputes the activation's sign.
Both together add 2T backward, or 3T if the statistics are the batch's and the work is split: the
output is read, and the residual's gradient written. Split kernels do not pay for what the L2 cache
keeps from the first sweep to the second. Where several programs meet, zeros to count them with are
one more launch; so is merging many parts of few values, and moving running statistics that are to
be cumulative or to skip what is not finite.

Nothing here waits for the device or reads a value of it, so that a CUDA graph can record it all.

Activations must not be empty.

Importing this module imports Triton, and raises ImportError if there is none. Triton runs the
kernels on CPU tensors if the environment has ``TRITON_INTERPRET=1`` when it is imported.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import eager
from ..interface import Gradients, Running
from . import backward, forward
from . import running as running_statistics
from .plans import Plan, plan

__all__ = ["differentiate", "normalize"]

# Values of each kind that a program merges at a time, and channels of one that only merges.
_MERGED_VALUES, _MERGED_CHANNELS = 2048, 8
# Offsets of 32 bits take half the instructions. A tile's may exceed the values by its own size.
_MOST_SHORT_OFFSETS = 2**31 - 2**20
# Values that a thread adds up in float32, of one channel; then in float64.
_FEW_VALUES = 32
# Channels whose running statistics are moved at a time.
_MOVED_CHANNELS = 1024


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    fixed: tuple[Tensor, Tensor] | None,
    running: Running | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """See :class:`companion.kernels.interface.Kernels`."""
    view = _View.of(x, tensors=1, fuse=fixed is None)
    cut = view.plan
    y = torch.empty_like(view.x)
    statistics = _empty_float64(x, 2, cut.C)
    mean, var = statistics
    at_once = running is not None and running.momentum is not None and not running.skip_nonfinite
    activations = (view.x, view.dense(residual), y)
    parameters = (_contiguous(weight), _contiguous(bias))
    state = _state(running if at_once else None, cut.m)
    numbers = (_bits(1.0 / cut.m), _bits(eps))
    tile, step = view.tile(), _merge_step(cut.channel_lanes, cut.parts)
    with _on_device_of(x):
        if cut.meeting:
            shares, arrived = view.meeting()
            for phase in view.phases():
                forward.meeting_forward[(cut.blocks * cut.parts,)](
                    *(*activations, shares, arrived, cut.parts, mean, var, *parameters),
                    *(*state, *numbers, *cut.sizes),
                    PHASE=phase,
                    RELU=relu,
                    STEP=step,
                    **view.held(),
                    **tile,
                )
        else:
            given: tuple[Tensor | None, Tensor | None] = (None, None)
            shares, parts = None, 0
            if fixed is not None:
                given = (fixed[0].contiguous(), fixed[1].contiguous())
            else:
                shares, parts = _empty_float64(x, 2, cut.parts, cut.C), cut.parts
                forward.part_moments[(cut.blocks, cut.parts)](view.x, shares, *cut.sizes, **tile)
                if cut.merge_apart:
                    grid, merging = _merging(cut)
                    forward.merge_moments[grid](
                        *(view.x, shares, parts, mean, var, *state, numbers[0], cut.C, cut.run),
                        **merging,
                    )
                    shares, state = None, _state(None, cut.m)
            forward.normalize[(cut.blocks, cut.parts)](
                *(*activations, shares, parts, *given, mean, var, *parameters),
                *(*state, *numbers, *cut.sizes),
                RELU=relu,
                STEP=step,
                **tile,
            )
        if running is not None and not at_once:
            running_statistics.move_running[(1,)](
                *(mean, var, *_state(running, cut.m), cut.C),
                CUMULATIVE=running.momentum is None,
                SKIP_NONFINITE=running.skip_nonfinite,
                CHANNELS=min(_MOVED_CHANNELS, triton.next_power_of_2(cut.C)),
            )
    return y, statistics


def differentiate(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    relu: bool,
    residual: bool,
    training: bool,
) -> Gradients:
    """See :class:`companion.kernels.interface.Kernels`."""
    # With fixed statistics no value depends on a sum: nobody has to meet.
    view = _View.of(x, tensors=2, fuse=training)
    cut = view.plan
    grad_y = _dense(grad_y, view.channels_last)
    grad_x = torch.empty_like(view.x)
    # Without ReLU the residual's gradient is grad_y itself, and nothing has to be written.
    masked = torch.empty_like(view.x) if relu and residual else None
    gradients = tuple(
        None if value is None else torch.empty_like(value, memory_format=torch.contiguous_format)
        for value in (weight, bias)
    )
    activations = (grad_y, view.x, view.dense(y) if relu and residual else None)
    per_channel = (*statistics.contiguous(), _contiguous(weight), _contiguous(bias))
    numbers = (_bits(1.0 / cut.m), _bits(eps))
    settings = {"RELU": relu, **view.tile()}
    with _on_device_of(x):
        if cut.meeting:
            shares, arrived = view.meeting()
            for phase in view.phases():
                backward.meeting_backward[(cut.blocks * cut.parts,)](
                    *(*activations, *per_channel, shares, arrived, cut.parts, grad_x, masked),
                    *(*gradients, *numbers, *cut.sizes),
                    PHASE=phase,
                    STEP=_merge_step(cut.channel_lanes, cut.parts),
                    **view.held(),
                    **settings,
                )
        else:
            shares, parts = _empty_float64(x, 2, cut.parts, cut.C), cut.parts
            outputs = (None, None) if training else (grad_x, masked)
            backward.part_sums[(cut.blocks, cut.parts)](
                *(*activations, *per_channel, *outputs, shares, numbers[1], *cut.sizes), **settings
            )
            wanted = gradients
            if cut.merge_apart or not training:
                merged = _empty_float64(x, 2, 1, cut.C) if training else None
                grid, merging = _merging(cut)
                backward.merge_sums[grid](shares, parts, merged, *gradients, cut.C, **merging)
                shares, parts, wanted = merged, 1, (None, None)
            if training:
                backward.project[(cut.blocks, cut.parts)](
                    *(*activations, shares, parts, *per_channel),
                    *(grad_x, masked, *wanted, *numbers, *cut.sizes),
                    STEP=_merge_step(cut.channel_lanes, parts),
                    **settings,
                )
    grad_weight, grad_bias = gradients
    return Gradients(
        x=grad_x,
        weight=grad_weight,
        bias=grad_bias,
        residual=(masked if relu else grad_y) if residual else None,
    )


class _View(NamedTuple):
    """A dense activation, and how to cut it."""

    x: Tensor
    channels_last: bool
    plan: Plan

    @classmethod
    def of(cls, x: Tensor, tensors: int, fuse: bool = True) -> _View:
        """View `x`, without a copy if it is dense, contiguous or with channels last."""
        channels_last = eager.is_channels_last(x)
        N, C = x.shape[:2]
        S = eager.values_per_channel(x) // N
        samples, S = (N * S, 1) if channels_last else (N, S)
        cut = plan(samples, C, S, x.element_size(), _multiprocessors(x.device), tensors, fuse)
        return cls(_dense(x, channels_last), channels_last, cut)

    def dense(self, other: Tensor | None) -> Tensor | None:
        """Bring another activation to the layout of this one."""
        return None if other is None else _dense(other, self.channels_last)

    def tile(self) -> dict[str, Any]:
        """What a kernel is compiled for."""
        cut = self.plan
        wraps = cut.rows * cut.lanes // (32 * cut.warps * cut.unit)
        return {
            "LANES": cut.lanes,
            "ROWS": cut.rows,
            "CHANNELS": cut.channel_lanes,
            "UNIT": cut.unit,
            "WRAPS": max(1, wraps if cut.channel_lanes == 1 else min(cut.rows, wraps)),
            "PIECED": cut.pieces > 1,
            "EXACT": cut.exact,
            "WHOLE": cut.segments % cut.rows == 0,
            "FOLDED": cut.values > cut.run,
            "INDEX": tl.uint32 if cut.total < _MOST_SHORT_OFFSETS else tl.int64,
            "COMPUTE": tl.float64 if self.x.dtype == torch.float64 else tl.float32,
            "num_warps": cut.warps,
            "maxnreg": cut.registers,
        }

    def held(self) -> dict[str, int]:
        """What a kernel that meets is compiled for besides."""
        cut = self.plan
        # What a thread loads at once is not much to be added in float32: some of that together.
        few = max(1, _FEW_VALUES // (cut.unit if cut.channel_lanes == 1 else 1))
        last = cut.segments - (cut.parts - 1) * cut.part
        return {"TILES": cut.tiles, "FULL": min(last, cut.part) // cut.rows, "FEW": few}

    def meeting(self) -> tuple[Tensor | None, Tensor | None]:
        """Where the programs of a block leave their shares, and count themselves."""
        if self.plan.parts == 1:
            return None, None
        shares = _empty_float64(self.x, 2, self.plan.parts, self.plan.C)
        return shares, torch.zeros(self.plan.blocks, dtype=torch.int32, device=self.x.device)

    def phases(self) -> tuple[int, ...]:
        """The launches of a kernel that meets: see :func:`.forward.meeting_forward`."""
        alone = self.plan.parts == 1 or self.x.device.type != "cpu"
        return (0,) if alone else (1, 2)


def _dense(tensor: Tensor, channels_last: bool) -> Tensor:
    if channels_last:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _empty_float64(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=x.device)


def _merge_step(channels: int, parts: int) -> int:
    """How many parts a program merges at a time."""
    return min(triton.next_power_of_2(parts), max(1, _MERGED_VALUES // channels))


def _merging(cut: Plan) -> tuple[tuple[int], dict[str, int]]:
    """Grid and settings of a kernel that merges parts and does nothing else."""
    channels = min(_MERGED_CHANNELS, triton.next_power_of_2(cut.C))
    settings = {"CHANNELS": channels, "STEP": _merge_step(channels, cut.parts)}
    return (triton.cdiv(cut.C, channels),), settings


def _bits(number: float) -> int:
    """The bits of a float64 as an integer: Triton rounds floating-point arguments to float32."""
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits


def _state(running: Running | None, m: int) -> tuple[Tensor | int | None, ...]:
    """Arguments that describe the state to move; none at all if there is none."""
    if running is None:
        return None, 0, None, 0, None, 0, 0
    momentum = 0.0 if running.momentum is None else running.momentum
    strides = [0 if value is None else value.stride(0) for value in (running.mean, running.var)]
    return (
        *(running.mean, strides[0], running.var, strides[1]),
        *(running.num_batches_tracked, _bits(momentum), _bits(m / (m - 1))),
    )


@lru_cache(maxsize=64)
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cpu":
        # Triton's interpreter.
        return 1
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
