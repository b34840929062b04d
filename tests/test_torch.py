"""What the package uses of PyTorch's private interfaces: there, and still meaning the same.

Each test says what it guards. Where PyTorch is known to have changed the interface, it says in
which release; where not, nothing is known.
"""

import re
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from companion import _torch

PACKAGE = Path(_torch.__file__).parent
PRIVATE = re.compile(
    r"\b(torch|nn|distributed|distributed_c10d|forward_ad|group|backend|options|batchnorm|graph)"
    r"(\.\w+)*\._[a-z]\w*|\bimport torch\._|from torch[\w.]* import _|\._(Batch)?Norm(Base)?\b|"
    r"super\(torch\.autograd\.Function"
)


def test_private_names_stand_in_one_module():
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "_torch.py"]
    lines = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in others
        for line in path.read_text(encoding="utf-8").splitlines()
        if PRIVATE.search(line)
    ]
    assert len(others) > 100
    assert lines == []


def test_batch_norm_base():
    """All five layers are below it. No release is known to have moved it."""
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
        assert issubclass(kind, _torch.BatchNormBase)
    assert issubclass(nn.LazyBatchNorm1d, _torch.BatchNormBase)
    assert not issubclass(nn.InstanceNorm1d, _torch.BatchNormBase)


def test_norm_base():
    """It brings parameters, buffers, and how old state dictionaries load; but no forward pass."""
    base = _torch.NormBase
    for kind in (nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d):
        assert issubclass(kind, base)
    assert not issubclass(base, _torch.BatchNormBase)
    assert base._version == nn.BatchNorm1d._version
    for name in ("_load_from_state_dict", "reset_running_stats", "extra_repr", "__constants__"):
        assert getattr(base, name) is getattr(nn.BatchNorm1d, name), name
    assert base.forward is not nn.BatchNorm1d.forward
    layer = base(3, 1e-3, 0.2, True, True, "cpu", torch.float64)
    assert list(layer.state_dict()) == list(nn.BatchNorm1d(3).state_dict())
    assert {value.dtype for value in layer.parameters()} == {torch.float64}


def test_transforms_are_active():
    """Else kernels would read the memory of the wrappers that ``torch.func`` works with."""
    answers = []
    x = torch.ones(2)
    torch.func.vmap(lambda t: answers.append(_torch.transforms_are_active()) or t)(x)
    torch.func.grad(lambda t: answers.append(_torch.transforms_are_active()) or t.sum())(x)
    assert answers == [True, True]
    assert not _torch.transforms_are_active()


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return operation(*args, **(kwargs or {}))


class _Subclass(torch.Tensor):
    pass


def test_is_plain():
    """Five private questions in one: a release that renames one fails here, not in a call."""
    x = torch.ones(2, 3)
    assert _torch.is_plain(x)
    assert _torch.is_plain(nn.Parameter(x))
    assert not _torch.is_plain(torch._neg_view(x))
    assert not _torch.is_plain(x.as_subclass(_Subclass))
    assert not _torch.is_plain(x.to_sparse())
    answers = []
    with forward_ad.dual_level():
        answers.append(_torch.is_plain(x))
    with _Mode():
        answers.append(_torch.is_plain(x))
    torch.func.vmap(lambda t: answers.append(_torch.is_plain(x)) or t)(x)
    torch.jit.trace(lambda t: answers.append(_torch.is_plain(x)) or t + 1, x, check_trace=False)
    assert answers == [False] * 4
    assert _torch.is_plain(x)


def test_forward_modes():
    """Levels are counted: `jacfwd` inside `jacfwd` is two, and `vmap` and `grad` are none."""
    levels = []

    def function(x):
        levels.append(_torch.forward_modes())
        return x.square().sum()

    x = torch.ones(2)
    for transformed in (
        torch.func.vmap(function),
        torch.func.grad(function),
        torch.func.jacfwd(function),
        torch.func.jacfwd(torch.func.jacfwd(function)),
        torch.func.jacfwd(torch.func.grad(function)),
    ):
        transformed(x)
    assert levels == [0, 0, 1, 2, 1]
    assert _torch.forward_modes() == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_in_transform(compiled):
    """A compiler that traces a transform is told, and goes by it."""

    def function(x):
        return 2 * x if _torch.in_transform() else x

    x, sums = torch.ones(2, 3), []
    for called in (function, lambda x: torch.func.vmap(function)(x)):
        if compiled:
            called = torch.compile(called, backend="eager", fullgraph=True)
        sums.append(called(x).sum())
    assert sums == [6, 12]


def test_is_exporting():
    """PyTorch's own answer holds from 2.12 on."""

    class Told(nn.Module):
        def forward(self, x):
            return 2 * x if _torch.is_exporting() else x

    model, x = Told(), torch.ones(3)
    assert model(x).sum() == 3
    assert torch.compile(model, backend="eager", fullgraph=True)(x).sum() == 3
    for strict in (True, False):
        assert torch.export.export(model, (x,), strict=strict).module()(x).sum() == 6


@pytest.mark.parametrize("reentrant", [True, False])
def test_in_backward_pass(reentrant):
    """Recomputation is told by it; PyTorch's own ``module_tracker`` and FSDP ask the same."""
    answers = []

    def segment(x):
        answers.append(_torch.in_backward_pass())
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    checkpoint(segment, x, use_reentrant=reentrant).sum().backward()
    assert answers == [False, True]
    assert not _torch.in_backward_pass()


def test_apply_without_transforms():
    """It is what ``Function.apply`` ends in: same value, same node, same gradient.

    It skips ``apply``, silently: whatever a release adds there is skipped too. In 2.13 that is the
    defaults of functions that define ``setup_context``, the unwrapping of dead ``torch.func``
    wrappers, and the dispatch to transforms.
    """

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor):
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx, grad_y):
            return grad_y * ctx.factor, None

    x = torch.ones(2, requires_grad=True)
    for apply in (_torch.apply_without_transforms(Double), Double.apply):
        y = apply(x, 3.0)
        assert y.tolist() == [3.0, 3.0]
        assert type(y.grad_fn).__name__ == "DoubleBackward"
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == [3.0, 3.0]


def test_steps_in_backward():
    """Optimizers that step in the backward pass register so; else a diagnosis would let them."""
    parameter = nn.Parameter(torch.ones(2))
    assert not _torch.steps_in_backward(parameter)
    called = []
    handle = parameter.register_post_accumulate_grad_hook(called.append)
    assert _torch.steps_in_backward(parameter)
    parameter.sum().backward()
    assert len(called) == 1
    handle.remove()
    assert not _torch.steps_in_backward(parameter)


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_has_hooks(register):
    """Folding would silently drop a hook that is not seen."""
    module = nn.ReLU()
    assert not _torch.has_hooks(module)
    handle = getattr(module, register)(lambda *_: None)
    assert _torch.has_hooks(module)
    handle.remove()
    assert not _torch.has_hooks(module)


@pytest.fixture
def alone(tmp_path):
    """A gloo group of this process alone."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1,
        timeout=timedelta(seconds=77),
    )  # fmt: skip
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_tensors_in():
    """``torch.utils._pytree`` is not said to stay; folding compares all that a model returns."""
    a, b, c = torch.ones(3).unbind()
    tensors = _torch.tensors_in({"a": [a, (b, None)], "c": {"d": c, "e": "text"}})
    assert [t is u for t, u in zip(tensors, (a, b, c), strict=True)] == [True] * 3
    assert _torch.tensors_in(a)[0] is a


def test_group_by_name(alone):
    """A compiled graph holds the name, since it cannot hold the group."""
    other = distributed.new_group([0], backend="gloo")
    assert _torch.group_by_name(alone.group_name) is alone
    assert _torch.group_by_name(other.group_name) is other


def test_gloo_store_and_group(alone):
    """Connections apart from the group's own, with its timeout.

    The timeout's name had no underscore before April 2021: PyTorch's pull request 56531.
    """
    store_and_timeout = _torch.gloo_store(alone, torch.device("cpu"))
    assert store_and_timeout is not None
    store, timeout = store_and_timeout
    assert timeout == timedelta(seconds=77)
    store.set("key", "value")
    assert store.get("key") == b"value"
    group = _torch.gloo_group(store, "ours", 0, 1, timeout)
    assert group.size() == 1
    x = torch.ones(2)
    group.allreduce([x]).wait()
    assert x.tolist() == [1.0, 1.0]


def test_a_group_of_another_backend_has_no_gloo_store():
    class Group:
        def _get_backend(self, _device):
            return object()

    assert _torch.gloo_store(Group(), torch.device("cpu")) is None


@pytest.mark.parametrize("loses", [True, False])
def test_apart(monkeypatch, loses):
    """With PyTorch 2.11 `tests/test_differentiation.py` compiles what would lose its gradients."""
    monkeypatch.setattr(_torch, "_LOSES_GRADIENTS", loses)
    outputs = torch.ones(2), torch.zeros(3)
    assert all(a is b for a, b in zip(_torch.apart(*outputs), outputs, strict=True))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for a, b in zip(_torch.apart(*outputs), outputs, strict=True):
        assert torch.equal(a, b)
        assert (a is b) is not loses


def test_compile_for_timing():
    """With donated buffers a second backward pass through one graph is refused."""
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    # As they were, afterwards; and a setting that does not exist is an error.
    with functorch.patch(donated_buffer=True), inductor.patch(compile_threads=2):
        _torch.compile_for_timing()
        assert functorch.donated_buffer is False
        assert inductor.compile_threads == 1
