"""Other libraries' layers: converted below their own class, held against what they were."""

import copy
import pickle

import pytest
import torch
from _foreign import (
    Abstract,
    AnyRank,
    BelowNormAct,
    Doubled,
    Frozen,
    FrozenAct,
    NormAct,
    Renamed,
    Unknown,
    perturbed,
)
from torch import distributed, fx, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_module
from torch.nn import functional as F
from torch.nn.utils import parametrize

import companion
from companion.modules import _CompanionBatchNorm

LAYERS = {
    "relu": lambda: NormAct(3),
    "silu": lambda: NormAct(3, nn.SiLU(inplace=True)),
    "nothing": lambda: NormAct(3, nn.Identity()),
    "drop": lambda: NormAct(3, drop=nn.Dropout(0.5)),
    "cumulative": lambda: NormAct(3, momentum=None),
    "untracked": lambda: NormAct(3, track_running_stats=False),
    "not affine": lambda: NormAct(3, affine=False, eps=1e-2),
    "below": lambda: BelowNormAct(3),
    "renamed": lambda: Renamed(3),
    "any rank": lambda: AnyRank(3),
    "abstract": lambda: Abstract(3),
    "doubled": lambda: Doubled(3),
    "frozen": lambda: Frozen(3),
    "frozen act": lambda: FrozenAct(3),
}


def run(layer, x, seed=0):
    """Output, gradients and state after a call and a backward pass."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    y = layer(x)
    gradients = torch.autograd.grad(y.pow(3).sum(), [x, *layer.parameters()])
    return [y.detach(), *gradients, *(value.clone() for value in layer.state_dict().values())]


def check_equal(layer, twin, x):
    for training in (True, True, False):
        layer.train(training), twin.train(training)
        for ours, theirs in zip(run(layer, x), run(twin, x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_converted_layer_does_what_it_did(name):
    layer, x = perturbed(LAYERS[name]()), torch.randn(5, 3, 4, 4)
    twin, cls, parts = copy.deepcopy(layer), type(layer), dict(layer.named_modules())
    assert companion.convert(layer) is layer
    assert type(layer) is not cls
    assert isinstance(layer, cls)
    assert repr(layer) == repr(twin)
    assert dict(layer.named_modules()) == parts
    assert layer.state_dict().keys() == twin.state_dict().keys()
    check_equal(layer, twin, x)
    kind = type(layer)
    assert type(companion.convert(layer)) is kind
    assert type(copy.deepcopy(layer)) is kind
    layer = pickle.loads(pickle.dumps(layer))
    assert type(layer) is kind
    check_equal(layer, twin, x)
    companion.convert(layer, to="torch")
    assert type(layer) is cls
    check_equal(layer, twin, x)


def test_the_arithmetic_is_ours():
    """PyTorch's float32 statistics are wrong by far here."""
    x = 1e5 + torch.randn(64, 3, 8, 8)
    expected = (x.double() - x.double().mean((0, 2, 3), keepdim=True)) / x.double().var(
        (0, 2, 3), correction=0, keepdim=True
    ).sqrt()
    for name in ("nothing", "renamed", "any rank", "doubled"):
        layer = companion.convert(LAYERS[name]())
        factor = 2.0 if name == "doubled" else 1.0
        torch.testing.assert_close(
            layer(x).double(), factor * expected, rtol=1e-2, atol=1e-2, msg=name
        )


def test_a_relu_is_fused_unless_it_would_be_seen():
    def saved(layer):
        sizes = []
        pack = lambda tensor: sizes.append(tensor.numel()) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layer(torch.randn(4, 3, 16, 16, requires_grad=True))
        return sum(size > 100 for size in sizes)

    layer = companion.convert(NormAct(3, nn.ReLU()))
    alone = saved(layer)
    calls = []
    layer.act.register_forward_hook(lambda *_: calls.append(1))
    assert saved(layer) == alone + 1
    assert calls == [1]


def test_half_precision_there_and_back():
    layer, x = perturbed(NormAct(3, nn.SiLU())), torch.randn(8, 3, 4, 4).half()
    companion.convert(layer).half()
    assert layer.running_mean.dtype == torch.float32
    y = layer(x)
    back = companion.convert(copy.deepcopy(layer), to="torch")
    assert back.running_mean.dtype == torch.float16
    torch.testing.assert_close(back(x), y, rtol=1e-2, atol=1e-2)


def test_a_parametrized_layer_is_swapped_below():
    layer, x = perturbed(NormAct(3)), torch.randn(4, 3, 2, 2)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    twin = copy.deepcopy(layer)
    companion.convert(layer)
    assert isinstance(layer, _CompanionBatchNorm)
    check_equal(layer, twin, x)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(companion.convert(layer, to="torch")) is NormAct


def test_converted_layers_compile_as_one_graph():
    torch.compiler.reset()
    model = nn.Sequential(NormAct(3), NormAct(3, nn.SiLU()), Doubled(3), Frozen(3))
    twin = copy.deepcopy(model)
    compiled = torch.compile(companion.convert(model), fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(compiled(x), twin(x), rtol=2e-5, atol=2e-5)
    assert model[0].num_batches_tracked.item() == 1


def test_methods_of_the_class_stay_its_own():
    layer = companion.convert(BelowNormAct(3))
    layer.reset_parameters()
    assert layer.weight.tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="at least two axes"):
        companion.convert(AnyRank(3))(torch.zeros(3))
    assert companion.convert(AnyRank(3))(torch.randn(2, 3, 1, 1, 1, 1)).ndim == 6


def test_statistics_are_served_by_the_contexts():
    model = nn.Sequential(companion.convert(NormAct(3)))
    with companion.finite_statistics(model):
        model(torch.full((2, 3, 2, 2), float("inf")))
    assert model[0].running_mean.tolist() == [0.0] * 3
    batches = [torch.randn(4, 3, 2, 2) + 3.0 for _ in range(3)]
    companion.update_precise(model, batches)
    torch.testing.assert_close(model[0].running_mean, torch.cat(batches).mean((0, 2, 3)))


class Scaled(nn.BatchNorm2d):
    """Claims more than it does, or less."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.act = nn.ReLU()

    def forward(self, x):
        y = F.batch_norm(x, self.running_mean, self.running_var, training=self.training)
        return self.act(y) * 1.1


class Needy(Scaled):
    def __init__(self, width, num_features):
        super().__init__(width * num_features)

    def forward(self, x):
        raise RuntimeError(f"no {x.ndim} axes")


REFUSED = [
    (nn.BatchNorm2d(3), {}, TypeError, "^cls: expected a class of modules, got BatchNorm2d"),
    (nn.GroupNorm, {}, TypeError, "^cls: expected a subclass of .* frozen=True, got GroupNorm"),
    (Scaled, {"then": "act"}, TypeError, "^then: expected names of submodules in a tuple"),
    (Needy, {}, TypeError, r"^example: expected a layer of Needy, since Needy\(4\) fails"),
    (Needy, {"example": Scaled(3)}, TypeError, "^example: expected a layer of Needy, got"),
    (Needy, {"example": Needy(1, 3)}, ValueError, "expected .* that take a batch.*no 5 axes"),
    (Scaled, {}, ValueError, "^cls: expected batch normalization, got Scaled, whose output"),
    (Scaled, {"then": ("act",)}, ValueError, "normalization, then act, got Scaled, .* 4 axes"),
    (FrozenAct, {"frozen": True}, ValueError, "^cls: expected layers with eps, got FrozenAct"),
    (NormAct, {"frozen": True}, ValueError, "expected frozen batch norm.* in training mode"),
]


@pytest.mark.parametrize(("cls", "options", "error", "message"), REFUSED)
def test_a_claim_that_is_not_true_is_refused(cls, options, error, message):
    with pytest.raises(error, match=message):
        companion.register_batch_norm(cls, **options)
    assert type(companion.convert(Scaled(3))) is Scaled


def test_what_follows_only_in_training_is_noticed():
    class Noisy(NormAct):
        def forward(self, x):
            return super().forward(x) + self.training

    with pytest.raises(ValueError, match=r"got Noisy, whose output .* in training mode"):
        companion.register_batch_norm(Noisy, then=("drop", "act"))
    # It calls a forward of another class, in whose words it is not known.
    assert type(companion.convert(Noisy(3))) is Noisy


def test_an_example_takes_the_place_of_the_constructor():
    class Wide(Unknown):
        def __init__(self, num_features, width):
            super().__init__(num_features * width)

        def forward(self, x):
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, self.training)

    companion.register_batch_norm(Wide, example=Wide(2, 3))
    assert isinstance(companion.convert(Wide(2, 2)), _CompanionBatchNorm)


def test_the_report_says_what_became_of_each_layer():
    model = nn.ModuleDict(
        {
            "plain": nn.BatchNorm1d(3),
            "act": NormAct(3, nn.SiLU()),
            "doubled": Doubled(3),
            "any": AnyRank(3),
            "frozen": FrozenAct(3),
            "unknown": Unknown(3),
            "lazy": nn.LazyBatchNorm2d(),
            "sync": nn.SyncBatchNorm(3),
            "instance": nn.InstanceNorm2d(3, track_running_stats=True),
            "other": nn.InstanceNorm2d(3),
            "patched": nn.BatchNorm2d(3),
            "ours": companion.BatchNorm2d(3),
            "more": companion.variants.GhostBatchNorm2d(3, ghost_size=2),
            "linear": nn.LazyLinear(3),
        }
    )
    model["patched"].forward = model["patched"].forward
    returned, report = companion.convert(model, report=True)
    assert returned is model
    assert str(report).splitlines() == [
        "plain: torch.nn.BatchNorm1d is now companion.BatchNorm1d",
        "act: _foreign.NormAct is now companion.BatchNorm2d, then act",
        "doubled: _foreign.Doubled is now companion.BatchNorm2d, called by its own forward",
        "any: _foreign.AnyRank is now companion.functional.batch_norm",
        "frozen: _foreign.FrozenAct is now companion.functional.batch_norm, frozen, then act",
        "unknown: _foreign.Unknown left alone: _foreign.Unknown.forward is not known to be batch "
        "normalization, see register_batch_norm",
        "lazy: torch.nn.LazyBatchNorm2d left alone: lazy: it has no parameters before its first "
        "call",
        "sync: torch.nn.SyncBatchNorm left alone: synchronized over processes, which convert_sync "
        "serves",
        "instance: torch.nn.InstanceNorm2d left alone: instance normalization",
        "patched: torch.nn.BatchNorm2d left alone: a forward function was set on the instance, and "
        "would go on calling what it was",
        "5 changed, 5 left alone",
    ]
    _, report = companion.convert(model, to="torch", report=True)
    assert str(report).splitlines()[:2] == [
        "plain: companion.BatchNorm1d is now torch.nn.BatchNorm1d",
        "act: companion.BatchNorm2d, then act is now _foreign.NormAct",
    ]
    assert [(left.layer, left.reason) for left in report.left] == [
        ("more", "PyTorch has no layer that does what it does")
    ]
    assert len(report.changed) == 6


def test_sharded_layers_are_left_alone():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model = distribute_module(nn.Sequential(nn.BatchNorm1d(3)), mesh)
        _, report = companion.convert(model, report=True)
    finally:
        distributed.destroy_process_group()
    assert type(model[0]) is nn.BatchNorm1d
    assert "sharded (DTensor): convert before sharding" in report.left[0].reason


def test_torch_fx_sees_a_converted_layer_as_one_call():
    model = companion.convert(nn.Sequential(NormAct(3), Frozen(3), Renamed(3)))
    graph = fx.symbolic_trace(model).graph
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert called == ["0", "1", "2"]
