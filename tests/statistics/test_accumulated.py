"""Micro-batches that move the running statistics once, as their union would."""

import copy
from collections import deque

import numpy as np
import pytest
import torch
from _networks import LAYERS, batches_of, network
from torch import nn
from torch.utils.checkpoint import checkpoint

import companion
from companion import reference
from companion.contexts import accumulated_statistics, finite_statistics

BOTH = pytest.mark.parametrize("layer", [nn.BatchNorm1d, companion.BatchNorm1d])


def state_of(model):
    return copy.deepcopy(model.state_dict())


def assert_same(model, state):
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def places(model):
    return [(id(buffer), buffer.data_ptr()) for buffer in model.buffers()]


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("sizes", [[20], [5, 5, 5, 5], [2, 11, 7], [0, 13, 7]])
@LAYERS
def test_the_union_makes_one_step(layer, sizes, momentum):
    model = network(layer, momentum=momentum)
    model(batches_of([9], seed=2)[0])
    before = state_of(model)
    batches = batches_of(sizes)
    seen = []
    model[5].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with accumulated_statistics(model):
        outputs = [model(x) for x in batches]
        assert_same(model, before)
    factor = 0.5 if momentum is None else momentum
    for index, union in ((1, model[0](torch.cat(batches))), (5, torch.cat(seen))):
        mean, var = reference.moments(union.detach().numpy())
        want_mean = (1 - factor) * before[f"{index}.running_mean"].numpy() + factor * mean
        want_var = (1 - factor) * before[f"{index}.running_var"].numpy() + factor * var * 20 / 19
        np.testing.assert_allclose(model[index].running_mean, want_mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model[index].running_var, want_var, rtol=1e-12)
        assert model[index].num_batches_tracked == 2
        assert model[index].track_running_stats
    # Each micro-batch was normalized with its own statistics.
    for x, y in zip(batches, outputs, strict=True):
        if len(x):
            assert torch.allclose(y, copy.deepcopy(model)(x), rtol=0, atol=1e-12)


def test_without_it_each_micro_batch_makes_a_step_by_its_own_variance():
    # The complaint of pytorch/pytorch#46516.
    batches = batches_of([5, 5, 5, 5])
    layer, whole, ours = (nn.BatchNorm1d(5, dtype=torch.float64) for _ in range(3))
    for x in batches:
        layer(x)
    whole(torch.cat(batches))
    with accumulated_statistics(ours):
        for x in batches:
            ours(x)
    assert layer.num_batches_tracked == 4
    assert (layer.running_var - whole.running_var).abs().min() > 0.1
    assert torch.allclose(ours.running_var, whole.running_var, rtol=0, atol=1e-14)
    assert torch.allclose(ours.running_mean, whole.running_mean, rtol=0, atol=1e-14)
    assert ours.num_batches_tracked == whole.num_batches_tracked == 1


@LAYERS
def test_nothing_is_committed_when_the_body_raises(layer):
    model, batches = network(layer), batches_of([6, 8])
    state, where = state_of(model), places(model)

    def failing():
        yield batches[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), accumulated_statistics(model):
        deque(map(model, failing()))
    assert_same(model, state)
    assert places(model) == where
    assert all(m.track_running_stats for m in (model[1], model[5]))
    assert not model[1]._forward_hooks
    with accumulated_statistics(model):
        model(batches[0])
    assert model[1].num_batches_tracked == 1


def test_nested_use_is_refused_and_the_outer_one_goes_on():
    model, (x,) = network(nn.BatchNorm1d), batches_of([6])
    with accumulated_statistics(model):
        model(x)
        for inner in (model, model[1], nn.Sequential(nn.BatchNorm1d(8), model[5])):
            with (
                pytest.raises(RuntimeError, match="model: expected statistics that are not being"),
                accumulated_statistics(inner),
            ):
                pytest.fail("entered")
        with accumulated_statistics(nn.BatchNorm1d(8)):
            pass
    assert model[1].num_batches_tracked == 1


def test_what_does_not_count():
    model, batches = network(nn.BatchNorm1d), batches_of([6, 8])
    model[5].track_running_stats = False
    state = state_of(model)
    with accumulated_statistics(model):
        model.eval()
        with torch.no_grad():
            inside = model(batches[0])
        model.train()
    assert_same(model, state)
    assert not model[5].track_running_stats
    # Evaluation inside uses the running statistics, as it does outside.
    assert torch.equal(inside, model.eval()(batches[0]))


@BOTH
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_recomputed_counts_once(layer, reentrant):
    model, plain = network(layer), network(layer)
    batches = [x.requires_grad_() for x in batches_of([6, 8])]
    for each, run in (
        (model, lambda m, x: checkpoint(m, x, use_reentrant=reentrant)),
        (plain, lambda m, x: m(x)),
    ):
        with accumulated_statistics(each):
            for x in batches:
                run(each, x).square().sum().backward()
    assert_same(model, state_of(plain))


def test_gradients_are_those_without_it():
    model, plain, batches = network(nn.BatchNorm1d), network(nn.BatchNorm1d), batches_of([6, 8])
    with accumulated_statistics(model):
        for x in batches:
            model(x).square().sum().backward()
    for x in batches:
        plain(x).square().sum().backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


def test_a_union_that_is_not_finite_where_such_are_skipped():
    batches = [torch.ones(2, 5), torch.full((2, 5), torch.inf)]
    for layer in (companion.BatchNorm1d(5, skip_nonfinite=True), nn.BatchNorm1d(5)):
        state = state_of(layer)
        with finite_statistics(layer), accumulated_statistics(layer):
            for x in batches:
                layer(x)
        assert_same(layer, state)
    with accumulated_statistics(layer):
        layer(batches[1])
    assert not torch.isfinite(layer.running_mean).any()


def test_a_compiled_model_accumulates():
    model, plain, batches = network(nn.BatchNorm1d), network(nn.BatchNorm1d), batches_of([6, 8])
    compiled = torch.compile(model, backend="eager")
    with accumulated_statistics(compiled):
        for x in batches:
            compiled(x)
    with accumulated_statistics(plain):
        for x in batches:
            plain(x)
    assert model[1].num_batches_tracked == 1
    assert torch.allclose(model[5].running_var, plain[5].running_var, rtol=0, atol=1e-12)
