"""Models whose code torch.fx cannot follow, and what its own fusion gets wrong."""

import copy

import pytest
import torch
from _frozen import difference, norms, settle, values
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

import companion
from companion.inference import Folded, FoldingError, fold
from companion.inference.frozen import has_hooks


def agrees(model, arguments, folded):
    with torch.no_grad():
        return difference(folded(*arguments), values(model(*arguments))) < 1e-12


def pair(library=nn, channels=3):
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), library.BatchNorm2d(channels))


def images(scale=1.0):
    torch.manual_seed(1)
    return scale * torch.randn(2, 3, 8, 8).double()


class Branching(nn.Module):
    """Control flow on values, around parts that torch.fx could trace."""

    def __init__(self):
        super().__init__()
        self.always, self.bn = pair(), nn.BatchNorm2d(3)
        self.steps = nn.ModuleList([pair(companion) for _ in range(3)])
        self.rarely = pair()

    def forward(self, x):
        y = self.bn(self.always(x))
        for step in self.steps:
            if y.abs().max() > 1e-3:
                y = step(y)
        return self.rarely(y) if x.abs().max() > 100 else y


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner = pair(), Branching()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(self.inner(self.first(x))))


def test_control_flow_is_left_alone_and_its_parts_are_folded():
    model, x = settle(nn.Sequential(Around()).double()), images()
    with pytest.raises(fx.proxy.TraceError):
        fuse(model)
    folded, report = fold(model, x)
    assert set(report.folded) == {
        Folded("0.first.1", "0.first.0", "previous"),
        Folded("0.bn", "0.conv", "previous"),
        Folded("0.inner.always.1", "0.inner.always.0", "previous"),
        *(Folded(f"0.inner.steps.{i}.1", f"0.inner.steps.{i}.0", "previous") for i in range(3)),
    }
    kept = {entry.bn: entry.reason for entry in report.kept}
    assert kept.keys() == {"0.inner.bn", "0.inner.rarely.1"}
    assert "cannot be traced: symbolically traced variables cannot be used" in kept["0.inner.bn"]
    assert type(folded.get_submodule("0.inner")) is Branching
    assert not any(has_hooks(module) for module in [*model.modules(), *folded.modules()])
    for scale in (1.0, 1e-9, 1e6):
        assert agrees(model, (images(scale),), folded)


def test_a_part_in_which_nothing_is_folded_stays_what_it_is():
    model = settle(Branching().double())
    model.steps[1][1].track_running_stats = False
    model.steps[1][1].running_mean = model.steps[1][1].running_var = None
    folded, report = fold(model, images())
    assert [type(step) for step in folded.steps] != [nn.Sequential] * 3
    assert type(folded.steps[1]) is nn.Sequential
    assert "bn: expected running statistics" in {k.bn: k.reason for k in report.kept}["steps.1.1"]


def test_the_model_itself_may_be_what_cannot_be_traced():
    model = settle(Branching().double())
    folded, report = fold(model, images())
    assert (type(folded), len(report.folded), len(report.kept)) == (Branching, 4, 2)
    for scale in (1.0, 1e-9, 1e6):
        assert agrees(model, (images(scale),), folded)
    hooked = settle(pair().double())
    hooked.register_forward_hook(lambda *values: values[-1] * 2)
    folded, report = fold(hooked, images())
    assert agrees(hooked, (images(),), folded)
    assert "it has hooks" in report.kept[0].reason
    patched = settle(pair().double())
    patched.forward = lambda x: 3 * patched[1](patched[0](x))
    folded, report = fold(patched, images())
    assert report.folded == ()
    assert agrees(patched, (images(),), folded)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x, scale=1.0):
        return self.bn(self.conv(x)) * scale


class Reaching(nn.Module):
    """Uses a part of a part: on the way of the example, or only on another."""

    def __init__(self, how):
        super().__init__()
        self.how, self.part = how, Scaled()

    def forward(self, x):
        far = bool(x.abs().max() > 100)
        if self.how == "always" or (self.how == "far" and far):
            return self.part(x) + self.part.conv(x)
        if self.how == "keyword":
            return self.part(x, scale=2.0)
        if self.how == "number":
            return self.part(x, 3.0 if far else 2.0)
        if self.how == "attribute":
            return self.part(x) * (2 if far else self.part.conv.groups)
        return self.part(x)


@pytest.mark.parametrize("how", ["always", "keyword", "number"])
def test_a_part_that_is_not_used_as_a_whole_is_kept(how):
    model = settle(Reaching(how).double())
    folded, report = fold(model, images())
    assert report.folded == ()
    for scale in (1.0, 1e6):
        assert agrees(model, (images(scale),), folded)


def test_a_part_that_is_used_otherwise_on_another_way_fails_there():
    model = settle(Reaching("far").double())
    folded, report = fold(model, images())
    assert len(report.folded) == 1
    assert agrees(model, (images(),), folded)
    with pytest.raises(AttributeError, match="conv"):
        folded(images(1e6))
    with pytest.raises(FoldingError, match=r"^model: expected code that cannot be traced.*'conv'"):
        fold(settle(Reaching("attribute").double()), images())


class Twice(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.inner, self.conv = how, Branching(), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y, part = self.inner(x), self.inner.always
        if self.how == "whole":
            return y + part(self.conv(x))
        if self.how == "part":
            return y + part[0](self.conv(x))
        return y + F.conv2d(self.conv(x), part[0].weight, padding=1)


@pytest.mark.parametrize(("how", "number"), [("whole", 5), ("part", 0), ("weight", 0)])
def test_a_part_of_untraceable_code_that_traced_code_uses_too(how, number):
    model = settle(Twice(how).double())
    folded, report = fold(model, images())
    assert len(report.folded) == number
    for scale in (1.0, 1e6):
        assert agrees(model, (images(scale),), folded)


class Ranks(nn.Module):
    """Calls a part with two axes, and with three, where it is another function."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        y = self.part(x)
        return self.part(y.unsqueeze(-1).expand(-1, -1, 4)) if bool(x.abs().max() > 0) else y


def test_a_part_that_is_called_with_other_axes_is_kept():
    model, x = settle(Ranks().double()), torch.randn(5, 4).double()
    folded, report = fold(model, x)
    assert report.folded == ()
    assert agrees(model, (x,), folded)


# What torch.fx.experimental.optimization.fuse gets wrong, or misses, without a word.


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x)) + self.conv(x.relu())


class TiedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return F.linear(self.bn(self.linear(x)), self.linear.weight.t())


class Tokens(nn.Module):
    """Linear works on the last axis, batch normalization on axis 1, and both have 4."""

    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.bn(self.linear(x))


def hooked():
    model = pair()
    model[0].register_forward_hook(lambda *values: values[-1] * 2)
    return model


WRONG = [
    (SharedConvolution, images),
    (TiedWeights, lambda: torch.randn(5, 4).double()),
    (Tokens, lambda: torch.randn(5, 4, 4).double()),
    (hooked, images),
]


@pytest.mark.parametrize(("make", "example"), WRONG)
def test_where_pytorch_returns_another_function(make, example):
    torch.manual_seed(0)
    model, x = settle(make().double()), example()
    assert not agrees(model, (x,), fuse(model))
    folded, _ = fold(model, x)
    assert agrees(model, (x,), folded)


def partly_training():
    model = nn.Sequential(pair(), pair(), pair())
    settle(model)
    model[1][1].train()
    return model


class Optional(nn.Module):
    """torch.fx takes the branch with a mask, whether there is one or not."""

    def __init__(self):
        super().__init__()
        self.body = pair()

    def forward(self, x, mask=None):
        y = self.body(x)
        return y if mask is None else y * mask


def without_affine():
    layers = nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4, affine=False)
    return settle(nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (partly_training, AssertionError),
        (lambda: settle(Optional()), TypeError),
        (without_affine, TypeError),
    ],
)
def test_where_pytorch_fails(make, error):
    model, x = make().double(), images()
    with pytest.raises(error):
        fuse(model)(x)
    folded, report = fold(model, x)
    assert len(report.folded) > 0
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)
        assert difference(copy.deepcopy(folded)(x), values(expected)) < 1e-12


MISSED = [
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), companion.BatchNorm2d(4)),
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), companion.BatchNormAct2d(4)),
    lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
    lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)),
    lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
    ),
]


@pytest.mark.parametrize("make", MISSED)
def test_what_pytorch_misses(make):
    model, x = settle(make().double()), images()
    before = model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in fuse(model).state_dict().items())
    folded, report = fold(model, x)
    assert len(report.folded) == 1
    assert not norms(folded)
    assert agrees(model, (x,), folded)
