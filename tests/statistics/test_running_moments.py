"""Moments in parts against the oracle and against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from companion import reference
from companion.exercises.properties import MERGED_SQUARES, MERGED_SUMS
from companion.statistics import RunningMoments, merge

SHAPES = [(7, 3), (1, 2), (4, 3, 5), (2, 3, 4, 4), (3, 1, 2, 2, 2)]


def sample(shape, offset=0.0, scale=1.0, dtype=torch.float64):
    values = np.random.default_rng(0).normal(offset, scale, size=shape)
    return torch.from_numpy(values).to(dtype)


def assert_moments(moments, values, rtol=1e-12):
    mean, var = reference.moments(values.double().numpy())
    np.testing.assert_allclose(moments.mean, mean, rtol=rtol, atol=1e-14)
    np.testing.assert_allclose(moments.var, var, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_batch_in_every_layout(shape, dtype):
    values = sample(shape, scale=10).to(dtype)
    moments = RunningMoments.of(values)
    assert moments.count == values.numel() // shape[1]
    assert moments.mean.dtype == moments.m2.dtype == torch.float64
    assert_moments(moments, values)


@pytest.mark.parametrize("offset", [1e8, -1e15])
def test_huge_offsets_against_exact_arithmetic(offset):
    values = sample((501, 1), offset)
    exact = [Fraction(value) for value in values[:, 0].tolist()]
    mean = sum(exact) / len(exact)
    var = sum((value - mean) ** 2 for value in exact) / len(exact)
    parts = [RunningMoments.of(part) for part in values.split([1, 100, 400])]
    # The parts' means are rounded to float64's spacing at the offset.
    for moments, tolerance in (
        (RunningMoments.of(values), 1e-12),
        (merge(*parts), np.spacing(abs(offset))),
    ):
        assert abs(Fraction(moments.mean.item()) - mean) <= abs(mean) * Fraction(1, 10**15)
        assert abs(Fraction(moments.var.item()) - var) <= var * Fraction(float(tolerance))


def test_the_mean_is_right_to_the_last_digit():
    values = sample((5001, 4), 1e12)
    means = RunningMoments.of(values).mean
    for channel, got in enumerate(means.tolist()):
        exact = [Fraction(value) for value in values[:, channel].tolist()]
        error = abs(Fraction(got) - sum(exact) / len(exact))
        assert error <= Fraction(float(np.spacing(1e12))) * Fraction(51, 100)


@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, -1e15 / 3])
@pytest.mark.parametrize("sizes", [[1, 5], [3, 7, 11], [1] * 10, [6, 49, 1, 37]])
def test_merging_parts_of_one_mean_leaves_it_exactly(value, sizes):
    zero = torch.zeros(1, dtype=torch.float64)
    together = merge(*(RunningMoments(size, zero + value, zero) for size in sizes))
    assert (together.mean.item(), together.m2.item()) == (value, 0.0)


def test_float32_near_its_largest_value_does_not_overflow():
    values = sample((100, 2), scale=1e37, dtype=torch.float32)
    assert_moments(RunningMoments.of(values), values)


def test_a_constant_channel_has_variance_zero_exactly():
    assert RunningMoments.of(torch.full((1000, 1), 0.1)).var.item() == 0.0


@pytest.mark.parametrize("shape", [(20, 3), (20, 3, 2, 2)])
def test_row_by_row_is_the_whole_batch(shape):
    values = sample(shape, offset=1e6)
    moments = RunningMoments.empty(shape[1])
    for row in values:
        moments = moments.update(row[None])
    assert_moments(moments, values, rtol=1e-9)
    assert moments.count == values.numel() // shape[1]


def test_one_step_is_welfords_by_hand():
    # (2, 4), mean 3, M₂ = 2; the value 9 moves the mean by 6/3 and M₂ by 6·4.
    moments = RunningMoments.of(torch.tensor([[2.0], [4.0]])).update(torch.tensor([[9.0]]))
    assert (moments.count, moments.mean.item(), moments.m2.item()) == (3, 5.0, 26.0)


@pytest.mark.parametrize("sizes", [[50], [1, 49], [17, 33], [10, 0, 25, 0, 15], [0, 50]])
def test_merge_of_uneven_and_empty_parts(sizes):
    values = sample((50, 2), offset=1e5).sort(dim=0).values
    parts = [RunningMoments.of(part) for part in values.split(sizes)]
    assert_moments(merge(*parts), values, rtol=1e-10)
    assert_moments(merge(*reversed(parts)), values, rtol=1e-10)


@pytest.mark.parametrize("sizes", [[5, 8], [1, 0, 3, 9]])
def test_merging_adds_up_counts_sums_and_sums_of_squares(sizes):
    parts = [RunningMoments.of(part) for part in sample((13, 2), offset=3).split(sizes)]
    means, m2s = (torch.stack([getattr(part, name) for part in parts]) for name in ("mean", "m2"))
    whole = merge(*parts)
    merged = whole.count, whole.mean.numpy(), whole.m2.numpy()
    assert whole.count == 13
    for each in (MERGED_SUMS, MERGED_SQUARES):
        assert each.error(merged, np.array(sizes), means.numpy(), m2s.numpy()) <= 1e-14


def test_only_empty_parts_stay_empty():
    none = RunningMoments.of(torch.zeros(0, 3))
    nothing = merge(RunningMoments.empty(3), none)
    assert nothing.count == none.count == 0
    assert none.mean.tolist() == none.m2.tolist() == [0.0] * 3
    assert nothing.mean.tolist() == nothing.m2.tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="count: expected at least 1 values, got 0"):
        _ = nothing.var


def test_unbiased_variance():
    values = sample((9, 2))
    torch.testing.assert_close(RunningMoments.of(values).unbiased_var, values.var(dim=0))
    with pytest.raises(ValueError, match="count: expected at least 2 values, got 1"):
        _ = RunningMoments.of(values[:1]).unbiased_var


def test_nan_and_infinity_stay_in_their_channel():
    values = sample((5, 3))
    values[2, 0], values[2, 1] = torch.nan, torch.inf
    moments = merge(RunningMoments.of(values[:2]), RunningMoments.of(values[2:]))
    assert torch.isnan(moments.var[:2]).all()
    torch.testing.assert_close(moments.var[2], values[:, 2].var(correction=0))


def test_no_gradient_and_no_change_to_the_values():
    values = sample((5, 3)).requires_grad_()
    before = values.detach().clone()
    assert not RunningMoments.of(values).m2.requires_grad
    assert torch.equal(values.detach(), before)


def test_errors_name_the_argument():
    three, two = RunningMoments.empty(3), RunningMoments.empty(2)
    with pytest.raises(ValueError, match=r"values: expected \(m, C\).*got shape \(4,\)"):
        RunningMoments.of(torch.zeros(4))
    with pytest.raises(TypeError, match=r"values: expected real numbers, got torch\.complex64"):
        RunningMoments.of(torch.zeros(4, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"parts: expected one number of channels, got \[2, 3\]"):
        merge(three, two)
    with pytest.raises(ValueError, match="parts: expected at least one, got none"):
        merge()
    with pytest.raises(ValueError, match="count: expected a number not below 0, got -1"):
        RunningMoments(-1, three.mean, three.m2)
    with pytest.raises(ValueError, match=r"mean: expected float64 \(C,\), got torch.float32"):
        RunningMoments(0, three.mean.float(), three.m2)
    with pytest.raises(ValueError, match=r"m2: expected shape \(3,\) on cpu.*got \(2,\) on cpu"):
        RunningMoments(0, three.mean, two.m2)
