"""Fused blocks: equal to what they were, whatever is done to them, and refused where in doubt."""

import copy
import io
import operator
from functools import wraps

import pytest
import torch
from torch import nn
from torch._dynamo.exc import UserError
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import companion
from companion import convert
from companion.conversion import pending
from companion.conversion.fusion import fuse
from companion.inference import fold


@pytest.fixture
def kernel_calls(monkeypatch):
    """Layers that ran in one pass with what follows."""
    calls, dispatch = [], pending.dispatch

    def counted(function, arguments, backend):
        calls.append(arguments)
        return dispatch(function, arguments, backend)

    monkeypatch.setattr(pending, "dispatch", counted)
    return calls


class Basic(nn.Module):
    """ResNet's block, as torchvision writes it."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    # With fewer channels, the last in memory, oneDNN's gradient of a 1×1 convolution with stride 2
    # corrupts memory on processors that have AVX2 and no AVX-512.
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 16, 2))
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        return self._forward_impl(x)

    def _forward_impl(self, x):
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = self.layer1(x)
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    """DenseNet's, which normalizes before it convolves."""

    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 6, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 2, 3, padding=1, bias=False)

    def bottleneck(self, inputs):
        return self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1))))

    def forward(self, input):
        features = [input] if isinstance(input, torch.Tensor) else input
        return self.conv2(self.relu2(self.norm2(self.bottleneck(features))))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.layers = nn.ModuleList([DenseLayer(4), DenseLayer(6), DenseLayer(8)])
        self.norm, self.fc = nn.BatchNorm2d(10), nn.Linear(10, 2)

    def forward(self, x):
        features = [self.conv(x)]
        for layer in self.layers:
            features.append(layer(features))
        out = F.relu(self.norm(torch.cat(features, 1)), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))


class ConvNormReLU(nn.Sequential):
    def __init__(self, inputs, outputs, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(ConvNormReLU(3, 4), ConvNormReLU(4, 4))
        self.middle = nn.Sequential(ConvNormReLU(4, 8, 2), ConvNormReLU(8, 4))
        self.up = nn.Sequential(ConvNormReLU(8, 4), nn.Conv2d(4, 1, 1))

    def forward(self, x):
        skip = self.down(x)
        wide = F.interpolate(self.middle(skip), size=skip.shape[2:])
        return self.up(torch.cat([skip, wide], 1)).mean((2, 3))


class Lists(nn.Module):
    """Layers in lists, called in a loop, as networks on graphs are written."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 5, 3)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(5)])
        self.act = F.relu

    def forward(self, x):
        for conv, bn in zip(self.convs, self.bns, strict=False):
            x = conv(x)
            x = bn(x)
            x = self.act(x)
        return self.convs[-1](x).mean((2, 3))


def mobile_net():
    return nn.Sequential(
        *(ConvNormReLU(3, 6, 2), ConvNormReLU(6, 6, groups=6), ConvNormReLU(6, 8, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
    )


def vgg():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
    )


# With how many layers run in one pass with a ReLU.
NETWORKS = [(ResNet, 5), (DenseNet, 7), (UNet, 5), (Lists, 2), (mobile_net, 3), (vgg, 2)]


def pair(network, dtype=torch.float32):
    """A converted network, and one that is fused, too."""
    torch.manual_seed(0)
    plain = convert(network().to(dtype))
    fused = copy.deepcopy(plain)
    return plain, fused, fuse(fused)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("network", "count"), NETWORKS)
def test_networks_learn_as_before(network, count, dtype, layout, kernel_calls):
    plain, fused, outcomes = pair(network, dtype)
    assert list(outcomes.values()).count(None) == count
    inputs = torch.randn(4, 4, 3, 12, 12, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {}
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (plain, fused)]
    for x in inputs[:3]:
        for model, optimizer in zip((plain, fused), optimizers, strict=True):
            model.to(memory_format=layout)
            optimizer.zero_grad()
            model(x.to(memory_format=layout)).square().mean().backward()
            optimizer.step()
    assert len(kernel_calls) == 3 * count
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, **tolerance)
    expected = plain.eval()(inputs[3])
    torch.testing.assert_close(fused.eval()(inputs[3]), expected, **tolerance)
    assert len(kernel_calls) == 4 * count


class Forms(nn.Module):
    """What the forms below have at hand."""

    def __init__(self):
        super().__init__()
        self.conv, self.side = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.bn, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6()
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
        self.stack = nn.ModuleList([nn.BatchNorm2d(4), nn.ReLU()])
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.bodies = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), copy.deepcopy(self.body))])
        self.identity, self.attention, self.flag = nn.Identity(), nn.Tanh(), True
        # Registered, as what was a module before.
        self.attention = None
        for layer in (self.bn, self.other, self.stack[0]):
            nn.init.uniform_(layer.weight, -1, 1)
            nn.init.uniform_(layer.bias, -1, 1)

    def method(self, x):
        return 2 * x


def nested(self, x):
    return self.relu(self.bn(self.conv(x)))


def functional(self, x):
    return F.relu(self.bn(x), inplace=True) + torch.relu(input=x)


def of_torch(self, x):
    y: torch.Tensor = torch.relu(self.bn(self.conv(x)))
    return 2 * y


def method(self, x):
    return self.bn(x).relu()


def in_place(self, x):
    x = self.bn(x)
    x.relu_()
    return x


def in_place_method_returned(self, x):
    out = self.bn(x)
    return out.relu_()


def assigned(self, x):
    out: torch.Tensor = self.bn(x)
    y = torch.relu_(out)
    return self.side(y)


def sum_to_the_right(self, x):
    return F.relu(x + self.bn(self.conv(x)))


def sum_to_the_left(self, x):
    return F.relu(self.bn(self.conv(x)) + self.side(x))


def sum_of_torch(self, x):
    y = self.bn(x)
    y = torch.add(x, y)
    return self.relu(y)


def sum_of_operator(self, x):
    return operator.add(self.bn(x), x).relu()


def sum_by_method(self, x):
    return self.bn(x).add(x).relu()


def sum_in_place(self, x):
    out = self.bn(x)
    out.add_(x)
    return F.relu(out)


def sum_of_two_layers(self, x):
    return self.relu(self.bn(self.conv(x)) + self.other(x))


def sum_into_another(self, x):
    h = self.bn(x)
    y = h + x
    return self.relu(y)


def with_code_between(self, x):
    out = self.conv(x)
    out = self.bn(out)
    if x.shape[2] > 2 and self.flag:
        x = x.clone()
        x = torch.sigmoid(self.block(x))
    out += x
    return self.relu(out)


def in_a_list(self, x):
    return self.stack[1](self.stack[0](x))


def sequence(self, x):
    return F.relu(x + self.body(x))


def nested_sequences(self, x):
    y = self.bodies[0](x)
    y += self.block(x.clone())
    return self.relu(y)


def with_defaults(self, x, scale=2.0, *rest, shift=None, **others):
    out = self.relu(self.bn(x))
    if shift is not None:
        out = out + shift
    return out * scale if not rest else out * rest[0] * others.get("more", 1)


def with_a_lambda(self, x):
    return (lambda z: self.relu(self.bn(z)))(x)


def in_a_condition(self, x):
    if self.training:
        x = self.bn(x)
        x = self.relu(x)
    return x


def left_between(self, x):
    out = self.bn(x)
    if not self.flag:
        return x
    return self.relu(out)


def used_in_a_branch(self, x):
    """As timm's ResNet does with what a block may have."""
    out = self.bn(x)
    out = self.identity(out)
    if self.attention is not None:
        out = out * self.attention(out)
    if x is None:
        x = out
    out += x
    return self.relu(out)


FUSED = [
    *(nested, functional, of_torch, method, in_place, in_place_method_returned, assigned),
    *(sum_to_the_right, sum_to_the_left, sum_of_torch, sum_of_operator, sum_by_method),
    *(sum_in_place, sum_of_two_layers, sum_into_another, with_code_between, in_a_list),
    *(with_defaults, with_a_lambda, in_a_condition, left_between, used_in_a_branch),
    *(sequence, nested_sequences),
]


def with_forward(forward):
    torch.manual_seed(0)
    made = type("Made", (Forms,), {"forward": forward})()
    return convert(made.double())


def assert_equal_in_both_modes(plain, fused, **options):
    for training in (True, False):
        results = []
        for model in (plain, fused):
            torch.manual_seed(1)
            x = torch.randn(3, 4, 5, 5, dtype=torch.float64, requires_grad=True)
            model.train(training).zero_grad()
            # Not a leaf, so that it may be changed in place.
            y = model(x * 1.0, **options)
            y.square().sum().backward()
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            results.append([y.detach(), x.grad, *grads, *model.buffers()])
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("forward", FUSED)
def test_forms_that_are_fused(forward, kernel_calls):
    plain, fused = with_forward(forward), with_forward(forward)
    outcomes = fuse(fused)
    assert None in outcomes.values()
    assert_equal_in_both_modes(plain, fused)
    assert len(kernel_calls) == (1 if forward is in_a_condition else 2)
    for model in (plain, fused):
        model.flag, model.attention, model.identity = False, nn.Sigmoid(), nn.Tanh()
    assert_equal_in_both_modes(plain, fused)


def used_twice(self, x):
    out = self.bn(x)
    return self.relu(out) + out


def used_after(self, x):
    out = self.bn(x)
    y = out + x
    z = self.relu(y)
    return z + y


def in_place_on_a_used_one(self, x):
    out = self.bn(x)
    self.relu(out)
    return out


def another_activation(self, x):
    return self.relu6(self.bn(x))


def returned(self, x):
    return self.bn(x)


def two_sums(self, x):
    out = self.bn(x)
    out += x
    out += x
    return self.relu(out)


def into_the_other(self, x):
    y = self.side(x)
    y += self.bn(x)
    return self.relu(y)


def input_changed_between(self, x):
    out = self.bn(x)
    x = self.block(x)
    out += x
    return self.relu(out)


def input_changed_by_hand(self, x):
    y = self.conv(x)
    z = y
    y = self.bn(y)
    z.mul_(2)
    return self.relu(y + z)


def called_again(self, x):
    out = self.bn(self.conv(x))
    y = self.bn(x)
    out += y
    return self.relu(out)


def by_a_method(self, x):
    out = self.bn(self.conv(x))
    out += self.method(x)
    return self.relu(out)


def perhaps(self, x):
    out = self.bn(x)
    if self.flag:
        out = self.relu(out)
    return out


def perhaps_in_an_expression(self, x):
    out = self.bn(x)
    return self.relu(out) if self.flag else x


def left_by_a_loop(self, x):
    out = self.bn(x)
    for _ in range(2):
        if not self.flag:
            return x
    return self.relu(out)


def into_a_part_that_is_there(self, x):
    out = self.bn(x)
    if self.relu6 is not None:
        out = self.relu6(out)
    return self.relu(out)


def alpha(self, x):
    return self.relu(torch.add(self.bn(x), x, alpha=2))


def looks_at_itself(self, x):
    out = self.bn(x)
    assert_nothing = locals()
    out = self.relu(out)
    return out if assert_nothing else x


def in_a_try(self, x):
    try:
        out = self.bn(x)
        out = self.relu(out)
    except ValueError:
        return x
    return out


def handed_on(self, x):
    out = self.bn(self.conv(x))
    y = Forms.method(self, x)
    return self.relu(out + y)


REFUSED = [
    (used_twice, "its output is used elsewhere, too"),
    (used_after, "its output is used elsewhere, too"),
    (in_place_on_a_used_one, "its output is used elsewhere, too"),
    (another_activation, "ReLU6 follows, not a ReLU"),
    (returned, "the code returns its output"),
    (two_sums, "more than one sum follows, not a ReLU"),
    (into_the_other, "no ReLU follows"),
    (input_changed_between, "its input may be changed before the ReLU"),
    (input_changed_by_hand, "its input may be changed before the ReLU"),
    (called_again, "it may be called again before the ReLU"),
    (by_a_method, "self.method is called before the ReLU"),
    (perhaps, "the code returns its output"),
    (perhaps_in_an_expression, "what follows it depends on a condition"),
    (left_by_a_loop, "the code may be left before a ReLU"),
    (into_a_part_that_is_there, "ReLU6 follows, not a ReLU"),
    (alpha, "no ReLU follows"),
    (looks_at_itself, "the code around it shares its variables"),
    (in_a_try, "it stands in a block that expects errors"),
    (handed_on, "other code gets self before the ReLU"),
]


@pytest.mark.parametrize(("forward", "reason"), REFUSED)
def test_forms_that_are_refused(forward, reason, kernel_calls):
    plain, fused = with_forward(forward), with_forward(forward)
    cls = type(fused)
    assert fuse(fused)["bn"] == reason
    assert type(fused) is cls
    # Without gradients: of some of these, PyTorch has none in training.
    x = torch.randn(3, 4, 5, 5).double()
    with torch.no_grad():
        assert torch.equal(plain(x.clone()), fused(x.clone()))
    assert kernel_calls == []


class Below(Forms):
    """Code that its class gives a meaning: ``super()``, a private name, a closure."""

    def __init__(self):
        super().__init__()
        self.__scale = 3

    @torch.jit.ignore
    def forward(self, x):
        return self.relu(self.bn(x)) * self.__scale + super().method(x) + sum(len(NETWORKS) * [1])


def test_code_that_needs_its_class(kernel_calls):
    x = torch.randn(2, 4, 3, 3)
    plain, fused, outcomes = pair(Below)
    assert outcomes["bn"] is None
    assert torch.equal(plain(x), fused(x))
    assert len(kernel_calls) == 1


def test_arguments_stay():
    plain, fused = with_forward(with_defaults), with_forward(with_defaults)
    fuse(fused)
    assert_equal_in_both_modes(plain, fused, shift=torch.tensor(1.0), scale=3.0)
    x = torch.randn(2, 4, 3, 3).double()
    plain.eval(), fused.eval()
    assert torch.equal(fused(x, 1.0, 2.0, more=3), plain(x, 1.0, 2.0, more=3))
    with pytest.raises(TypeError, match=r"with_defaults\(\) missing 1 required positional"):
        fused()


def test_branches_and_attributes_stay_alive():
    plain, fused, _ = pair(lambda: Basic(4, 4))
    x = torch.randn(2, 4, 5, 5)
    downsample = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    for model in (plain, fused):
        model.downsample, model.relu = downsample, nn.Tanh()
    torch.testing.assert_close(fused(x), plain(x))
    for model in (plain, fused):
        model.relu, model.bn2 = nn.ReLU(), nn.Identity()
    torch.testing.assert_close(fused(x), plain(x))


def test_what_a_model_is_stays():
    plain, fused, _ = pair(ResNet)
    block = fused.layer1[0]
    assert isinstance(block, Basic)
    assert repr(fused) == repr(plain)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in block.children()] == [type(m) for m in plain.layer1[0].children()]
    # Blocks alike have one class, which a compiler then sees once.
    assert type(pair(lambda: Basic(3, 5))[1]) is type(block)
    assert convert(fused, to="torch") is fused
    assert type(block) is Basic
    assert type(block.bn1) is nn.BatchNorm2d


def test_a_model_that_was_not_converted():
    plain, model = copy.deepcopy(ResNet()), ResNet()
    model.load_state_dict(plain.state_dict())
    model, report = convert(model, fuse=True, report=True)
    assert len(report.changed) == 6
    assert report.fused == ("bn1", "layer1.0.bn1", "layer1.0.bn2", "layer1.1.bn1", "layer1.1.bn2")
    assert str(report.unfused[0]) == (
        "layer1.1.downsample.1: not fused: no ReLU follows in the same block of code"
    )
    assert str(report).endswith("6 changed, 0 left alone, 5 fused, 1 not")
    x = torch.randn(4, 3, 12, 12)
    torch.testing.assert_close(model(x), plain(x))
    assert (
        convert(nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()), fuse=True)(x[0, 0, :, :2]).min() >= 0
    )
    with pytest.raises(ValueError, match=r"^fuse: expected False on the way to PyTorch, got True"):
        convert(model, to="torch", fuse=True)


@pytest.mark.parametrize(("network", "count"), NETWORKS)
def test_copies_and_files(network, count, kernel_calls):
    _, fused, _ = pair(network)
    x = torch.randn(4, 3, 12, 12)
    expected = fused.eval()(x)
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    for twin in (copy.deepcopy(fused), torch.load(file, weights_only=False)):
        kernel_calls.clear()
        assert torch.equal(twin(x), expected)
        assert len(kernel_calls) == count
        assert [type(m) for m in twin.modules()] == [type(m) for m in fused.modules()]


def test_a_sequential_may_change(kernel_calls):
    model = convert(vgg(), fuse=True)
    x = torch.randn(4, 3, 12, 12)
    convs = model[:6]
    assert torch.equal(convs[:2](x), nn.Sequential(*convs[:2])(x))
    kernel_calls.clear()
    convs[2], convs[4], convs[5] = nn.ReLU6(), nn.Identity(), nn.BatchNorm2d(4)
    convs.append(nn.ReLU())
    reference = nn.Sequential(*copy.deepcopy(convs))
    torch.testing.assert_close(convs(x), reference(x))
    assert kernel_calls == []
    convert(convs)(x)
    assert len(kernel_calls) == 1


def test_hooks_of_a_sequence_are_called(kernel_calls):
    fused, seen = with_forward(sequence), []
    fuse(fused)
    x = torch.randn(2, 4, 5, 5).double()
    fused(x)
    assert len(kernel_calls) == 1
    fused.body.register_forward_hook(lambda *_: seen.append("called"))
    fused(x)
    assert seen == ["called"]
    assert len(kernel_calls) == 1


def test_hooks_are_called(kernel_calls):
    _, fused, _ = pair(lambda: Basic(4, 4))
    x, seen = torch.randn(2, 4, 5, 5), []
    expected = fused.eval()(x)
    kernel_calls.clear()
    for layer in (fused.bn1, fused.relu, fused.bn2):
        handle = layer.register_forward_hook(lambda layer, *_: seen.append(layer))
        torch.testing.assert_close(fused(x), expected)
        handle.remove()
    assert seen == [fused.bn1, fused.relu, fused.relu, fused.bn2]
    # With a hook on the ReLU, neither runs in one pass.
    assert len(kernel_calls) == 2
    handle = register_module_forward_hook(lambda layer, *_: seen.append(layer))
    fused(x)
    handle.remove()
    assert len(seen) == 4 + 7
    fused.bn1.forward = lambda x: 0 * x
    fused.bn2.forward = lambda x: 0 * x
    assert torch.equal(fused(x), x.relu())
    assert len(kernel_calls) == 2


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (companion.freeze, 0),
        (companion.convert_sync, 0),
        (lambda model: model.requires_grad_(False), 5),
        (lambda model: model.double(), 5),
        (lambda model: convert(model, to="torch"), 0),
        (lambda model: parametrize.register_parametrization(model.bn1, "weight", nn.Tanh()), 5),
        (lambda model: parametrize.register_parametrization(model, "scale", nn.Tanh()), 5),
    ],
)
def test_what_may_be_done_to_a_model(change, calls, kernel_calls):
    plain, fused, _ = pair(ResNet)
    for model in (plain, fused):
        model.scale = nn.Parameter(torch.ones(2))
        change(model)
    x = torch.randn(4, 3, 12, 12, dtype=plain.scale.dtype)
    torch.testing.assert_close(fused(x), plain(x))
    assert len(kernel_calls) == calls
    torch.testing.assert_close(fused.eval()(x), plain.eval()(x))
    convert(fused, to="torch")
    assert type(fused.layer1[0]) is Basic
    torch.testing.assert_close(fused(x), plain(x))


def test_the_way_back_below_a_parametrization():
    _, fused, _ = pair(ResNet)
    fused.scale = nn.Parameter(torch.ones(2))
    parametrize.register_parametrization(fused, "scale", nn.Tanh())
    convert(fused, to="torch")
    parametrize.remove_parametrizations(fused, "scale")
    assert type(fused) is ResNet


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole_and_once(dynamic):
    torch.compiler.reset()
    plain, fused, _ = pair(lambda: Basic(4, 4))
    graphs = []

    def backend(module, _):
        graphs.append(module)
        return module.forward

    compiled = torch.compile(fused, fullgraph=True, backend=backend, dynamic=dynamic)
    for n in (5, 7, 8) if dynamic else (5, 5):
        x = torch.randn(n, 4, 6, 6)
        torch.testing.assert_close(compiled(x), plain(x))
    assert len(graphs) == 1
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value)


def exports(model, x):
    """Whether PyTorch exports a model strictly: 2.9 does not if it goes through unequal lists."""
    try:
        torch.export.export(model, (x,), strict=True)
    except UserError:
        return False
    return True


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("network", [lambda: Basic(3, 4, 2), DenseNet, Lists, vgg])
def test_exported_traced_and_folded(network):
    plain, fused, _ = pair(network)
    x = torch.randn(4, 3, 12, 12)
    for model in (plain, fused):
        model(x)
        model.eval()
    expected = plain(x)
    for strict in (True, False) if network is not Lists or exports(plain, x) else (False,):
        exported = torch.export.export(fused, (x,), strict=strict).module()
        torch.testing.assert_close(exported(x), expected)
    folded, report = fold(fused, x)
    torch.testing.assert_close(folded(x), expected)
    _, expected_report = fold(plain, x)
    assert set(report.folded) == set(expected_report.folded)
    if network is not DenseNet:
        # DenseNet's code asks for the type of its argument.
        torch.testing.assert_close(torch.fx.symbolic_trace(fused)(x), expected)
    torch.testing.assert_close(torch.jit.trace(fused, x)(x), expected)


def test_checkpointing_and_transforms():
    plain, fused, _ = pair(ResNet, torch.float64)
    inputs = torch.randn(3, 4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    grads = []
    for model in (plain, fused):
        checkpoint(model, inputs[0], use_reentrant=False).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(list(fused.buffers()), list(plain.buffers()))
    for model in (plain, fused):
        model.eval()
    torch.testing.assert_close(torch.vmap(fused)(inputs), torch.vmap(plain)(inputs))
    tangent = torch.ones_like(inputs[0])
    both = [torch.func.jvp(model, (inputs[0],), (tangent,)) for model in (plain, fused)]
    torch.testing.assert_close(*both)


def test_autocast():
    plain, fused, _ = pair(ResNet)
    x, outputs = torch.randn(4, 3, 12, 12), []
    for model in (plain, fused):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(model(x))
    assert outputs[0].dtype is outputs[1].dtype is torch.bfloat16
    torch.testing.assert_close(*outputs, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize(
    "residual",
    [
        torch.randn(1, 4, 1, 1),
        torch.randn(1, 4, 5, 5),
        torch.randn(3, 4, 5, 5).double(),
        torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last),
        2.0,
    ],
)
def test_sums_that_the_kernel_does_not_take(residual, kernel_calls):
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x, y):
            left, right = F.relu(self.bn(x) + y), F.relu(y + self.bn(x))
            out = self.bn(x)
            out += y
            return left, right, F.relu(out)

    plain, fused, outcomes = pair(Added)
    x = torch.randn(3, 4, 5, 5)
    for one, other in zip(plain(x, residual), fused(x, residual), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
        assert one.dtype == other.dtype
    assert outcomes == {"bn": None}
    assert kernel_calls == []


def checked(function):
    @wraps(function)
    def wrapper(self, *args):
        return function(self, *args) + 1

    return wrapper


class Told(Forms):
    def __init_subclass__(cls):
        cls.told = True


class Meta(type):
    pass


def made(**methods):
    return type("Made", (Forms,), {"forward": nested, **methods})()


def without_source():
    names = {}
    exec(compile("def forward(self, x):\n    return self.relu(self.bn(x))\n", "<x>", "exec"), names)
    return made(forward=names["forward"])


def edited():
    names = {}
    code = (
        "\n" * (nested.__code__.co_firstlineno - 1)
        + "def nested(self, x):\n    return x + self.bn(x)"
    )
    exec(compile(code, __file__, "exec"), names)
    return made(forward=names["nested"])


def with_hooks(name):
    model = made()
    getattr(model, name).register_forward_hook(lambda *_: None)
    return model


def with_a_forward():
    model = made()
    model.forward = lambda x: model.bn(x)
    return model


def with_another_name():
    model = made()
    model.again = nn.Sequential(model.bn)
    return model


def parametrized():
    model = made()
    model.scale = nn.Parameter(torch.ones(2))
    parametrize.register_parametrization(model, "scale", nn.Tanh())
    return model


OBSTACLES = [
    (without_source, "the source of forward is not available"),
    (edited, "the source of nested is not what runs"),
    (lambda: made(forward=checked(nested)), "no code of the model calls it by its name"),
    (lambda: with_hooks("bn"), "BatchNorm2d has hooks, or its own forward"),
    (lambda: with_hooks("relu"), "ReLU with hooks follows, not a ReLU"),
    (with_a_forward, "Made, which holds it, has a forward function set on the instance"),
    (with_another_name, "it has several names"),
    (
        lambda: torch.fx.symbolic_trace(made()),
        "Made, which holds it, was made by torch.jit or torch.fx",
    ),
    (parametrized, "ParametrizedMade, which holds it, has parametrizations"),
    (
        lambda: type("Made", (Told,), {"forward": nested})(),
        "Made, which holds it, has a class that does more than be inherited from",
    ),
    (
        lambda: Meta("Made", (Forms,), {"forward": nested})(),
        "Made, which holds it, has a class that does more than be inherited from",
    ),
]


@pytest.mark.parametrize(("make", "reason"), OBSTACLES)
def test_blocks_that_are_refused(make, reason, kernel_calls):
    model = make()
    convert(model)
    cls, x = type(model), torch.randn(2, 4, 3, 3)
    expected = model(x)
    assert fuse(model)["bn"] == reason
    assert type(model) is cls
    assert torch.equal(model(x), expected)
    assert kernel_calls == []
