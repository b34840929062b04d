"""SyncBatchNorm without other processes, and ``convert_sync``, there and back."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import companion
from companion import convert_sync, functional

LOCAL = {
    nn.BatchNorm1d: (4, 3),
    nn.BatchNorm2d: (4, 3, 2, 2),
    nn.BatchNorm3d: (4, 3, 2, 2, 2),
    companion.BatchNorm1d: (4, 3, 5),
    companion.BatchNorm2d: (4, 3, 2, 2),
    companion.BatchNorm3d: (4, 3, 2, 2, 2),
    companion.BatchNormAct1d: (4, 3),
    companion.BatchNormAct2d: (4, 3, 2, 2),
    companion.BatchNormAct3d: (4, 3, 2, 2, 2),
}
ACTING = (companion.BatchNormAct1d, companion.BatchNormAct2d, companion.BatchNormAct3d)


def test_alone_it_is_batch_norm():
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    layers = [
        cls(3, dtype=torch.float64) for cls in (companion.SyncBatchNorm, companion.BatchNorm1d)
    ]
    results = []
    for layer in layers:
        part = x.clone().requires_grad_()
        y = layer(part)
        y.square().sum().backward()
        results.append((y, part.grad, layer.weight.grad, *layer.buffers(), layer.eval()(part)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_alone_the_function_is_batch_norm():
    x = torch.randn(6, 3)
    y = functional.sync_batch_norm(x, None, None, training=True)
    assert torch.equal(y, functional.batch_norm(x, None, None, training=True))
    with pytest.raises(ValueError, match="more than 1 value"):
        functional.sync_batch_norm(x[:1], None, None, training=True)
    with pytest.raises(TypeError, match="process_group: expected a process group or None, got str"):
        functional.sync_batch_norm(x, None, None, training=True, process_group="world")
    with pytest.raises(TypeError, match="process_group"):
        companion.SyncBatchNorm(3, process_group=0)


@pytest.mark.parametrize("cls", LOCAL)
def test_a_layer_is_converted_and_becomes_itself_again(cls):
    layer = cls(3)
    x = torch.randn(LOCAL[cls])
    before = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    twin = copy.deepcopy(layer)
    assert convert_sync(layer) is layer
    acts = issubclass(cls, ACTING)
    assert type(layer) is (companion.SyncBatchNormAct if acts else companion.SyncBatchNorm)
    assert torch.equal(layer(x), companion.convert(twin)(x))
    companion.convert(layer, to="companion" if cls.__module__.startswith("companion") else "torch")
    assert type(layer) is cls
    after = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    assert after == before


def test_the_way_back_leads_to_either_package():
    model = convert_sync(nn.Sequential(nn.BatchNorm1d(3), companion.BatchNorm2d(3)))
    companion.convert(model)
    assert [type(m) for m in model] == [companion.BatchNorm1d, companion.BatchNorm2d]
    companion.convert(convert_sync(model), to="torch")
    assert [type(m) for m in model] == [nn.BatchNorm1d, nn.BatchNorm2d]
    own = companion.SyncBatchNorm(3)
    assert type(companion.convert(own, to="torch")) is companion.SyncBatchNorm


def test_everything_but_the_class_stays():
    shared = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), shared, nn.Sequential(shared, nn.BatchNorm2d(4)))
    model[2][1].eval()
    shared.note, calls = "kept", []
    shared.weight.requires_grad_(False)
    shared.register_forward_hook(lambda *_: calls.append("hook"))
    tensors = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    convert_sync(model)
    assert type(shared) is type(model[2][1]) is companion.SyncBatchNorm
    assert model[1] is model[2][0] is shared
    assert (shared.name, model[2][1].name) == ("1", "2.1")
    assert tensors == {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    assert (shared.training, model[2][1].training) == (True, False)
    model(torch.randn(2, 1, 5, 5))
    assert calls == ["hook", "hook"]
    assert shared.note == "kept"


def test_pytorchs_synchronized_layer_is_converted_and_comes_back():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(3)))
    convert_sync(model)
    assert type(model[0]) is companion.SyncBatchNorm
    model(torch.randn(4, 3))
    companion.convert(model, to="torch")
    assert type(model[0]) is nn.SyncBatchNorm
    assert model[0].process_group is None


def test_other_layers_are_left_alone():
    class Own(nn.BatchNorm1d):
        def forward(self, x):
            return 2.0 * super().forward(x)

    layers = [Own(3), nn.LazyBatchNorm1d(), companion.variants.GhostBatchNorm1d(3, ghost_size=2)]
    model = nn.Sequential(*layers, nn.LayerNorm(3))
    classes = [type(m) for m in model]
    convert_sync(model)
    assert [type(m) for m in model] == classes


def test_a_parametrized_layer_is_swapped_below():
    layer = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    x = torch.randn(5, 3)
    expected = layer(x)
    convert_sync(layer)
    assert isinstance(layer, companion.SyncBatchNorm)
    torch.testing.assert_close(layer(x), expected)
    companion.convert(layer, to="torch")
    assert not isinstance(layer, companion.SyncBatchNorm)
    assert isinstance(layer, nn.BatchNorm1d)


def test_converting_twice_changes_nothing_more():
    model = convert_sync(nn.Sequential(nn.BatchNorm1d(3)))
    before = dict(vars(model[0]))
    convert_sync(model)
    assert vars(model[0]) == before


def test_mistakes_are_named_before_anything_changes():
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(TypeError, match="process_group: expected a process group or None, got int"):
        convert_sync(model, process_group=1)
    assert type(model[0]) is nn.BatchNorm1d
    with pytest.raises(TypeError, match=r"model: expected a .*Module, got list"):
        convert_sync([model])
    with pytest.raises(ValueError, match=r"expected dimensions \(N, C, ...\), got 1"):
        companion.SyncBatchNorm(3)(torch.randn(3))
    with pytest.raises(RuntimeError, match="expected 3 channels"):
        companion.SyncBatchNorm(3)(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="residual: expected the input's shape"):
        companion.SyncBatchNormAct(3)(torch.randn(2, 3), torch.randn(3, 3))


def test_copies_and_pickles():
    layer = companion.SyncBatchNormAct(3, relu=False, check=False, name="bn")
    assert "check=False, relu=False" in repr(layer)
    assert "relu" not in repr(companion.SyncBatchNormAct(3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (twin.relu, twin.check, twin.name) == (False, False, "bn")
        assert twin.weight is not layer.weight
        x = torch.randn(4, 3)
        assert torch.equal(twin(x), copy.deepcopy(layer)(x))
    assert list(layer.state_dict()) == list(nn.BatchNorm1d(3).state_dict())


def test_an_exported_program_needs_no_package():
    model = convert_sync(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).eval()
    x = torch.randn(4, 2)
    program = torch.export.export(model, (x,))
    assert not any("companion" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("local", [nn.BatchNorm2d, companion.BatchNormAct2d])
def test_it_folds_as_the_local_layer_does(local):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), local(2)).eval()
    model[1].running_mean.fill_(0.5)
    x = torch.randn(2, 1, 5, 5)
    expected = model(x)
    folded, report = companion.fold(convert_sync(model), x)
    assert len(report.folded) == 1
    assert not report.kept
    torch.testing.assert_close(folded(x), expected)
