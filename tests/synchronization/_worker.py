"""What each process of ``torchrun`` does: all checks, one after the other, and a file of results.

``torchrun ... _worker.py FOLDER`` writes ``FOLDER/RANK.json``: for each check null, or a traceback.
A check is a function of a process group of all ranks that no other check uses, so that what fails
in one leaves no traces in the next.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import traceback
import unittest.mock
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import companion
from companion import functional, reference
from companion.contexts import accumulated_statistics
from companion.statistics import update_precise
from companion.synchronization import channels

C = 3
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CHECKS = {}


def check(function=None, /, **options):
    """Register a check, under the function's name and what `options` are called."""

    def register(function):
        name = "-".join([function.__name__, *(str(value) for value in options.values())])
        CHECKS[name.replace("torch.", "")] = partial(function, **options)
        return function

    return register if function is None else register(function)


def rows(recipe: str) -> list[int]:
    """How many rows each rank holds."""
    size = dist.get_world_size()
    uneven = [10**rank for rank in range(size)]
    return {
        "even": [6] * size,
        "uneven": uneven,
        "first-empty": [0, *uneven[1:]],
        "last-empty": [*uneven[1:], 0],
        "one-has-all": [0] * (size - 1) + [7],
    }[recipe]


def batch(sizes, row, dtype, offset=1.0, seed=0):
    """The whole batch, a gradient for it, and this rank's parts of both."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(sizes), *row)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2.0 + offset
    grad_y = torch.randn(shape, generator=generator, dtype=torch.float64)
    x, grad_y = x.to(dtype), grad_y.to(dtype)
    return x, grad_y, *(value.split(sizes)[dist.get_rank()].clone() for value in (x, grad_y))


def parameters(layer):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.copy_(torch.rand(C, generator=generator, dtype=torch.float64) + 0.5)


def assert_close(values, expected, tolerance, what):
    expected = torch.as_tensor(np.asarray(expected)).reshape(values.shape)
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    error = (
        float((values.detach().double() - expected).abs().max()) / scale if values.numel() else 0.0
    )
    assert error <= tolerance, f"{what}: off by {error:.1e}, allowed {tolerance:.0e}"


def assert_same_on_all_ranks(value, what):
    received = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(received, value)
    assert all(torch.equal(other, value) for other in received), f"{what} differ: {received}"


def summed(value):
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def equals_one_big_batch(make, sizes, row, dtype, call=None, offset=1.0, memory_format=None):
    """Compare a layer with the oracle on the whole batch, in everything that training makes."""
    layer = make(dtype=dtype, momentum=1.0)
    parameters(layer)
    x, grad_y, part, grad_part = batch(sizes, row, dtype, offset)
    if memory_format is not None:
        part = part.contiguous(memory_format=memory_format)
    part.requires_grad_()
    y = (layer if call is None else call)(part)
    y.backward(grad_part)
    weight, bias = (value.detach().double().numpy() for value in (layer.weight, layer.bias))
    exact = reference.forward(x.double().numpy(), weight, bias, layer.eps)
    grads = reference.backward(grad_y.double().numpy(), exact)
    rank, tolerance = dist.get_rank(), TOLERANCE[dtype]
    cut = [0, *np.cumsum(sizes)]
    mine = slice(cut[rank], cut[rank + 1])
    assert y.dtype == dtype
    assert_close(y, exact.y[mine], tolerance, "y")
    assert_close(part.grad, grads.x[mine], tolerance, "gradient of x")
    assert_close(summed(layer.weight.grad), grads.gamma, tolerance, "gradient of the weight")
    assert_close(summed(layer.bias.grad), grads.beta, tolerance, "gradient of the bias")
    unbiased = exact.batch_var.ravel() * exact.m / (exact.m - 1)
    assert_close(layer.running_mean, exact.batch_mean.ravel(), tolerance, "running mean")
    assert_close(layer.running_var, unbiased, tolerance, "running variance")
    assert layer.num_batches_tracked.item() == 1
    for name, value in layer.named_buffers():
        assert_same_on_all_ranks(value, name)
    return y, part.grad


@check(dtype=torch.float64, recipe="even")
@check(dtype=torch.float64, recipe="uneven")
@check(dtype=torch.float64, recipe="first-empty")
@check(dtype=torch.float64, recipe="last-empty")
@check(dtype=torch.float64, recipe="one-has-all")
@check(dtype=torch.float32, recipe="even")
@check(dtype=torch.float32, recipe="uneven")
@check(dtype=torch.float32, recipe="first-empty")
def p_ranks_equal_one_big_batch(group, dtype, recipe):
    make = partial(companion.SyncBatchNorm, C, process_group=group)
    for row in ((C,), (C, 4), (C, 3, 2), (C, 2, 3, 2)):
        equals_one_big_batch(make, rows(recipe), row, dtype)


@check(backend="eager")
@check(backend="cpu")
def every_backend_applies_the_statistics(group, backend):
    make = partial(companion.SyncBatchNorm, C, process_group=group, backend=backend)
    equals_one_big_batch(make, rows("uneven"), (C, 4), torch.float64)


@check
def an_offset_costs_no_accuracy(group):
    make = partial(companion.SyncBatchNorm, C, process_group=group, check=False)
    # 1e-5 of the running mean, which is 1e4, and of y and the gradients, which are of order 1.
    equals_one_big_batch(make, rows("uneven"), (C, 4), torch.float32, offset=1e4)


@check
def one_value_on_a_rank_is_enough(group):
    sizes = [1] * dist.get_world_size()
    make = partial(companion.SyncBatchNorm, C, process_group=group)
    equals_one_big_batch(make, sizes, (C,), torch.float64)


@check
def one_value_over_all_ranks_is_refused(group):
    layer = companion.SyncBatchNorm(C, process_group=group)
    x = torch.ones((1 if dist.get_rank() == 0 else 0), C)
    assert "1 over all" in error_of(ValueError, layer, x)
    assert layer.num_batches_tracked.item() == 0
    assert torch.equal(layer.running_var, torch.ones(C))


@check
def no_value_anywhere_moves_the_count_only(group):
    layer = companion.SyncBatchNorm(C, process_group=group)
    x = torch.ones(0, C, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, C)
    assert torch.equal(layer.weight.grad, torch.zeros(C))
    assert layer.num_batches_tracked.item() == 1
    assert torch.equal(layer.running_mean, torch.zeros(C))
    assert torch.equal(layer.running_var, torch.ones(C))


@check
def channels_last_is_kept(group):
    make = partial(companion.SyncBatchNorm, C, process_group=group)
    last = torch.channels_last
    observed = equals_one_big_batch(
        make, rows("even"), (C, 3, 2), torch.float32, memory_format=last
    )
    for value in observed:
        assert value.is_contiguous(memory_format=last)


@check
def half_precision_has_float32_parameters(group):
    layer = companion.SyncBatchNorm(C, momentum=1.0, process_group=group)
    x, _, part, _ = batch(rows("uneven"), (C, 4), torch.bfloat16)
    y = layer(part)
    assert y.dtype == torch.bfloat16
    exact = reference.forward(x.double().numpy(), np.ones(C), np.zeros(C), layer.eps)
    assert_close(layer.running_mean, exact.batch_mean.ravel(), 1e-6, "running mean")


@check
def not_a_number_on_one_rank_reaches_all(group):
    layer = companion.SyncBatchNorm(C, process_group=group, skip_nonfinite=True)
    x = torch.randn(4, C)
    if dist.get_rank() == 1:
        x[0, 0] = torch.nan
    y = layer(x)
    assert y[:, 0].isnan().all()
    assert y[:, 1:].isfinite().all()
    assert layer.num_batches_tracked.item() == 0
    assert torch.equal(layer.running_mean, torch.zeros(C))
    x[:] = torch.inf if dist.get_rank() == 0 else 1.0
    layer = companion.SyncBatchNorm(C, process_group=group, momentum=1.0)
    layer(x)
    assert layer.running_mean.isposinf().all(), "as in one batch, the mean is infinite"


@check
def a_cumulative_average_is_one(group):
    layer = companion.SyncBatchNorm(C, momentum=None, process_group=group, dtype=torch.float64)
    local = companion.BatchNorm1d(C, momentum=None, dtype=torch.float64)
    for seed in range(3):
        x, _, part, _ = batch(rows("uneven"), (C,), torch.float64, seed=seed)
        layer(part)
        local(x)
    assert_close(layer.running_var, local.running_var, 1e-12, "running variance")
    assert layer.num_batches_tracked.item() == 3


@check
def options_of_the_layer(group):
    without = companion.SyncBatchNorm(
        C, affine=False, track_running_stats=False, process_group=group, dtype=torch.float64
    )
    x, _, part, _ = batch(rows("uneven"), (C,), torch.float64)
    expected = companion.BatchNorm1d(C, affine=False, dtype=torch.float64)(x)
    mine = expected.split(rows("uneven"))[dist.get_rank()]
    assert_close(without(part), mine, 1e-12, "y")
    acting = companion.SyncBatchNormAct(C, process_group=group, dtype=torch.float64)
    assert_close(acting(part, part), (mine + part).relu(), 1e-12, "y after a residual and a ReLU")
    evaluating = companion.SyncBatchNorm(C, process_group=group).eval()
    assert torch.equal(evaluating(part.float()), companion.BatchNorm1d(C).eval()(part.float()))


@check
def compiled_without_a_break(group):
    layer = companion.SyncBatchNorm(C, process_group=group, dtype=torch.float64, momentum=1.0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    equals_one_big_batch(lambda **_: layer, rows("even"), (C, 4), torch.float64, call=compiled)
    again = companion.SyncBatchNorm(C, dtype=torch.float64, momentum=1.0)
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    equals_one_big_batch(lambda **_: again, rows("uneven"), (C,), torch.float64, call=compiled)


def error_of(kind, call, *arguments):
    """The text of the error of that kind that a call raises."""
    try:
        call(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError(f"expected {kind.__name__}, got none")


def sent(profile):
    """Collectives that a profiler saw, with the number of values that each rank sent."""
    observed = []
    for event in profile.events():
        if event.name.startswith("gloo:"):
            sizes = [np.prod(shape, dtype=int) for shape in event.input_shapes if shape]
            observed.append((event.name, int(sizes[0])))
    return observed


@check
def one_message_forward_and_one_backward(group):
    layer = companion.SyncBatchNorm(C, process_group=group)
    x = torch.randn(5, C, 4, requires_grad=True)
    # The first call also compares the ranks' settings.
    layer(x).sum().backward()
    with torch.profiler.profile(record_shapes=True) as forward:
        y = layer(x)
    with torch.profiler.profile(record_shapes=True) as backward:
        y.square().sum().backward()
    assert sent(forward) == [("gloo:all_gather", 2 * C + 1)], sent(forward)
    assert sent(backward) == [("gloo:all_reduce", 2 * C)], sent(backward)


@check
def settings_that_differ_are_named(group):
    rank = dist.get_rank()
    channels = C + (rank == 1)
    make = partial(companion.SyncBatchNorm, process_group=group, name="bn")
    text = error_of(RuntimeError, make(channels), torch.randn(4, channels))
    assert "bn: agreement" in text
    assert "same channels on all ranks, got 3 on rank 0, 4 on rank 1" in text, text
    dtype = torch.float64 if rank == 1 else torch.float32
    text = error_of(RuntimeError, make(C, dtype=dtype), torch.randn(4, C, dtype=dtype))
    assert "got float32 on rank 0, float64 on rank 1" in text, text
    text = error_of(RuntimeError, make(C, eps=1e-5 * (1 + rank)), torch.randn(4, C))
    assert "same values of eps on all ranks, got 1e-05 on rank 0, 2e-05 on rank 1" in text, text
    momentum = None if rank == 1 else 0.1
    text = error_of(RuntimeError, make(C, momentum=momentum), torch.randn(4, C))
    assert "got 0.1 on rank 0, None on rank 1" in text, text
    unchecked = make(C, momentum=momentum, check=False)
    unchecked(torch.randn(4, C))


@check
def a_skipped_layer_is_named_at_once(group):
    first, second = (
        companion.SyncBatchNorm(C, process_group=group, name=name) for name in ("first", "second")
    )
    x = torch.randn(4, C)
    second(first(x))
    layer = second if dist.get_rank() == 1 else first
    text = error_of(RuntimeError, layer, x)
    if dist.get_rank() == 1:
        assert "second: forward statistics, rank 1 of" in text, text
        assert "rank 0 is in a call of first" in text, text
    else:
        assert f"first: forward statistics, rank {dist.get_rank()} of" in text, text
        assert "rank 1 is in a call of second" in text, text


@check
def a_backward_mistake_is_found_at_the_next_forward_pass(group):
    layers = [
        companion.SyncBatchNorm(C, process_group=group, name=name) for name in ("first", "second")
    ]
    x = torch.randn(4, C)
    outputs = [layer(x) for layer in layers]
    outputs[dist.get_rank() == 1].sum().backward()
    assert "in another call" in error_of(RuntimeError, layers[0], x)


@check
def other_backends_use_the_group_itself(group):
    with unittest.mock.patch("companion._torch.gloo_store", return_value=None):
        make = partial(companion.SyncBatchNorm, C, process_group=group)
        equals_one_big_batch(make, rows("uneven"), (C, 4), torch.float64)
    assert channels._channels[group]._own is None


@check
def process_groups(_group):
    rank, size = dist.get_rank(), dist.get_world_size()
    members = [[0, size - 1], list(range(1, size - 1)) or None]
    for ranks in filter(None, members):
        group = dist.new_group(ranks)
        if rank not in ranks:
            text = error_of(ValueError, companion.SyncBatchNorm, C, 1e-5, 0.1, True, True, group)
            assert "belongs to" in text
            continue
        layer = companion.SyncBatchNorm(C, process_group=group, momentum=1.0, dtype=torch.float64)
        x, _, part, _ = batch([4] * size, (C,), torch.float64)
        layer(part)
        whole = torch.cat([x.split(4)[other] for other in ranks])
        assert_close(layer.running_mean, whole.mean(0), 1e-12, "mean of the group")
        twin = copy.deepcopy(layer)
        assert twin.process_group is group
        twin(part)


@check
def statistics_accumulate_over_ranks(group):
    layer = companion.SyncBatchNorm(C, momentum=1.0, process_group=group, dtype=torch.float64)
    x, _, part, _ = batch(rows("uneven"), (C,), torch.float64)
    with accumulated_statistics(layer):
        layer(part)
        layer(part)
    twice = torch.cat([x, x])
    assert_close(layer.running_var, twice.var(0), 1e-12, "running variance")


@check
def local_layers_agree_after_recalibration_or_it_warns(group):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(C), nn.Linear(C, 5), nn.BatchNorm1d(5)).double()
    x, _, part, _ = batch(rows("uneven"), (C,), torch.float64)
    for passes in (1, 2):
        update_precise(model, [part], passes=passes, progress=False, process_group=group)
        for name, buffer in model.named_buffers():
            if "running" in name:
                assert_same_on_all_ranks(buffer, name)
        assert_close(model[0].running_mean, x.mean(0), 1e-12, "population mean")
        assert_close(model[0].running_var, x.var(0), 1e-12, "population variance")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        update_precise(model, [part, part + 1], progress=False)
    assert any("'0' and 1 others will hold those of this process" in str(w.message) for w in told)


@check
def a_diagnosis_names_local_layers(_group):
    ranks = dist.get_world_size()
    model = nn.Sequential(nn.BatchNorm1d(C), nn.ReLU(), companion.SyncBatchNorm(C), nn.ReLU())
    batches = [torch.randn(8, C) for _ in range(3)]
    found = list(companion.diagnose(model, batches, progress=False))
    local = [one for one in found if one.code == "unsynchronized"]
    assert [(one.layer, one.evidence["processes"]) for one in local] == [("0", ranks)]
    few = [one.layer for one in found if one.code == "few-values"]
    assert few == (["0"] if ranks > 1 else ["0", "2"])
    large = [torch.randn(64, C) for _ in range(3)]
    assert not {one.code for one in companion.diagnose(model, large, progress=False)} & {
        "unsynchronized",
        "few-values",
    }


class Network(nn.Module):
    """Two convolutions, each with a normalization, and a head."""

    def __init__(self, recompute=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)
        self.recompute = recompute

    def forward(self, x):
        for part in (self.first, self.second):
            x = checkpoint(part, x, use_reentrant=False) if self.recompute else part(x)
        return self.head(x.mean((2, 3)))


def networks(**options):
    torch.manual_seed(0)
    local = companion.convert(Network(**options).double())
    return local, companion.convert_sync(copy.deepcopy(local))


def steps(count, examples=8):
    """Batches of images of three kinds of noise, and this rank's equal share of each."""
    size, rank = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        target = torch.randint(3, (examples * size,), generator=generator)
        x = torch.randn(examples * size, 1, 8, 8, generator=generator, dtype=torch.float64)
        x = x * (1.0 + target[:, None, None, None]) + target[:, None, None, None]
        yield (x, target), (x.split(examples)[rank], target.split(examples)[rank])


def train(model, batches, accumulate=1):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for number, (x, target) in enumerate(batches):
        last = (number + 1) % accumulate == 0
        waiting = contextlib.nullcontext()
        if not last and isinstance(model, DistributedDataParallel):
            waiting = model.no_sync()
        with waiting:
            loss = F.cross_entropy(model(x), target) / accumulate
            loss.backward()
        losses.append(loss.item())
        if last:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def assert_same_training(local, synced, count, accumulate=1, tolerance=1e-9, **options):
    """Train a network alone and by all ranks, and compare what came out."""
    batches = list(steps(count))
    losses = train(local, [whole for whole, _ in batches], accumulate)
    model = DistributedDataParallel(synced, **options)
    train(model, [part for _, part in batches], accumulate)
    assert min(losses) < 0.6 * losses[0], f"it does not learn: {losses}"
    for name, value in synced.state_dict().items():
        assert_close(value, local.state_dict()[name], tolerance, name)
        assert_same_on_all_ranks(value, name)
    assert synced.first[1].num_batches_tracked.item() == count


@check(broadcast_buffers=True)
@check(broadcast_buffers=False)
def training_a_network_equals_one_process(_group, broadcast_buffers):
    assert_same_training(*networks(), 50, broadcast_buffers=broadcast_buffers)


@check
def gradients_accumulate(_group):
    assert_same_training(*networks(), 40, accumulate=2)


@check
def activations_are_recomputed(_group):
    assert_same_training(*networks(recompute=True), 40)


class Branches(nn.Module):
    """Three normalized layers, and one before them that only odd ranks use.

    It is registered last, so that DistributedDataParallel sends its gradients first. Where it is
    unused they are sent at once, and all others between the messages of the normalizations; where
    it is used its gradients come last, and nothing is sent before.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(4) for _ in range(3)])
        self.side = nn.Linear(4, 4)

    def forward(self, x, branch):
        if branch:
            x = x + self.side(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)).relu()
        return x.square().mean()


@check
def unused_parameters_differ_between_ranks(_group):
    torch.manual_seed(0)
    model = companion.convert_sync(Branches().double())
    # Many small buckets, which are sent as soon as they are complete.
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, bucket_cap_mb=1e-4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        x = torch.randn(6, 4, dtype=torch.float64)
        wrapped(x, dist.get_rank() % 2).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert_same_on_all_ranks(value, name)


@check
def the_function_needs_no_layer(group):
    sizes = rows("uneven")
    x, _, part, _ = batch(sizes, (C,), torch.float64)
    y = functional.sync_batch_norm(part, None, None, training=True, process_group=group)
    expected = functional.batch_norm(x, None, None, training=True)
    assert_close(y, expected.split(sizes)[dist.get_rank()], 1e-12, "y")
    for backend in ("torch", "unknown"):
        call = partial(functional.sync_batch_norm, part, None, None, training=True)
        assert backend in error_of(ValueError, partial(call, process_group=group, backend=backend))
    text = error_of(TypeError, partial(call, process_group="world"))
    assert "process_group: expected a process group or None, got str" in text


@check
def a_second_derivative_is_refused(group):
    layer = companion.SyncBatchNorm(C, process_group=group)
    x = torch.randn(4, C, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    text = error_of(RuntimeError, grad.sum().backward)
    assert "SyncBatchNorm(3)" in text, text


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    observed = {}
    try:
        for name, function in CHECKS.items():
            group = dist.new_group(timeout=timedelta(seconds=20))
            try:
                function(group)
                observed[name] = None
            except Exception:
                observed[name] = traceback.format_exc()
    finally:
        # Also where a check has failed on this rank alone, and the others no longer answer.
        path = Path(sys.argv[1], f"{dist.get_rank()}.json")
        path.write_text(json.dumps(observed), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
