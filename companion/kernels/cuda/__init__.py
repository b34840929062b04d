"""Batch normalization on CUDA devices, in Triton: the functions of ``interface.Kernels``.

This module decides nothing about the data: it allocates what the kernels write, and launches them.
Read in this order: :mod:`.plans`, how the work is cut; :mod:`.arguments`, what kernels are given;
:mod:`.tiles` and :mod:`.sweeps`, what the kernels share; :mod:`.forward` and :mod:`.backward`, the
kernels, with :mod:`.running`.

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

Importing this module imports Triton, and raises ImportError if there is none.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.cuda import device as launches_on

from .. import eager
from ..interface import Gradients, Running
from ..layouts import is_channels_last
from . import backward, forward
from . import running as running_statistics
from .arguments import Affine, Moments, Shares, State, Tile
from .plans import Plan, plan

__all__ = ["differentiate", "normalize"]

# Values of each kind that a program merges at a time, and channels of one that only merges.
_MERGED_VALUES, _MERGED_CHANNELS = 2048, 8
# Offsets of 32 bits take half the instructions. A tile's may exceed the values by its own size.
_MOST_SHORT_OFFSETS = 2**31 - 2**20
# Values that a thread adds up in float32, of one channel; then in float64.
_GROUPED_VALUES = 32
# Channels whose running statistics are moved at a time.
_MOVED_CHANNELS = 1024
# Of every kernel; said because Triton is about to change what it does by itself, and warns of it.
_COMPILER_OPTIONS = {"enable_fp_fusion": True}


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
    cut, C, m = view.plan, view.plan.sizes.C, view.plan.sizes.m
    y = torch.empty_like(view.x)
    statistics = _empty_float64(x, 2, C)
    moments = Moments(*statistics)
    at_once = running is not None and running.momentum is not None and not running.skip_nonfinite
    state = _state(running if at_once else None, m)
    output = {
        "x": view.x,
        "residual": view.dense(residual),
        "y": y,
        "moments": moments,
        "affine": _affine(weight, bias),
        "inv_m_bits": _bits(1.0 / m),
        "eps_bits": _bits(eps),
        "RELU": relu,
        "STEP": _merge_step(cut.channel_lanes, cut.parts),
        **view.common(),
    }
    with launches_on(x.device):
        if cut.meeting:
            forward.meeting_forward[(cut.blocks * cut.parts,)](**output, **state, **view.meeting())
        else:
            given, shares = Moments(None, None), Shares(None, 0)
            if fixed is not None:
                given = Moments(*(value.contiguous() for value in fixed))
            else:
                shares = view.shares()
                forward.part_moments[(cut.blocks, cut.parts)](view.x, shares.sums, **view.common())
                if cut.merge_apart:
                    grid, merging = _merging(cut)
                    forward.merge_moments[grid](
                        view.x,
                        shares,
                        moments,
                        **state,
                        inv_m_bits=output["inv_m_bits"],
                        C=C,
                        run=cut.sizes.run,
                        **merging,
                    )
                    shares, state = Shares(None, 0), _state(None, m)
            forward.normalize[(cut.blocks, cut.parts)](
                **output, **state, shares=shares, given=given
            )
        if running is not None and not at_once:
            running_statistics.move_running[(1,)](
                moments,
                **_state(running, m),
                C=C,
                CUMULATIVE=running.momentum is None,
                SKIP_NONFINITE=running.skip_nonfinite,
                CHANNELS=min(_MOVED_CHANNELS, triton.next_power_of_2(C)),
                **_COMPILER_OPTIONS,
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
    cut, C = view.plan, view.plan.sizes.C
    grad_y = _dense(grad_y, view.channels_last)
    grad_x = torch.empty_like(view.x)
    # Without ReLU the residual's gradient is grad_y itself, and nothing has to be written.
    masked = torch.empty_like(view.x) if relu and residual else None
    gradients = Affine(_empty_parameter(weight), _empty_parameter(bias))
    source = {
        "grad_y": grad_y,
        "x": view.x,
        "y": view.dense(y) if relu and residual else None,
        "moments": Moments(*statistics.contiguous()),
        "affine": _affine(weight, bias),
        "eps_bits": _bits(eps),
        "RELU": relu,
        **view.common(),
    }
    output = {"grad_x": grad_x, "grad_residual": masked, "inv_m_bits": _bits(1.0 / cut.sizes.m)}
    with launches_on(x.device):
        if cut.meeting:
            backward.meeting_backward[(cut.blocks * cut.parts,)](
                **source,
                **output,
                gradients=gradients,
                STEP=_merge_step(cut.channel_lanes, cut.parts),
                **view.meeting(),
            )
        else:
            shares, wanted = view.shares(), gradients
            backward.part_sums[(cut.blocks, cut.parts)](
                **source,
                grad_x=None if training else grad_x,
                grad_residual=None if training else masked,
                shares=shares.sums,
            )
            if cut.merge_apart or not training:
                merged = _empty_float64(x, 2, 1, C) if training else None
                grid, merging = _merging(cut)
                backward.merge_sums[grid](shares, merged, gradients, C, **merging)
                shares, wanted = Shares(merged, 1), Affine(None, None)
            if training:
                backward.project[(cut.blocks, cut.parts)](
                    **source,
                    **output,
                    gradients=wanted,
                    shares=shares,
                    STEP=_merge_step(cut.channel_lanes, shares.parts),
                )
    return Gradients(
        x=grad_x,
        weight=gradients.weight,
        bias=gradients.bias,
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
        channels_last = is_channels_last(x)
        N, C = x.shape[:2]
        S = eager.values_per_channel(x) // N
        samples, S = (N * S, 1) if channels_last else (N, S)
        cut = plan(samples, C, S, x.element_size(), _multiprocessors(x.device), tensors, fuse)
        return cls(_dense(x, channels_last), channels_last, cut)

    def dense(self, other: Tensor | None) -> Tensor | None:
        """Bring another activation to the layout of this one."""
        return None if other is None else _dense(other, self.channels_last)

    def common(self) -> dict[str, Any]:
        """What all kernels are told that read activations."""
        return {
            "sizes": self.plan.sizes,
            "TILE": _tile(self.plan, self.x.dtype),
            "num_warps": self.plan.warps,
            "maxnreg": self.plan.registers,
            **_COMPILER_OPTIONS,
        }

    def shares(self) -> Shares:
        """Where the programs of a block leave their shares."""
        parts = self.plan.parts
        return Shares(_empty_float64(self.x, 2, parts, self.plan.sizes.C), parts)

    def meeting(self) -> dict[str, Any]:
        """Where the programs of a block, if they are several, leave shares and are counted."""
        cut = self.plan
        if cut.parts == 1:
            return {"shares": Shares(None, 1), "arrived": None}
        arrived = torch.zeros(cut.blocks, dtype=torch.int32, device=self.x.device)
        return {"shares": self.shares(), "arrived": arrived}


@lru_cache(maxsize=1024)
def _tile(cut: Plan, dtype: torch.dtype) -> Tile:
    """What a kernel is compiled for."""
    sizes, loads = cut.sizes, cut.rows * cut.lanes // (32 * cut.warps * cut.unit)
    is_single = cut.channel_lanes == 1
    last = sizes.segments - (cut.parts - 1) * sizes.part
    tile = Tile(
        LANES=cut.lanes,
        ROWS=cut.rows,
        CHANNELS=cut.channel_lanes,
        UNIT=cut.unit,
        LOADS=max(1, loads if is_single else min(cut.rows, loads)),
        PIECED=sizes.pieces > 1,
        EXACT=cut.exact,
        # Programs that hold their part know by themselves which of its tiles are.
        WHOLE=not cut.meeting and sizes.segments % cut.rows == 0,
        FOLDED=sizes.row_values > sizes.run,
        TILES=cut.tiles,
        FULL=min(last, sizes.part) // cut.rows if cut.meeting else 0,
        # What a thread loads at once is not much to be added in float32: some of that together.
        GROUP=max(1, _GROUPED_VALUES // (cut.unit if is_single else 1)),
        INDEX=tl.uint32 if sizes.total < _MOST_SHORT_OFFSETS else tl.int64,
        COMPUTE=tl.float64 if dtype == torch.float64 else tl.float32,
    )
    return Tile(*map(tl.constexpr, tile))


def _dense(tensor: Tensor, channels_last: bool) -> Tensor:
    if channels_last:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor.contiguous()


def _affine(weight: Tensor | None, bias: Tensor | None) -> Affine:
    return Affine(*(None if value is None else value.contiguous() for value in (weight, bias)))


def _empty_parameter(like: Tensor | None) -> Tensor | None:
    if like is None:
        return None
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _empty_float64(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=x.device)


def _merge_step(channels: int, parts: int) -> int:
    """How many parts a program merges at a time."""
    return min(triton.next_power_of_2(parts), max(1, _MERGED_VALUES // channels))


def _merging(cut: Plan) -> tuple[tuple[int], dict[str, int]]:
    """Grid and settings of a kernel that merges parts and does nothing else."""
    channels = min(_MERGED_CHANNELS, triton.next_power_of_2(cut.sizes.C))
    step = _merge_step(channels, cut.parts)
    settings = {"CHANNELS": channels, "STEP": step, **_COMPILER_OPTIONS}
    return (triton.cdiv(cut.sizes.C, channels),), settings


def _bits(number: float) -> int:
    """The bits of a float64 as an integer: Triton rounds floating-point arguments to float32."""
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits


def _state(running: Running | None, m: int) -> dict[str, Any]:
    """Arguments that describe the state to move; none at all if there is none."""
    if running is None:
        state = State(None, 0, None, 0, None)
        return {"running": state, "momentum_bits": 0, "correction_bits": 0}
    momentum = 0.0 if running.momentum is None else running.momentum
    mean_stride, var_stride = (
        0 if value is None else value.stride(0) for value in (running.mean, running.var)
    )
    return {
        "running": State(
            running.mean, mean_stride, running.var, var_stride, running.num_batches_tracked
        ),
        "momentum_bits": _bits(momentum),
        "correction_bits": _bits(m / (m - 1)),
    }


@lru_cache(maxsize=64)
def _multiprocessors(device: torch.device) -> int:
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
