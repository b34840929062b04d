"""``companion.convert``: every batch normalization layer of a model, there and back."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import companion
from companion import convert

PAIRS = [
    (nn.BatchNorm1d, companion.BatchNorm1d),
    (nn.BatchNorm2d, companion.BatchNorm2d),
    (nn.BatchNorm3d, companion.BatchNorm3d),
]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), self.norm)

    def forward(self, x):
        return x + self.body(self.norm(x))


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_the_model_itself_can_be_a_layer(theirs, ours):
    layer = theirs(3)
    assert convert(layer) is layer
    assert type(layer) is ours
    assert convert(layer) is layer
    assert convert(layer, to="torch") is layer
    assert type(layer) is theirs


def test_everything_but_the_class_stays():
    model = Residual().eval()
    model.norm.train()
    model.norm.note = "kept"
    model.norm.weight.requires_grad_(False)
    layers, before = norms(model), [dict(vars(m)) for m in norms(model)]
    tensors = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    convert(model)
    assert [type(m) for m in norms(model)] == [companion.BatchNorm2d] * 2
    assert all(a is b for a, b in zip(norms(model), layers, strict=True))
    assert tensors == {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    assert [vars(m) for m in norms(model)] == before
    assert [m.training for m in norms(model)] == [True, False]
    convert(model, to="torch")
    assert [vars(m) for m in norms(model)] == before


def test_outputs_and_training_agree():
    torch.manual_seed(0)
    plain = Residual()
    model = convert(copy.deepcopy(plain))
    optimizers = [torch.optim.SGD(m.parameters(), 0.05) for m in (plain, model)]
    for _ in range(5):
        x = torch.randn(6, 4, 5, 5)
        for m, optimizer in zip((plain, model), optimizers, strict=True):
            optimizer.zero_grad()
            m(x).pow(2).mean().backward()
            optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    convert(model, to="torch").load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_hooks_fire_as_before():
    model, calls = nn.Sequential(nn.BatchNorm1d(3)), []
    model[0].register_forward_pre_hook(lambda *_: calls.append("pre"))
    model[0].register_forward_hook(lambda *_: calls.append("post"))
    model[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    model[0].weight.register_hook(lambda _: calls.append("weight"))
    seen = []
    for to in (None, "companion", "torch"):
        if to is not None:
            convert(model, to=to)
        calls.clear()
        model(torch.randn(4, 3, requires_grad=True)).sum().backward()
        seen.append(list(calls))
    assert seen[0] == ["pre", "post", "weight", "backward"]
    assert seen[1] == seen[2] == seen[0]


def test_an_optimizer_keeps_working():
    model = nn.Sequential(nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    convert(model)
    model(torch.randn(4, 3)).pow(3).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, torch.ones(3))


class OurSpecial(companion.BatchNorm2d):
    pass


@pytest.mark.parametrize("to", ["companion", "torch"])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: OurSpecial(3),
        lambda: nn.SyncBatchNorm(3),
        lambda: nn.LazyBatchNorm2d(),
        lambda: nn.InstanceNorm2d(3),
    ],
)
def test_other_classes_are_left_alone(layer, to):
    model = nn.Sequential(layer())
    cls = type(model[0])
    convert(model, to=to)
    assert type(model[0]) is cls


def test_lazy_layers_once_they_are_materialized():
    model = nn.Sequential(nn.LazyBatchNorm2d())
    model(torch.randn(2, 3, 4, 4))
    assert type(convert(model)[0]) is companion.BatchNorm2d


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_parametrized_layers_are_swapped_below():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    for module in model:
        parametrize.register_parametrization(module, "weight", Doubled())
    original, x = copy.deepcopy(model), torch.randn(5, 3)
    convert(model)
    assert isinstance(model[0], companion.BatchNorm1d)
    assert parametrize.is_parametrized(model[0], "weight")
    assert not isinstance(original[0], companion.BatchNorm1d)
    torch.testing.assert_close(model(x), original(x))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    convert(model, to="torch")
    assert not isinstance(model[0], companion.BatchNorm1d)
    assert isinstance(twin[0], companion.BatchNorm1d)
    parametrize.remove_parametrizations(twin[0], "weight")
    assert type(twin[0]) is companion.BatchNorm1d
    assert twin[0].weight.tolist() == [2.0] * 3


def test_the_option_without_a_counterpart_is_dropped():
    layer = convert(companion.BatchNorm1d(3, skip_nonfinite=True), to="torch")
    assert vars(layer).keys() == vars(nn.BatchNorm1d(3)).keys()
    assert convert(layer).skip_nonfinite is False


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_way_back_runs_in_every_type_and_mode(dtype, affine):
    model = nn.Sequential(companion.BatchNorm2d(3, affine=affine)).to(dtype)
    x = (2 + torch.randn(8, 3, 5, 5)).to(dtype)
    model(x)
    back = convert(copy.deepcopy(model), to="torch")
    assert type(back[0]) is nn.BatchNorm2d
    for mode in (False, True):
        model.train(mode), back.train(mode)
        torch.testing.assert_close(back(x), model(x), rtol=2e-2, atol=2e-2)
    # The statistics of a weight in single precision are not touched.
    kept = companion.BatchNorm2d(3, affine=affine)
    statistic = kept.running_mean
    assert convert(kept, to="torch").running_mean is statistic


def test_statistics_that_overflow_the_type_of_the_weight_are_refused():
    model = nn.Sequential(companion.BatchNorm1d(2), companion.BatchNorm1d(2)).half()
    model[1].running_var[1] = 1e5
    with pytest.raises(ValueError, match=r"torch.float16.*got up to 1e\+05 in '1', running_var"):
        convert(model, to="torch")
    assert [type(layer) for layer in model] == [companion.BatchNorm1d] * 2
    assert [layer.running_var.dtype for layer in model] == [torch.float32] * 2


def test_converted_layers_compile_and_copy():
    torch.compiler.reset()
    layer = convert(nn.BatchNorm1d(3, momentum=None))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(torch.randn(4, 3))
    assert layer.num_batches_tracked.item() == 1
    assert type(copy.deepcopy(layer)) is companion.BatchNorm1d


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got dict"):
        convert({})
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"^to: expected 'companion' or 'torch', got 'jax'"):
        convert(model, to="jax")
    assert type(model[0]) is nn.BatchNorm1d
