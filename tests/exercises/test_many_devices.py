"""What a rank is asked for, against one process that has the rows of all."""

import numpy as np
import pytest

from companion import reference
from companion.exercises.many_devices_backward import SYNC_BACKWARD, of_rank
from companion.experiments.ranks import own_rows


@pytest.mark.parametrize("rows", [[4, 4], [5, 0, 2, 1], [8]])
def test_a_rank_has_its_rows_of_the_gradient_and_its_own_terms_for_the_parameters(rows):
    rng = np.random.default_rng(0)
    grad_y, x = rng.normal(2, 3, size=(2, 8, 3))
    gamma = np.array([2.0, -1.0, 0.5])
    batch = reference.forward(x, gamma, eps=0.1)
    for rank in range(len(rows)):
        grad_x, *own = SYNC_BACKWARD.oracle(*of_rank(grad_y, x, gamma, 0.1, rows, rank))
        mine = own_rows(rows, rank)
        np.testing.assert_allclose(grad_x, reference.backward(grad_y, batch).x[mine], atol=1e-12)
        # Of its own loss, which is that of the batch with ∂L/∂y = 0 in the rows of others.
        alone = np.zeros_like(grad_y)
        alone[mine] = grad_y[mine]
        _, *terms = reference.backward(alone, batch)
        np.testing.assert_allclose(own, terms, atol=1e-12)
