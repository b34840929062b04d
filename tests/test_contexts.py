"""What forward passes do to running statistics inside the three contexts, and PyTorch without."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion.contexts import accumulated_statistics, finite_statistics, preserved_statistics

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
LAYERS = pytest.mark.parametrize("layer", [nn.BatchNorm1d, companion.BatchNorm1d, nn.SyncBatchNorm])
BOTH = pytest.mark.parametrize("layer", [nn.BatchNorm1d, companion.BatchNorm1d])


def network(layer, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), layer(8, **options), nn.ReLU(), nn.Linear(8, 8))
    model.append(layer(8, **options))
    return model.double()


def batches_of(sizes, seed=1):
    """Sorted values, so that batches differ."""
    values = np.random.default_rng(seed).normal(size=(sum(sizes), 5))
    return torch.from_numpy(np.sort(values, axis=0)).split(sizes)


def state_of(model):
    return copy.deepcopy(model.state_dict())


def assert_same(model, state):
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def places(model):
    return [(id(buffer), buffer.data_ptr()) for buffer in model.buffers()]


@LAYERS
@pytest.mark.parametrize("fails", [False, True])
def test_a_dry_run_leaves_no_trace(layer, fails):
    model, batches = network(layer), batches_of([6, 8])
    model(batches[0])
    state, where = state_of(model), places(model)
    # The complaint: warming up, or validating in training mode, moves the statistics.
    careless = copy.deepcopy(model)
    careless(batches[1])
    assert not torch.equal(careless[1].running_mean, state["1.running_mean"])
    try:
        with preserved_statistics(model):
            model(batches[1])
            assert not torch.equal(model[1].running_mean, state["1.running_mean"])
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert_same(model, state)
    assert places(model) == where


def test_an_evaluation_in_training_mode_between_training_steps_changes_nothing():
    model, plain, batches = network(nn.BatchNorm1d), network(nn.BatchNorm1d), batches_of([6, 8, 9])
    for x in batches:
        with preserved_statistics(model):
            model(3.0 * x)
        assert torch.equal(model(x), plain(x))
    assert_same(model, state_of(plain))


@BOTH
def test_a_backward_pass_may_follow_where_copying_back_breaks_it(layer):
    model, batches = network(layer), batches_of([6, 8])
    plain = copy.deepcopy(model)
    plain(batches[1]).square().sum().backward()
    with preserved_statistics(model):
        loss = model(batches[1]).square().sum()
    loss.backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


def test_copying_back_by_hand_is_what_pytorch_refuses():
    model, (x,) = network(nn.BatchNorm1d), batches_of([6])
    state = state_of(model)
    loss = model(x).square().sum()
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@BOTH
def test_two_forward_passes_a_step_count_once(layer):
    # Sharpness-aware minimization: the complaint of davda54/sam#17.
    model, (x,) = network(layer), batches_of([6])
    twice, once = copy.deepcopy(model), copy.deepcopy(model)
    for _ in range(2):
        twice(x)
    once(x)
    assert twice[1].num_batches_tracked == 2
    model(x).sum().backward()
    with preserved_statistics(model):
        model(x).sum().backward()
    assert_same(model, state_of(once))


def test_other_normalizations_and_tensors_put_in_place_by_the_body():
    model = nn.Sequential(nn.InstanceNorm1d(5, track_running_stats=True), nn.BatchNorm1d(5))
    state, where = state_of(model), places(model)
    with preserved_statistics(model):
        model(torch.randn(3, 5, 4))
        model[1].running_mean = torch.ones(5)
        model[1].running_var.fill_(7.0)
    assert_same(model, state)
    assert places(model) == where


def test_other_buffers_stay_what_the_body_made_of_them():
    model = nn.Sequential(nn.BatchNorm1d(5))
    model.register_buffer("step", torch.tensor(0))
    with preserved_statistics(model):
        model.step += 1
    assert model.step == 1


def test_lazy_layers_keep_their_shapes_and_begin_anew():
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d())
    with preserved_statistics(model):
        model(torch.randn(6, 5))
    fresh = nn.BatchNorm1d(8)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(model[1], name), getattr(fresh, name))
    untouched = nn.LazyBatchNorm1d()
    with preserved_statistics(untouched):
        pass


@pytest.mark.cuda
def test_warming_up_for_a_cuda_graph():
    x = torch.randn(16, 5, device="cuda", dtype=torch.float64)
    model, plain = (network(nn.BatchNorm1d).cuda() for _ in range(2))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with preserved_statistics(model), torch.no_grad():
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(x)
    assert model[1].num_batches_tracked == 0
    graph.replay()
    torch.cuda.synchronize()
    plain(x)
    assert model[1].num_batches_tracked == 1
    assert torch.allclose(model[1].running_mean, plain[1].running_mean, rtol=0, atol=1e-12)


def poisoned(value):
    x = batches_of([6])[0].clone()
    x[2, 1] = value
    return x


@LAYERS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_batch_that_is_not_finite_moves_nothing(layer, value):
    model = layer(5).double()
    model(batches_of([8])[0])
    # The complaint of pytorch/pytorch#88474 and #90342: what comes in never goes out again.
    spoilt = copy.deepcopy(model)
    for x in (poisoned(value), *batches_of([8] * 200)):
        spoilt(x)
    assert not torch.isfinite(spoilt.running_mean).all()
    state, where = state_of(model), places(model)
    with finite_statistics(model):
        model(poisoned(value))
    assert_same(model, state)
    assert places(model) == where


@LAYERS
def test_finite_batches_move_statistics_as_ever(layer):
    model, plain = network(layer), network(layer)
    for x in batches_of([6, 8]):
        with finite_statistics(model):
            y = model(x)
            y.square().sum().backward()
        assert torch.equal(y, plain(x))
    assert_same(model, state_of(plain))


def test_only_the_layers_are_skipped_that_would_be_spoilt():
    model, (x,) = network(nn.BatchNorm1d), batches_of([6])
    model[3].register_forward_hook(lambda _, __, y: torch.full_like(y, float("inf")))
    with finite_statistics(model):
        model(x)
    assert model[1].num_batches_tracked == 1
    assert model[4].num_batches_tracked == 0
    assert torch.isfinite(model[4].running_mean).all()


def test_an_overflow_under_autocast():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        model[0].weight.fill_(100.0)
    x = torch.full((4, 8), 300.0)
    x[0] = 0.0
    state = state_of(model)
    for guarded in (False, True):
        model.load_state_dict(state)
        with torch.autocast("cpu", dtype=torch.float16):
            if guarded:
                with finite_statistics(model):
                    model(x)
            else:
                model(x)
        assert bool(torch.isfinite(model[1].running_var).all()) == guarded
    assert_same(model, state)


@BOTH
def test_a_backward_pass_follows_a_guarded_forward_pass(layer):
    model, plain, batches = network(layer), network(layer), batches_of([6, 8])
    with finite_statistics(model):
        loss = model(batches[0]).square().sum()
        model(poisoned(float("nan")))
    loss.backward()
    plain(batches[0]).square().sum().backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


@pytest.mark.parametrize("option", [True, False])
def test_hooks_and_options_are_gone_afterwards(option):
    model = nn.Sequential(nn.BatchNorm1d(5), companion.BatchNorm1d(5, skip_nonfinite=option))
    converted = companion.convert(nn.BatchNorm1d(5))
    with finite_statistics(nn.Sequential(model, converted)):
        assert converted.skip_nonfinite
    with (
        pytest.raises(ValueError, match="input: expected dim"),
        finite_statistics(nn.Sequential(model, converted)),
    ):
        converted(torch.zeros(3, 5, 1, 1))
    assert model[1].skip_nonfinite is option
    for layer in (model[0], converted):
        assert "skip_nonfinite" not in vars(layer)
    assert type(model[0]) is nn.BatchNorm1d


class Twice(nn.BatchNorm1d):
    """Another library's: batch normalization, and more."""

    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, companion.BatchNorm1d, Twice])
def test_the_guard_holds_for_a_model_that_was_compiled_before(layer):
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(5, 5), layer(5)).double()
    compiled = torch.compile(model, backend="aot_eager")
    expected = compiled(batches_of([6])[0])
    state = state_of(model)
    with finite_statistics(model):
        compiled(poisoned(float("inf")))
        assert_same(model, state)
        model.load_state_dict(state)
        torch.testing.assert_close(compiled(batches_of([6])[0]), expected)
    compiled(poisoned(float("inf")))
    assert not model[1].running_mean.isfinite().all()
    assert type(model[1]) is layer


@pytest.mark.parametrize("fails", [True, False])
def test_evaluation_under_the_guard_leaves_statistics_as_they_are(fails):
    layer, (x,) = nn.BatchNorm1d(5, dtype=torch.float64), batches_of([6])
    with finite_statistics(layer):
        layer(x)
        if fails:
            with pytest.raises(RuntimeError):
                layer(x[:, :4])
        # Loaded from elsewhere, and spoilt there: not for an evaluation to change.
        layer.running_mean[0] = torch.nan
        state = state_of(layer)
        layer.eval()(x)
    for name, value in layer.state_dict().items():
        assert torch.equal(value.nan_to_num(), state[name].nan_to_num())
    assert layer.running_mean[0].isnan()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layer", [nn.BatchNorm2d, companion.BatchNorm2d])
def test_on_each_device(layer, device):
    model, x = layer(3).to(device), torch.randn(4, 3, 5, 5, device=device)
    state = state_of(model)
    with preserved_statistics(model), finite_statistics(model), accumulated_statistics(model):
        model(x)
    assert_same(model, state)
    with finite_statistics(model), accumulated_statistics(model):
        for part in x.split([1, 3]):
            model(part)
    whole = layer(3).to(device)
    whole(x)
    assert torch.allclose(model.running_var, whole.running_var, rtol=1e-5)


def test_errors_name_the_argument():
    for context in (preserved_statistics, accumulated_statistics, finite_statistics):
        with (
            pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got list"),
            context([]),
        ):
            pytest.fail("entered")
