"""How the CUDA kernels cut an activation: every value once, and no more programs than it takes."""

import itertools

import numpy as np
import pytest

pytest.importorskip("triton")

from companion.kernels.cuda import plans
from companion.kernels.cuda.plans import plan

H100 = 132

SHAPES = [
    (32, 64, 56 * 56),
    (256, 256, 56 * 56),
    (32, 2048, 49),
    (32, 512, 784),
    (128, 3, 224 * 224),
    (4, 3, 513),
    (1, 1, 2),
    (2, 5, 1),
    (8192, 512, 1),
    (100352, 64, 1),
    (2**21, 3, 1),
    (1001, 3, 1),
    (1001, 17, 2),
    (1000, 100, 1),
    (70000, 33, 7),
    (3, 4000, 31),
    (6, 127, 31),
    (7, 1, 9),
]


def covered(cut, C, S):
    """How many programs touch each value, computed as the kernels do: cut by cut, with masks."""
    touched = np.zeros(cut.sizes.total, int)
    for block, index in itertools.product(range(cut.blocks), range(cut.parts)):
        begin = index * cut.sizes.part
        end = min(begin + cut.sizes.part, cut.sizes.segments)
        assert begin < end, "an empty part"
        segment = np.arange(begin, end)
        row, piece = segment // cut.sizes.pieces, segment % cut.sizes.pieces
        start = (row * C + block * cut.sizes.channels) * cut.sizes.row_values
        channels = min(cut.sizes.channels, C - block * cut.sizes.channels)
        width = np.minimum(channels * cut.sizes.row_values, cut.sizes.total - start)
        lane = piece[:, None] * cut.lanes + np.arange(cut.lanes)
        inside = lane < width[:, None]
        assert inside.all() or not cut.exact or cut.sizes.row_values > cut.sizes.run
        at = (start[:, None] + lane)[inside]
        np.add.at(touched, at, 1)
        channel = at // S % C
        assert channel.min() >= block * cut.sizes.channels
        assert channel.max() < (block + 1) * cut.sizes.channels
        assert not np.any(start % cut.unit)
        assert not np.any(width % cut.unit)
    return touched


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "shape", [(4, 3, 513), (1, 1, 2), (2, 5, 1), (1001, 3, 1), (101, 17, 2), (300, 100, 1),
              (70, 33, 7), (3, 400, 31), (7, 1, 9), (5, 2, 3136)],
)  # fmt: skip
def test_every_value_belongs_to_one_program(shape, fuse):
    cut = plan(*shape, 4, 2, 1, fuse)
    samples, C, S = shape
    if C == 1:
        samples, S = 1, samples * S
    assert np.array_equal(covered(cut, C, S), np.ones(cut.sizes.total, int))


@pytest.mark.parametrize("tensors", [1, 2])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_those_that_triton_takes(shape, itemsize, tensors):
    cut = plan(*shape, itemsize, H100, tensors)
    for size in (cut.lanes, cut.rows, cut.channel_lanes, cut.unit, cut.warps):
        assert size > 0
        assert size & (size - 1) == 0
    assert cut.sizes.m == shape[0] * shape[2]
    assert cut.sizes.channels <= cut.channel_lanes
    assert cut.sizes.part * cut.parts >= cut.sizes.segments > cut.sizes.part * (cut.parts - 1)
    assert 32 * cut.warps * cut.registers <= 65536
    loaded = cut.rows * cut.lanes * itemsize
    if cut.meeting:
        assert (cut.tiles - 1) * cut.rows < cut.sizes.part <= cut.tiles * cut.rows
        # Registers of four bytes: what is held leaves a third for everything else.
        held_bytes = tensors * cut.tiles * max(16, loaded // (32 * cut.warps))
        assert held_bytes <= 4 * cut.registers * 2 / 3
    else:
        assert cut.sizes.part % cut.rows == 0
        assert loaded <= max(4 * plans._TILE_BYTES, 1024 * itemsize)


def test_few_channels_occupy_every_multiprocessor():
    for shape in [(128, 3, 224 * 224), (32, 64, 56 * 56), (2**21, 3, 1), (100352, 64, 1)]:
        for tensors in (1, 2):
            cut = plan(*shape, 2, H100, tensors)
            assert cut.blocks * cut.parts >= 0.85 * 2 * H100


def test_a_full_wave_or_several():
    """Just more programs than run at a time would leave most of the device idle at the end."""
    for C in range(1, 3000, 7):
        cut = plan(64, C, 64 * 64, 2, H100, 1, False)
        programs, wave = cut.blocks * cut.parts, 4 * H100
        assert programs <= wave or programs > 2.9 * wave, (C, programs)


def test_blocks_of_few_parts_meet():
    assert plan(32, 2048, 49, 2, H100, 1).meeting
    assert plan(32, 2048, 49, 2, H100, 1).parts == 1
    assert plan(32, 64, 56 * 56, 2, H100, 1).meeting
    assert plan(32, 64, 56 * 56, 2, H100, 1).parts > 1
    assert plan(256, 256, 56 * 56, 2, H100, 2).meeting
    assert plan(256, 1000, 1, 4, H100, 1).meeting
    # With channels last, few parts.
    assert plan(32 * 28 * 28, 512, 1, 2, H100, 1).meeting
    assert not plan(32 * 28 * 28, 512, 1, 2, H100, 2).meeting
    assert not plan(32, 64, 56 * 56, 2, H100, 1, False).meeting
    # A channel that would take most of the device.
    assert not plan(128, 3, 224 * 224, 4, H100, 1).meeting
    # With channels last a block has many channels, and all their shares would be added everywhere.
    assert not plan(32 * 56 * 56, 64, 1, 2, H100, 1).meeting


@pytest.mark.parametrize("tensors", [1, 2])
@pytest.mark.parametrize("multiprocessors", [1, 20, H100])
def test_all_parts_of_a_block_run_at_once(multiprocessors, tensors):
    """They wait for each other: on a device that runs fewer they would wait forever."""
    threads, registers = 1024, 65536
    for shape, itemsize in itertools.product(SHAPES, (2, 4, 8)):
        cut = plan(*shape, itemsize, multiprocessors, tensors)
        if cut.meeting and cut.parts > 1:
            size = 32 * cut.warps
            run = multiprocessors * min(threads // size, registers // (size * cut.registers))
            assert 2 * cut.parts <= run, (shape, cut)


def test_short_rows_are_folded_instead():
    for shape in [(8 * 512 * 512, 3, 1), (10**6, 2, 1)]:
        for itemsize, tensors in itertools.product((2, 4), (1, 2)):
            cut = plan(*shape, itemsize, H100, tensors)
            assert not cut.meeting
            assert cut.sizes.row_values > 1


def test_loads_are_wide_where_sizes_allow():
    assert plan(32, 64, 56 * 56, 2, H100, 1).unit == 8
    assert plan(32, 64, 14 * 14, 4, H100, 1).unit == 4
    assert plan(32, 64, 49, 4, H100, 1).unit == 1
    folded = plan(64 * 128 * 128, 3, 1, 2, H100, 1)
    assert folded.sizes.row_values > 1
    assert folded.unit >= 8


def test_no_lane_of_a_network_s_planes_is_idle():
    for size in (112, 56, 28, 14):
        for itemsize, tensors in itertools.product((2, 4), (1, 2)):
            assert plan(32, 64, size * size, itemsize, H100, tensors).exact
    assert not plan(32, 64, 7 * 7, 2, H100, 1).exact


def test_many_parts_of_few_values_are_merged_apart():
    assert plan(100352, 64, 1, 2, H100, 1).merge_apart
    assert not plan(32, 64, 56 * 56, 2, H100, 1).merge_apart
    assert not plan(32, 2048, 49, 2, H100, 1).merge_apart


def test_planning_needs_no_triton():
    assert "triton" not in vars(plans)
