"""Recalibration against the oracle, and beside PyTorch's update_bn."""

import numpy as np
import pytest
import torch
from _networks import LAYERS, assert_holds, batches_of, inputs_at_inference, network
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import companion
from companion import reference
from companion.exercises.properties import POOLED
from companion.statistics import population_moments, update_precise


def normalized_by_batch(layer, x):
    batch = reference.forward(
        x.detach().numpy(), *(p.detach().numpy() for p in (layer.weight, layer.bias))
    )
    return torch.from_numpy(batch.y)


@pytest.mark.parametrize("sizes", [[40], [7, 1, 30, 2], [1, 39], [0, 5, 35]])
@LAYERS
def test_first_layers_hold_the_moments_of_all_samples(layer, sizes):
    model, batches = network(layer), batches_of(sizes, offset=100.0)
    update_precise(model, batches, progress=False)
    assert_holds(model[1], model[0](torch.cat(batches)), rtol=1e-10)
    assert model[1].num_batches_tracked == sum(size > 0 for size in sizes)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (companion.BatchNorm1d, (5, 4)),
        (nn.BatchNorm2d, (5, 2, 3)),
        (companion.BatchNorm3d, (5, 2, 1, 2)),
    ],
)
def test_spatial_positions_count_as_values(layer, shape):
    model, batches = layer(5, dtype=torch.float64), batches_of([6, 1, 13], shape)
    update_precise(model, batches, progress=False)
    assert POOLED.error((model.running_mean, model.running_var), model, batches) <= POOLED.at_most


def test_update_bn_is_wrong_for_uneven_and_for_different_batches_and_this_is_not():
    # The complaint: a small batch weighs as much as a large one, and the variance between the
    # batches' means is lost.
    batches = batches_of([60, 2])
    theirs, ours = nn.BatchNorm1d(5, dtype=torch.float64), nn.BatchNorm1d(5, dtype=torch.float64)
    update_bn(batches, theirs)
    update_precise(ours, batches, progress=False)
    together = torch.cat(batches)
    assert_holds(ours, together)
    assert (theirs.running_mean - together.mean(dim=0)).abs().min() > 0.5
    assert (theirs.running_var / together.var(dim=0)).max() < 0.6


@LAYERS
def test_one_pass_shows_deeper_layers_what_batch_statistics_make_of_the_input(layer):
    model, batches = network(layer), batches_of([9, 20, 11])
    first = [normalized_by_batch(model[1], model[0](x)) for x in batches]
    second_inputs = [model[4](values.relu()) for values in first]
    second = [normalized_by_batch(model[5], x) for x in second_inputs]
    update_precise(model, batches, progress=False)
    assert_holds(model[5], torch.cat(second_inputs), rtol=1e-10)
    assert_holds(model[8], torch.cat([model[7](x.relu()) for x in second]), rtol=1e-10)


@LAYERS
def test_with_a_pass_for_each_layer_in_line_all_are_exact_at_inference(layer):
    model, batches = network(layer), batches_of([9, 20, 11])
    for passes, exact in ((1, 1), (2, 2), (3, 3)):
        update_precise(model, batches, passes=passes, progress=False)
        errors = []
        for name, values in inputs_at_inference(model, batches).items():
            running_var = model.get_submodule(name).running_var
            errors.append(((running_var - values.var(dim=0)).abs() / running_var).max().item())
        assert max(errors[:exact]) < 1e-12
        assert all(error > 1e-3 for error in errors[exact:])


class Counted:
    def __init__(self, batches):
        self.batches, self.begun = batches, 0

    def __iter__(self):
        self.begun += 1
        return iter(self.batches)


def test_passes_end_when_nothing_changes():
    loader = Counted(batches_of([9, 20, 11]))
    update_precise(network(nn.BatchNorm1d), loader, passes=50, progress=False)
    # Three layers, one behind the other, and a pass that sees no change.
    assert loader.begun == 4


@pytest.mark.parametrize("num_samples", [1, 10, 12, 25, 39, 40, 41])
def test_exactly_so_many_samples_are_used(num_samples):
    model, batches = nn.BatchNorm1d(5, dtype=torch.float64), batches_of([12, 20, 8])
    if num_samples == 1:
        with pytest.raises(ValueError, match="loader: expected at least 2 values per channel in"):
            update_precise(model, batches, num_samples, progress=False)
        return
    update_precise(model, batches, num_samples, progress=False)
    assert_holds(model, torch.cat(batches)[:num_samples])


def test_no_batch_is_fetched_that_is_not_used():
    def loader():
        yield from batches_of([12, 8])
        pytest.fail("fetched a third batch")

    update_precise(nn.BatchNorm1d(5, dtype=torch.float64), loader(), 20, progress=False)


def test_a_last_batch_of_one_sample_that_update_bn_cannot_take():
    batches = batches_of([12, 1])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        update_bn(batches, network(nn.BatchNorm1d))
    model = network(nn.BatchNorm1d)
    update_precise(model, batches, progress=False)
    assert_holds(model[1], model[0](torch.cat(batches)), rtol=1e-10)
    # The lonely sample went on with the moments of all 13.
    mean, var = reference.moments(model[0](torch.cat(batches)).detach().numpy())
    lonely = model[0](batches[1]).detach().numpy()
    inputs = torch.from_numpy(reference.inference(lonely, mean, var))
    first = normalized_by_batch(model[1], model[0](batches[0]))
    assert_holds(model[5], model[4](torch.cat([first, inputs]).relu()), rtol=1e-10)


def test_dropout_is_off_as_at_inference():
    # The complaint: update_bn runs in training mode, so layers learn the variance under dropout.
    batches = batches_of([200, 200])
    calm, theirs, ours = (network(nn.BatchNorm1d, p) for p in (0.0, 0.5, 0.5))
    for model in (calm, ours):
        update_precise(model, batches, progress=False)
    update_bn(batches, theirs)
    assert torch.equal(calm[5].running_var, ours[5].running_var)
    assert (theirs[5].running_var / ours[5].running_var).min() > 1.2


def test_averaged_weights_with_stale_statistics_and_with_precise_ones():
    # The complaint: averages of weights have no statistics of their own.
    torch.manual_seed(0)
    x = torch.randn(400, 5, dtype=torch.float64) + 3.0
    target = x[:, :1]
    model = nn.Sequential(
        nn.Linear(5, 32), nn.BatchNorm1d(32, momentum=0.01), nn.ReLU(), nn.Linear(32, 1)
    )
    model = model.double()
    averaged = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(200):
        picked = torch.randint(400, (32,))
        loss = nn.functional.mse_loss(model(x[picked]), target[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 150:
            averaged.update_parameters(model)

    def error():
        averaged.eval()
        with torch.no_grad():
            result = nn.functional.mse_loss(averaged(x), target).item()
        averaged.train()
        return result

    stale = error()
    update_precise(averaged, x.split(64), progress=False)
    precise = error()
    assert 3.0 * precise < stale
    inputs = averaged.module[0](x)
    assert_holds(averaged.module[1], inputs, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_summed_in_double(dtype):
    model = companion.BatchNorm1d(5)
    batches = [(x + 30.0).to(dtype) for x in batches_of([1000, 24])]
    update_precise(model, batches, progress=False)
    assert_holds(model, torch.cat(batches), rtol=1e-6)


def _process(rank, store, batches, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    model = nn.Sequential(nn.SyncBatchNorm(5), nn.BatchNorm1d(5)).double()
    update_precise(model, batches[rank], progress=False)
    results[rank] = {name: value.tolist() for name, value in model.state_dict().items()}
    torch.distributed.destroy_process_group()


def test_synchronized_layers_merge_the_processes(tmp_path):
    # Uneven shards; the second process has one batch, the first has two.
    shards = [batches_of([9, 4]), batches_of([30], seed=2)]
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_process, (tmp_path / "store", shards, results), nprocs=2)
        first, second = results[0], results[1]
    population = population_moments([*shards[0], *shards[1]])
    for result in (first, second):
        np.testing.assert_allclose(
            result["0.running_mean"], population.mean, rtol=1e-12, atol=1e-14
        )
        np.testing.assert_allclose(result["0.running_var"], population.unbiased_var, rtol=1e-12)
    assert first["1.running_mean"] != second["1.running_mean"]
