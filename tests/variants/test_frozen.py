import copy
import functools
import pickle

import pytest
import torch
from _family import SHAPES, batch, randomized
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import update_bn

import companion
from companion import reference
from companion.variants import (
    BatchRenorm1d,
    DecorrelatedBatchNorm1d,
    ExampleWeightedBatchNorm1d,
    FrozenBatchNorm,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    FrozenBatchNorm3d,
    GhostBatchNorm2d,
    NoisyBatchNorm3d,
    freeze,
    unfreeze,
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


def through_a_pickle(model):
    return pickle.loads(pickle.dumps(model))


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


class Own(nn.BatchNorm1d):
    def forward(self, x):
        return 2.0 * super().forward(x)


def test_a_layer_that_would_go_on_learning_is_refused_and_nothing_changed():
    for refused in (
        ExampleWeightedBatchNorm1d(3, alpha=0.5),
        DecorrelatedBatchNorm1d(3),
        nn.LazyBatchNorm1d(),
        Own(3),
    ):
        model = nn.Sequential(nn.BatchNorm1d(3), refused)
        with pytest.raises(TypeError, match=f"got {type(refused).__name__} in '1'"):
            freeze(model)
        assert type(model[0]) is nn.BatchNorm1d
        assert len(list(model[0].parameters())) == 2
    parametrized, pruned = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    parametrize.register_parametrization(parametrized, "weight", nn.Softplus())
    prune.random_unstructured(pruned, "bias", 0.5)
    for refused, name in (
        (parametrized, "parametrizations.weight.original"),
        (pruned, "bias_orig"),
    ):
        model = nn.Sequential(nn.BatchNorm1d(3), refused)
        with pytest.raises(ValueError, match=f"weight and bias, got '{name}' in '1'"):
            freeze(model)
        assert type(model[0]) is nn.BatchNorm1d
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="with running statistics, got none in '1'"):
        freeze(model)
    assert type(model[0]) is nn.BatchNorm1d
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        freeze([])
    with pytest.raises(ValueError, match="track_running_stats: expected True"):
        FrozenBatchNorm1d(3, track_running_stats=False)
    assert FrozenBatchNorm1d(3, bias=False).bias is None


WITH_RESIDUAL = (companion.BatchNormAct2d, companion.SyncBatchNormAct)
THERE_AND_BACK = {
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.SyncBatchNorm: FrozenBatchNorm,
    companion.BatchNorm2d: FrozenBatchNorm2d,
    companion.BatchNormAct2d: FrozenBatchNorm2d,
    companion.SyncBatchNorm: FrozenBatchNorm,
    companion.SyncBatchNormAct: FrozenBatchNorm,
    functools.partial(GhostBatchNorm2d, ghost_size=4): FrozenBatchNorm2d,
}


def attributes(layer):
    return {name: value for name, value in vars(layer).items() if not name.startswith("_")}


@pytest.mark.parametrize("make", THERE_AND_BACK, ids=str)
@pytest.mark.parametrize("options", [{}, {"affine": False}])
def test_a_layer_is_frozen_and_becomes_itself_again(make, options):
    layer, x = randomized(make(3, **options)), batch(SHAPES["2d"], torch.float32)
    arguments = (x, x.flip(0)) if isinstance(layer, WITH_RESIDUAL) else (x,)
    cls, before, parameters = type(layer), attributes(layer), list(layer.parameters())
    keys = list(layer.state_dict())
    for parameter in parameters[:1]:
        parameter.requires_grad_(False)
    # PyTorch's synchronized layer takes these batches in evaluation mode only.
    expected = layer.eval()(*arguments)
    before["training"] = False
    assert freeze(layer) is layer
    assert type(layer) is THERE_AND_BACK[make]
    assert list(layer.parameters()) == []
    assert torch.allclose(layer.train()(*arguments), expected, rtol=0, atol=1e-6)
    state = copy.deepcopy(layer.state_dict())
    assert unfreeze(layer.eval()) is layer
    assert type(layer) is cls
    assert attributes(layer) == before
    assert list(layer.state_dict()) == keys
    assert_equal(dict(sorted(layer.state_dict().items())), dict(sorted(state.items())))
    assert [id(value) for value in layer.parameters()] == [id(value) for value in parameters]
    assert [value.requires_grad for value in parameters] == [False, True][: len(parameters)]
    assert torch.equal(layer(*arguments), expected)
    if cls is not nn.SyncBatchNorm:
        layer.train()(*arguments)
        assert not torch.equal(layer.running_mean, state["running_mean"])


@SOURCES
@pytest.mark.parametrize("copied", [lambda x: x, copy.deepcopy, through_a_pickle])
def test_training_goes_on_after_unfreezing(package, copied):
    torch.manual_seed(1)
    model = network(package)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()(images()).square().sum().backward()
    freeze(model)
    # By a checkpoint, and to another type.
    state = {name: value * 2 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    model.double()
    twin = copied(model)
    unfreeze(twin)
    assert type(twin[1]) is package.BatchNorm2d
    assert twin[1].weight.dtype == torch.float64
    assert twin[1].weight.grad is None
    assert torch.equal(twin[1].weight, state["1.weight"].double())
    assert [name for name, _ in twin.named_parameters()] == [
        name for name, _ in network(package).named_parameters()
    ]
    if twin is not model:
        assert type(model[1]) is FrozenBatchNorm2d
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    before = norms(twin)
    twin.train()(images().double()).square().sum().backward()
    optimizer.step()
    after = norms(twin)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_what_was_made_frozen_stays_and_is_not_touched():
    layer = FrozenBatchNorm2d(3, relu=True)
    model = nn.Sequential(layer, freeze(companion.BatchNormAct1d(3, relu=False)))
    before = dict(vars(layer))
    unfreeze(model)
    assert type(layer) is FrozenBatchNorm2d
    assert vars(layer) == before
    assert type(model[1]) is companion.BatchNormAct1d
    assert "relu=True" in repr(layer)
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        unfreeze([])


def test_a_residual_and_the_relu_come_after_the_frozen_normalization():
    layer = randomized(FrozenBatchNorm2d(3, dtype=torch.float64))
    fused = FrozenBatchNorm2d(3, dtype=torch.float64, relu=True)
    fused.load_state_dict(layer.state_dict())
    x, residual = batch(SHAPES["2d"]).requires_grad_(), batch(SHAPES["2d"], seed=2).requires_grad_()
    y, expected = fused(x, residual), (layer(x) + residual).relu()
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    weights = batch(SHAPES["2d"], seed=3)
    for mine, other in zip(
        *(torch.autograd.grad(value, (x, residual), weights) for value in (y, expected)),
        strict=True,
    ):
        assert torch.allclose(mine, other, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="residual: expected the input's shape"):
        fused(x, residual[:1])
    with pytest.raises(ValueError, match="backend: expected one of"):
        FrozenBatchNorm2d(3, backend="none")


def test_a_frozen_fused_layer_folds_and_exports():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), companion.BatchNormAct2d(4), nn.Conv2d(4, 3, 1))
    model.append(companion.SyncBatchNormAct(3))
    randomized(model[1]), randomized(model[3])
    freeze(model)
    x = images()
    expected = model(x)
    folded, report = companion.fold(model, x)
    assert [entry.layer for entry in report.folded] == ["0", "2"]
    assert torch.allclose(folded(x), expected, rtol=0, atol=1e-5)
    with companion.inference.torch_operators(model):
        program = torch.export.export(model.eval(), (x,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert sum("batch_norm" in target for target in targets) == 2
    assert model[1].backend == "auto"


def test_empty_ones_are_filled_by_reset_parameters():
    layer = FrozenBatchNorm2d(3, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    assert_equal(layer.state_dict(), FrozenBatchNorm2d(3).state_dict())
    layer.type(torch.float64)
    assert layer.num_batches_tracked.dtype == torch.int64
    layer.float()
    released = {name: value for name, value in layer.state_dict().items() if name[0] != "n"}
    empty = FrozenBatchNorm2d(3, device="meta")
    empty.load_state_dict(released, assign=True)
    assert_equal(empty.state_dict(), layer.state_dict())


def test_a_copy_is_in_the_group_of_the_layer_that_was_frozen():
    class Group:
        def __deepcopy__(self, _memo):
            raise TypeError("groups cannot be copied")

    layer = companion.SyncBatchNorm(3)
    layer.process_group = Group()
    twin = unfreeze(copy.deepcopy(freeze(layer)))
    assert type(twin) is companion.SyncBatchNorm
    assert twin.process_group is layer.process_group
    assert twin.weight is not layer.weight
