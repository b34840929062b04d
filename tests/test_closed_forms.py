import math

import numpy as np
import pytest

from companion import closed_forms


@pytest.mark.parametrize("m", [2, 3, 10, 50])
def test_std_shrinkage_is_the_mean_of_the_sampled_standard_deviation(m):
    samples = np.random.default_rng(0).normal(size=(200_000, m)).std(axis=1)
    error = 4 * samples.std() / math.sqrt(len(samples))
    assert abs(closed_forms.std_shrinkage(m) - samples.mean()) < error


def test_std_shrinkage_at_two_and_at_many():
    assert closed_forms.std_shrinkage(2) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-14)
    assert closed_forms.std_shrinkage(10**6) == pytest.approx(1 - 3 / 4e6, abs=1e-9)


def test_batch_identity_mse_is_in_the_square_of_the_unit():
    assert closed_forms.batch_identity_mse(4, var=9) == 9 * closed_forms.batch_identity_mse(4)
    assert closed_forms.batch_identity_mse(1000) == pytest.approx(1.5e-3, rel=1e-2)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="m: expected at least 2 values, got 1"):
        closed_forms.std_shrinkage(1)
