"""Group normalization in the place of batch normalization: one example at a time."""

import copy
import pickle

import pytest
import torch
from _foreign import Doubled, Frozen, NormAct, Unknown
from torch import nn

import companion
from companion import to_group_norm, variants
from companion.variants import GroupNorm, group_norm


class Block(nn.Module):
    """Fused layers with and without a residual, and a plain one after a linear layer."""

    def __init__(self, layers=companion):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.first = companion.BatchNormAct2d(32)
        self.conv = nn.Conv2d(32, 32, 3, padding=1)
        self.second = companion.BatchNormAct2d(32)
        self.last = layers.BatchNorm2d(32)
        self.head = nn.Linear(32, 48)
        self.norm = layers.BatchNorm1d(48)

    def forward(self, x):
        x = self.first(self.stem(x))
        x = self.second(self.conv(x), residual=x)
        return self.norm(self.head(self.last(x).mean((2, 3))))


def randomized(model):
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.double()


def images(size, channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, channels, 6, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("layers", [nn, companion])
@pytest.mark.parametrize("training", [True, False])
def test_an_example_has_its_output_alone_and_in_any_batch(layers, training):
    model, x = randomized(Block(layers)).train(training), images(5)
    # The pain: in training it had not.
    assert torch.allclose(model(x)[:3], model(x[:3])) != training
    to_group_norm(model)
    y = model(x)
    alone = torch.cat([model(x[i : i + 1]) for i in range(5)])
    assert torch.allclose(y, alone, rtol=0, atol=1e-13)
    assert torch.equal(model.train(not training)(x), y)


def test_a_network_computes_what_the_function_does():
    model = to_group_norm(randomized(Block()), num_groups=4)
    x = images(2)
    h = torch.relu(group_norm(model.stem(x), 4, model.first.weight, model.first.bias))
    y = group_norm(model.conv(h), 4, model.second.weight, model.second.bias)
    y = group_norm(torch.relu(y + h), 4, model.last.weight, model.last.bias).mean((2, 3))
    y = group_norm(model.head(y), 4, model.norm.weight, model.norm.bias)
    assert torch.allclose(model(x), y, rtol=0, atol=1e-13)


def test_with_a_group_per_channel_a_batch_of_one_is_what_it_was_in_training():
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3)),
        *(companion.BatchNormAct2d(5, eps=0.1), nn.Conv2d(5, 2, 2)),
    )
    model, x = randomized(model), images(1)
    expected = model(x)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    y = to_group_norm(model, lambda channels: channels)(x)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    y.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_the_layer_the_parameters_and_their_keys_stay():
    model = randomized(Block()).eval()
    before = dict(model.named_modules())
    parameters, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = []
    model.last.register_forward_hook(lambda *_: calls.append(1))
    assert to_group_norm(model) is model
    assert all(module is before[name] for name, module in model.named_modules())
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    kept = {key: value for key, value in state.items() if not key.endswith(statistics)}
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    model(images(1)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.last.weight, kept["last.weight"])
    assert calls == [1]


def test_copies_compute_the_same():
    model, x = to_group_norm(randomized(Block())), images(2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert str(other) == str(model)
        assert torch.equal(other(x), model(x))


def test_each_example_has_a_gradient_of_its_own():
    """What training with differential privacy asks for, by ``torch.func``."""
    model, x = to_group_norm(randomized(Block())), images(3)
    parameters = dict(model.named_parameters())

    def loss(parameters, example):
        return torch.func.functional_call(model, parameters, (example[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(3):
        model.zero_grad()
        model(x[i : i + 1]).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert torch.allclose(each[name][i], parameter.grad, rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize(
    ("channels", "groups"),
    [*((1, 1), (3, 1), (16, 1), (31, 1), (32, 2), (48, 3), (64, 4), (67, 1), (72, 4)),
     *((100, 5), (512, 32), (960, 32), (1000, 25), (1024, 32), (2048, 32))],
)  # fmt: skip
def test_the_groups_have_at_least_16_channels_and_are_at_most_32(channels, groups):
    layer = to_group_norm(nn.BatchNorm1d(channels))
    assert layer.num_groups == groups
    assert layer.num_channels == channels


FAMILY = [
    *(nn.BatchNorm1d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4), companion.BatchNorm2d(4)),
    *(companion.SyncBatchNorm(4), variants.GhostBatchNorm2d(4, ghost_size=2)),
    *(variants.BatchRenorm2d(4), variants.NoisyBatchNorm2d(4)),
    *(nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)),
    *(companion.BatchNorm2d(4, bias=False), companion.BatchNorm2d(4, skip_nonfinite=True)),
    companion.convert_sync(nn.BatchNorm2d(4)),
]


@pytest.mark.parametrize("layer", FAMILY, ids=lambda layer: type(layer).__name__)
def test_layers_of_the_family_and_of_pytorch_become_plain_ones(layer):
    weight, bias = layer.weight, layer.bias
    changed, report = to_group_norm(layer, 2, report=True)
    assert changed is layer
    assert type(layer) is GroupNorm
    assert layer.weight is weight
    assert layer.bias is bias
    assert not list(layer.buffers())
    assert not hasattr(layer, "momentum")
    assert str(report).endswith("is now companion.variants.GroupNorm, 2 groups\n1 changed, 0 left "
                                "alone")  # fmt: skip
    x = images(3, channels=4).float()
    assert torch.equal(copy.deepcopy(layer)(x), group_norm(x, 2, weight, bias, layer.eps))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("make", [companion.BatchNormAct2d, companion.SyncBatchNormAct])
def test_a_relu_and_a_residual_are_not_lost(make, relu):
    layer, report = to_group_norm(randomized(make(4, relu=relu)), 2, report=True)
    x, residual = images(2, 4), images(2, 4, seed=2)
    act = torch.relu if relu else nn.Identity()
    y = group_norm(x, 2, layer.weight, layer.bias)
    assert torch.equal(layer(x), act(y))
    assert torch.equal(layer(x, residual), act(y + residual))
    assert report.changed[0].after.endswith("2 groups, then relu" if relu else "2 groups")
    assert ("relu" in str(layer)) == relu


class Residual(nn.Module):
    """What ``convert(fuse=True)`` changes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + x)


def test_a_fused_model_becomes_what_it_would_without():
    plain = randomized(Residual())
    fused = companion.convert(copy.deepcopy(plain), fuse=True)
    assert type(fused) is not type(plain)
    x = images(2, 4)
    divided = companion.convert_domains(copy.deepcopy(fused), ["a", "b"])
    with companion.in_domain(divided, "b"):
        assert torch.allclose(divided(x), copy.deepcopy(plain)(x), rtol=0, atol=1e-12)
    assert torch.equal(to_group_norm(fused, 2)(x), to_group_norm(plain, 2)(x))


@pytest.mark.parametrize("convert", [lambda model: model, companion.convert])
def test_what_another_librarys_layer_does_afterwards_is_not_lost(convert):
    layer = convert(randomized(NormAct(4, act=nn.SiLU())))
    to_group_norm(layer, 2)
    x = images(2, 4)
    expected = nn.functional.silu(group_norm(x, 2, layer.weight, layer.bias))
    assert torch.equal(layer(x), expected)
    assert "then act" in str(layer)


def test_a_parametrized_layer_stays_parametrized():
    layer = nn.BatchNorm2d(4)
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Softplus(), unsafe=True)
    to_group_norm(layer, 2)
    assert isinstance(layer, GroupNorm)
    x = images(2, 4).float()
    expected = group_norm(x, 2, nn.functional.softplus(torch.ones(4)), layer.bias)
    assert torch.allclose(layer(x), expected)


def test_layers_that_do_not_depend_on_the_batch_are_left_alone():
    model = nn.Sequential(
        *(variants.freeze(nn.BatchNorm2d(4)), Frozen(4), nn.GroupNorm(2, 4)),
        nn.InstanceNorm2d(4, track_running_stats=True),
    )
    before = [type(layer) for layer in model]
    _, report = to_group_norm(model, report=True)
    assert [type(layer) for layer in model] == before
    reasons = {left.layer: left.reason for left in report.left}
    assert reasons == {"0": "frozen", "1": "frozen", "3": "instance normalization"}
    assert report.changed == ()


REFUSED = [
    (variants.MaskedBatchNorm2d(4), "MaskedBatchNorm2d in '1': it takes mask"),
    (variants.DecorrelatedBatchNorm2d(4), "DecorrelatedBatchNorm2d in '1': it is not known"),
    (variants.IterNorm2d(4, track_running_stats=False), "IterNorm2d in '1': it is not known"),
    (Unknown(4), "Unknown in '1': it is not known to be batch normalization, see register"),
    (Doubled(4), "Doubled in '1': its forward function calls that of batch normalization"),
    (nn.LazyBatchNorm2d(), "LazyBatchNorm2d in '1': lazy"),
]


@pytest.mark.parametrize(("layer", "message"), REFUSED, ids=lambda value: str(value)[:20])
def test_a_layer_that_would_go_on_mixing_examples_is_refused(layer, message):
    model = nn.Sequential(nn.BatchNorm2d(4), layer)
    with pytest.raises(TypeError, match=message):
        to_group_norm(model)
    assert type(model[0]) is nn.BatchNorm2d
    assert model[0].running_mean is not None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), TypeError, "model: expected a torch.nn.Module, got list"),
        ((nn.BatchNorm2d(6), 4), ValueError, "a divisor of the 6 channels of 'the model', got 4"),
        ((nn.BatchNorm2d(6), 0), ValueError, "num_groups: expected a divisor of the 6 channels"),
        ((nn.BatchNorm2d(6), "2"), TypeError, "num_groups: expected an integer, or a function"),
        ((nn.BatchNorm2d(6), lambda c: c / 2), TypeError, "that returns one, got 3.0"),
        ((nn.BatchNorm2d(6, eps=0.0),), ValueError, "model: expected ε above 0, got 0.0 in 'the m"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        to_group_norm(*arguments)


def test_one_value_in_a_group_is_refused_at_the_call():
    """The pain: another tool's groups turn (N, C) into zeros, up to rounding."""
    x = torch.randn(8, 4)
    assert nn.GroupNorm(4, 4)(x).abs().max() < 1e-3
    with pytest.raises(ValueError, match="input: expected more than 1 value"):
        to_group_norm(nn.BatchNorm1d(4), 4)(x)
    assert to_group_norm(nn.BatchNorm1d(4))(x).abs().max() > 0.5
