"""Moments of everything a loader yields, against the oracle on all values at once."""

import numpy as np
import pytest
import torch

from companion import reference
from companion.statistics import population_moments


def sorted_batches(sizes, shape=(3,), offset=0.0):
    values = np.random.default_rng(0).normal(offset, 2.0, size=(sum(sizes), *shape))
    return torch.from_numpy(np.sort(values, axis=0)).split(sizes)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 2)])
@pytest.mark.parametrize("sizes", [[20], [1, 18, 1], [7, 0, 2, 11], [1] * 20])
def test_uneven_batches_are_one_population(sizes, shape):
    batches = sorted_batches(sizes, shape, offset=1e4)
    population = population_moments(iter(batches))
    mean, var = reference.moments(torch.cat(batches).numpy())
    assert population.count == 20 * int(np.prod(shape[1:]))
    np.testing.assert_allclose(population.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(population.var, var, rtol=1e-9)


def test_the_law_of_total_variance_where_averages_fail():
    # The complaint: averages of batch variances miss what lies between the batches.
    batches = sorted_batches([5, 5, 5, 5])
    within = torch.stack([batch.var(dim=0, correction=0) for batch in batches]).mean(dim=0)
    between = torch.stack([batch.mean(dim=0) for batch in batches]).var(dim=0, correction=0)
    var = population_moments(batches).var
    assert (within / var).max() < 0.3
    assert torch.allclose(within + between, var, rtol=1e-12, atol=0)


def test_tuples_and_lists_begin_with_the_batch():
    batches = sorted_batches([4, 3])
    alone = population_moments(batches)
    for kind in (tuple, list):
        items = [kind((batch, torch.zeros(len(batch)))) for batch in batches]
        assert torch.equal(population_moments(items).m2, alone.m2)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="loader: expected at least one batch, got none"):
        population_moments([])
    with pytest.raises(TypeError, match=r"loader: expected tensors, or tuples.*, got dict$"):
        population_moments([{"x": torch.zeros(2, 3)}])
    with pytest.raises(TypeError, match=r"loader: expected tensors.*, got list of str"):
        population_moments([["x"]])
    with pytest.raises(TypeError, match=r"loader: expected tensors.*, got tuple$"):
        population_moments([()])
