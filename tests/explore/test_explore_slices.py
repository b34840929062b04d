"""The slices of the loss that a figure shows."""

import numpy as np
import pytest

from companion import explore
from companion.explore.slices import RATES, STEPS, measured


def test_a_slice_begins_at_the_loss_before_the_step_and_falls_at_first():
    for looks in measured().values():
        assert len(looks) == len(STEPS)
        for look in looks:
            losses, changes = np.array(look["losses"]), np.array(look["changes"])
            assert len(losses) == len(changes) == 1 + len(RATES)
            assert changes[0] == pytest.approx(0, abs=1e-5)
            assert losses[:8].argmin() > 0


def test_smaller_weights_move_the_first_slice_along_the_axis():
    """By two decades, if only the hidden weights were moved; the others are, too."""
    usual, small = (measured()[name][0] for name in ("batch", "small"))
    lowest = [RATES[int(np.argmin(each["losses"])) - 1] for each in (usual, small)]
    assert 30 < lowest[0] / lowest[1] < 300


def test_a_step_that_was_not_looked_at_is_refused():
    with pytest.raises(ValueError, match=r"step: expected one of \(0, 10, 30, 100\), got 7"):
        explore.slices(step=7)
