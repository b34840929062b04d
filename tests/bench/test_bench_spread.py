import math

import pytest

from companion.bench.spread import Spread, geometric_mean, paired_ratios, spread, verdict


def test_quartiles_are_interpolated():
    assert spread([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)
    assert spread([5.0]) == (5.0, 5.0, 5.0)
    assert spread([1.0, 2.0]) == (1.25, 1.5, 1.75)


def test_an_outlier_moves_no_quartile():
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == spread([1.0, 2.0, 3.0, 4.0, 1e9])


def test_what_slows_a_whole_round_cancels():
    ours, others = [1.0, 10.0, 2.0], [3.0, 30.0, 6.0]
    assert paired_ratios(others, ours) == [3.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1.0], [1.0, 2.0])


def test_twice_and_half_as_fast_make_one():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert geometric_mean([8.0, 1.0, 1.0]) == pytest.approx(2.0)
    assert geometric_mean(iter([])) is None


@pytest.mark.parametrize(
    ("speedup", "noise", "expected"),
    [
        # (lower quartile, median, upper quartile)
        ((0.70, 0.75, 0.80), (0.98, 1.00, 1.02), "slower"),
        ((1.20, 1.25, 1.30), (0.98, 1.00, 1.02), "faster"),
        ((0.95, 1.00, 1.05), (0.98, 1.00, 1.02), "even"),
        # The median is 10 % off, the quartile is not.
        ((0.85, 0.90, 0.99), (0.98, 1.00, 1.02), "even"),
        # As far off, where PyTorch is as far from itself: in either direction.
        ((0.70, 0.75, 0.80), (0.90, 1.00, 1.30), "even"),
        ((0.70, 0.75, 0.80), (0.75, 1.00, 1.01), "even"),
        ((1.20, 1.25, 1.30), (0.75, 1.00, 1.01), "even"),
        ((0.70, 0.75, 0.80), (0.81, 1.00, 1.01), "slower"),
        # PyTorch never differs from itself by less than nothing.
        ((0.98, 0.99, 0.999), (1.0, 1.0, 1.0), "slower"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), "even"),
        ((0.995, 0.997, 0.999), (1.01, 1.02, 1.03), "even"),
    ],
)
def test_a_verdict_needs_the_middle_half_to_be_beyond_the_noise(speedup, noise, expected):
    assert verdict(Spread(*speedup), Spread(*noise)) == expected


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99, 1.01, 1.5])
def test_verdicts_are_symmetric(factor):
    def around(centre):
        return Spread(centre / 1.02, centre, centre * 1.02)

    opposite = {"faster": "slower", "slower": "faster", "even": "even"}
    noise = around(1.0)
    assert verdict(around(1 / factor), noise) == opposite[verdict(around(factor), noise)]
    assert (verdict(around(factor), noise) == "even") == (abs(math.log(factor)) < math.log(1.02**2))
