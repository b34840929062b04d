import copy

import pytest
import torch
from _family import SHAPES, batch, randomized
from torch import nn
from torch.optim.swa_utils import update_bn

import companion
from companion import reference
from companion.variants import (
    BatchRenorm1d,
    ExampleWeightedBatchNorm1d,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    FrozenBatchNorm3d,
    GhostBatchNorm2d,
    NoisyBatchNorm3d,
    freeze,
)

CLASSES = {2: FrozenBatchNorm1d, 3: FrozenBatchNorm1d, 4: FrozenBatchNorm2d, 5: FrozenBatchNorm3d}
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
SOURCES = pytest.mark.parametrize("package", [nn, companion])


def network(package):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), package.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(16, 5), package.BatchNorm1d(5, affine=False))
    for _ in range(3):
        model(images())
    return model.eval()


def images():
    return torch.randn(8, 2, 4, 4) * 2.0 + 1.0


def fine_tune(model, steps=3, weight_decay=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(images()).square().sum().backward()
        optimizer.step()


def norms(model):
    return {
        name: value.clone() for name, value in model.state_dict().items() if name[0] in ("1", "5")
    }


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@SHAPE
@pytest.mark.parametrize("training", [True, False])
def test_the_oracles_inference_in_both_modes(shape, training):
    layer = randomized(CLASSES[len(shape)](3, dtype=torch.float64)).train(training)
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    x = batch(shape)
    exact = reference.inference(
        x.numpy(), *(state[name] for name in ("running_mean", "running_var", "weight", "bias"))
    )
    assert (layer(x) - torch.from_numpy(exact)).abs().max() < 1e-12
    assert_equal(layer.state_dict(), {name: torch.tensor(v) for name, v in state.items()})


@SOURCES
def test_eval_alone_is_undone_by_the_next_train(package):
    # The pain: statistics and parameters of a layer in evaluation mode move all the same.
    model = network(package)
    before = norms(model)
    for layer in (model[1], model[5]):
        layer.eval()
    fine_tune(model)
    after = norms(model)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    # Frozen, nothing moves.
    model = freeze(network(package))
    before = norms(model)
    fine_tune(model)
    model.requires_grad_(True)
    fine_tune(model)
    assert_equal(norms(model), before)


@SOURCES
def test_freezing_keeps_numbers_keys_and_objects(package):
    model = network(package)
    x, before = images(), copy.deepcopy(model.state_dict())
    layer, expected = model[1], model(x)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    assert freeze(model) is model
    assert model[1] is layer
    assert type(model[1]) is FrozenBatchNorm2d
    assert type(model[5]) is FrozenBatchNorm1d
    assert_equal(dict(sorted(model.state_dict().items())), dict(sorted(before.items())))
    for _ in (model.eval(), model.train()):
        assert torch.allclose(model(x), expected, rtol=0, atol=1e-6)
    assert len(calls) == 2
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight",
        "0.bias",
        "4.weight",
        "4.bias",
    ]
    again = network(package)
    again.load_state_dict(model.state_dict())
    assert torch.allclose(again(x), expected, rtol=0, atol=1e-6)
    assert freeze(model) is model


@pytest.mark.parametrize("strict", [True, False])
def test_checkpoints_without_a_count_load_as_into_pytorchs_layer(strict):
    released = {
        name: value
        for name, value in nn.BatchNorm2d(4).state_dict().items()
        if name != "num_batches_tracked"
    }
    released["running_mean"] = torch.arange(4.0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    theirs = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    state = {f"1.{name}": value for name, value in released.items()}
    state |= {f"0.{name}": value for name, value in theirs[0].state_dict().items()}
    kept = dict(state)
    for each in (model, theirs):
        each.load_state_dict(kept, strict=strict)
    assert kept.keys() >= state.keys()
    assert_equal(model.state_dict(), theirs.state_dict())


def test_an_optimizer_from_before_has_no_effect():
    model = network(nn)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    model(images()).sum().backward()
    freeze(model)
    before = norms(model)
    optimizer.step()
    assert_equal(norms(model), before)


@SOURCES
def test_tools_that_look_for_batch_normalization_do_not_find_it(package):
    loader = [images() for _ in range(3)]
    # The pain: both tools change a layer that was put into evaluation mode.
    plain = network(package)
    before = norms(plain)
    update_bn(loader, plain)
    assert not torch.equal(norms(plain)["1.running_mean"], before["1.running_mean"])
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(network(package))
    assert isinstance(synchronized[1], nn.SyncBatchNorm)
    frozen = freeze(network(package))
    before = norms(frozen)
    update_bn(loader, frozen)
    assert_equal(norms(frozen), before)
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(frozen)[1]) is FrozenBatchNorm2d


def test_gradients_reach_what_is_below():
    model = freeze(network(nn)).train()
    model(images()).square().sum().backward()
    assert model[0].weight.grad.abs().max() > 0


@SHAPE
def test_one_value_per_channel_will_do(shape):
    layer = randomized(CLASSES[len(shape)](3, dtype=torch.float64)).train()
    x = batch(shape)
    first = (slice(0, 1), slice(None), *(slice(0, 1),) * (len(shape) - 2))
    assert torch.equal(layer(x[first]), layer(x)[first])


def test_a_layer_alone_and_one_that_is_used_twice():
    assert type(freeze(nn.BatchNorm1d(3))) is FrozenBatchNorm1d
    shared = nn.BatchNorm1d(3)
    model = freeze(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]
    assert type(model[0]) is FrozenBatchNorm1d


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (GhostBatchNorm2d(3, ghost_size=2), SHAPES["2d"]),
        (NoisyBatchNorm3d(3), SHAPES["3d"]),
        (BatchRenorm1d(3), SHAPES["1d"]),
    ],
)
def test_relatives_that_are_batch_normalization_at_inference(layer, shape):
    layer, x = randomized(layer), batch(shape, torch.float32)
    expected = layer.eval()(x)
    assert type(freeze(layer)) is CLASSES[len(shape)]
    assert torch.equal(layer.train()(x), expected)


def test_a_layer_that_would_go_on_learning_is_refused_and_nothing_changed():
    for refused in (
        ExampleWeightedBatchNorm1d(3, alpha=0.5),
        nn.SyncBatchNorm(3),
        nn.LazyBatchNorm1d(),
    ):
        model = nn.Sequential(nn.BatchNorm1d(3), refused)
        with pytest.raises(TypeError, match=f"got {type(refused).__name__} in '1'"):
            freeze(model)
        assert type(model[0]) is nn.BatchNorm1d
        assert len(list(model[0].parameters())) == 2
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="with running statistics, got none in '1'"):
        freeze(model)
    assert type(model[0]) is nn.BatchNorm1d
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        freeze([])
    with pytest.raises(ValueError, match="track_running_stats: expected True"):
        FrozenBatchNorm1d(3, track_running_stats=False)
    assert FrozenBatchNorm1d(3, bias=False).bias is None
