"""First and higher derivatives, function transforms, compilation, export, checkpointing."""

import copy
import shutil

import pytest
import torch
from _layer import DEVICES, SHAPES, ask_oracle, max_difference, numpy64, uniform_parameters
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import companion
from companion import reference
from companion.differentiation import _BatchNorm
from companion.functional import batch_norm
from companion.kernels import eager

FLAGS = [(True, True), (True, False), (False, True), (False, False)]


def double(*shape, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)


def function_of(training, affine, device="cpu"):
    """batch_norm as a function of the tensors that are there, and those tensors' initial values."""
    fixed = (double(3, seed=1, device=device), double(3, seed=2, device=device).exp())
    names = [name for name, there in zip(("weight", "bias"), affine, strict=True) if there]

    def function(x, *parameters):
        state = (None, None) if training else fixed
        return batch_norm(x, *state, training=training, **dict(zip(names, parameters, strict=True)))

    return function, [double(3, seed=5 + i, device=device) for i in range(len(names))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", FLAGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck(shape, affine, training, device):
    function, parameters = function_of(training, affine, device)
    inputs = [t.requires_grad_() for t in (double(*shape, seed=3, device=device), *parameters)]
    modes = {"check_forward_ad": True, "check_batched_grad": True}
    assert gradcheck(function, inputs, check_batched_forward_grad=True, **modes)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", FLAGS)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_gradgradcheck(shape, affine, training):
    function, parameters = function_of(training, affine)
    inputs = [t.requires_grad_() for t in (double(*shape, seed=4), *parameters)]
    modes = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "check_batched_grad": True}
    assert gradgradcheck(function, inputs, **modes)


def test_statistics_are_differentiable_outputs():
    """The backward pass takes gradients of mean and variance, alone and together with y's."""
    from companion.differentiation import _BatchNormForwardMode

    x, weight = double(4, 3).requires_grad_(), double(3, seed=1).requires_grad_()
    for outputs in ([0], [1], [2], [0, 1], [1, 2], [0, 1, 2]):

        def function(x, weight, outputs=tuple(outputs)):
            results = _BatchNormForwardMode.apply(x, weight, None, 1e-5)
            return tuple(results[i] for i in outputs)

        assert gradcheck(function, (x, weight), check_forward_ad=True)
        assert gradgradcheck(function, (x, weight), check_fwd_over_rev=True)


def test_statistics_without_a_gradient_cost_nothing(monkeypatch):
    """Their gradients come as None, not as zeros to be added to the whole activation."""
    seen, backward = [], eager.batch_backward

    def record(grads, *others):
        seen.append(grads)
        return backward(grads, *others)

    monkeypatch.setattr(eager, "batch_backward", record)
    x = double(4, 3).requires_grad_()
    batch_norm(x, None, None, training=True, backend="eager").sum().backward()
    assert seen[0].y is not None
    assert seen[0].mean is seen[0].var is None


def test_fixed_statistics_are_differentiable_inputs():
    from companion.differentiation import _FixedNormForwardMode

    inputs = [double(4, 3), double(3, seed=1), double(3, seed=2).exp(), double(3, seed=3)]
    inputs = [t.requires_grad_() for t in inputs]

    def function(x, mean, var, weight):
        return _FixedNormForwardMode.apply(x, mean, var, weight, None, 1e-5)

    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_double_backward_matches_the_oracle(shape):
    x, grad_y, v = (double(*shape, seed=seed).requires_grad_() for seed in (1, 2, 3))
    weight, bias = (p.requires_grad_() for p in uniform_parameters(3, x.detach()))
    v_weight, v_bias = double(3, seed=4), double(3, seed=5)
    y = batch_norm(x, None, None, weight, bias, True)
    grads = torch.autograd.grad(y, (x, weight, bias), grad_y, create_graph=True)
    scalar = sum((g * w).sum() for g, w in zip(grads, (v, v_weight, v_bias), strict=True))
    grads = torch.autograd.grad(scalar, (grad_y, x, weight))
    batch = reference.forward(numpy64(x), numpy64(weight), numpy64(bias))
    exact = reference.double_backward(
        *(numpy64(t) for t in (v,)), numpy64(grad_y), batch, numpy64(v_weight), numpy64(v_bias)
    )
    for ours, oracle in zip(grads, exact, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(oracle), rtol=1e-9, atol=1e-10)


WEIGHT, BIAS = double(3, seed=11), double(3, seed=12)
MEAN, VAR = double(3, seed=13), double(3, seed=14).exp()


def ours(x, training=True):
    state = (None, None) if training else (MEAN, VAR)
    return batch_norm(x, *state, WEIGHT, BIAS, training)


def composed(x, training=True):
    """The same function of elementary operations, which PyTorch differentiates by itself."""
    axes, shape = (0, *range(2, x.ndim)), (1, 3) + (1,) * (x.ndim - 2)
    mean, var = MEAN.view(shape), VAR.view(shape)
    if training:
        mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * WEIGHT.view(shape) + BIAS.view(shape)


TRANSFORMS = {
    "vmap": lambda f: lambda x: vmap(f)(torch.stack([x, 2 * x + 1, x.sin()])),
    "vmap of grad": lambda f: (
        lambda x: vmap(grad(lambda z: f(z).pow(3).sum()))(torch.stack([x, 2 * x + 1]))
    ),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(lambda x: f(x).pow(3).sum()),
    "forward over forward": lambda f: jacfwd(jacfwd(lambda x: f(x).pow(3).sum())),
    "reverse over reverse": lambda f: jacrev(jacrev(lambda x: f(x).pow(3).sum())),
    "reverse over forward": lambda f: jacrev(jacfwd(lambda x: f(x).pow(3).sum())),
    "third order": lambda f: grad(
        lambda x: grad(lambda y: grad(lambda z: f(z).pow(3).sum())(y).pow(2).sum())(x).sin().sum()
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_function_transforms(transform, shape, training):
    x = double(*shape, seed=8)
    actual, expected = (
        TRANSFORMS[transform](lambda x, f=f: f(x, training))(x) for f in (ours, composed)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_vmap_over_parameters_only():
    x, weights = double(4, 3), double(5, 3, seed=1)
    batched = vmap(lambda w: batch_norm(x, None, None, w, None, True))(weights)
    expected = torch.stack([batch_norm(x, None, None, w, None, True) for w in weights])
    torch.testing.assert_close(batched, expected)


def test_forward_mode_along_the_parameters_only():
    x, weight, bias = double(4, 3), double(3, seed=1), double(3, seed=2)
    _, along = jvp(
        lambda w, b: batch_norm(x, None, None, w, b, True), (weight, bias), (weight, bias)
    )
    torch.testing.assert_close(along, batch_norm(x, None, None, weight, bias, True))


def test_gradients_of_a_model_as_a_function():
    layer = companion.BatchNorm1d(3, track_running_stats=False).double()
    parameters, x = dict(layer.named_parameters()), double(4, 3)
    grads = grad(lambda p: functional_call(layer, p, (x,)).pow(3).sum())(parameters)
    layer(x).pow(3).sum().backward()
    torch.testing.assert_close(grads["weight"], layer.weight.grad)


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3), companion.BatchNorm2d(4, **options)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


def assert_same_state(a: nn.Module, b: nn.Module, tolerance=1e-6):
    for name, value in a.state_dict().items():
        assert max_difference(value, b.state_dict()[name]) <= tolerance, name


COMPILED = [
    ("aot_eager", {}),
    ("aot_eager", {"momentum": None}),
    ("aot_eager", {"skip_nonfinite": True}),
    ("aot_eager", {"backend": "cpu"}),
    ("aot_eager", {"backend": "cpu", "momentum": None}),
    pytest.param(
        "inductor",
        {"momentum": None},
        marks=[
            pytest.mark.slow(reason="20 seconds of compiling; the others capture the same graph"),
            pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
        ],
    ),
]


@pytest.mark.parametrize(("backend", "options"), COMPILED)
def test_compile_in_one_graph(backend, options):
    torch.compiler.reset()
    plain = Net(**options)
    model = copy.deepcopy(plain)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for size in (4, 5, 6):
        x = torch.randn(size, 3, 8, 8)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        results = compiled(inputs[0]), plain(inputs[1])
        for result in results:
            result.pow(3).sum().backward()
        assert max_difference(*results) < 1e-5
        assert max_difference(inputs[0].grad, inputs[1].grad) < 1e-4
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3)
        assert_same_state(model, plain)
    assert model.norm.num_batches_tracked.item() == 3
    model.eval()
    plain.eval()
    assert max_difference(compiled(x), plain(x)) < 1e-5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("transform", ["vmap", "vmap of grad", "jvp"])
def test_compiled_function_transforms(transform, training):
    torch.compiler.reset()
    function, x = TRANSFORMS[transform](lambda x: ours(x, training)), double(4, 3)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_export(training, strict):
    model = Net(momentum=None).train(training)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        model, (torch.randn(4, 3, 8, 8),), dynamic_shapes=({0: batch},), strict=strict
    )
    exported, x = program.module(), torch.randn(7, 3, 8, 8)
    twin = copy.deepcopy(model)
    assert max_difference(exported(x), twin(x)) < 1e-6
    state = dict(exported.named_buffers())
    assert {"norm.running_mean", "norm.running_var"} <= set(state)
    for name, buffer in state.items():
        assert max_difference(buffer, dict(twin.named_buffers())[name]) < 1e-6
    if training:
        assert state["norm.num_batches_tracked"].item() == 1


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("options", [{}, {"momentum": None}])
def test_checkpointing_counts_a_batch_once(reentrant, options):
    plain = Net(**options)
    model = copy.deepcopy(plain)
    for _ in range(3):
        inputs = [torch.randn(4, 3, 8, 8).requires_grad_()]
        inputs.append(inputs[0].detach().clone().requires_grad_())
        checkpoint(model, inputs[0], use_reentrant=reentrant).pow(3).sum().backward()
        plain(inputs[1]).pow(3).sum().backward()
        assert max_difference(inputs[0].grad, inputs[1].grad) == 0.0
        assert_same_state(model, plain, 0.0)
    assert model.norm.num_batches_tracked.item() == 3


@pytest.mark.skipif(torch.__version__ < "2.9", reason="PyTorch 2.8 itself counts twice then")
def test_checkpointing_compiled():
    torch.compiler.reset()
    plain = Net()
    model = copy.deepcopy(plain)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x):
        return checkpoint(model, x, use_reentrant=False).pow(3).sum()

    x = torch.randn(4, 3, 8, 8).requires_grad_()
    loss(x).backward()
    plain(x.detach())
    assert_same_state(model, plain)


@pytest.mark.parametrize(("offset", "allowed"), [(10.0, 3e-7), (1e4, 2e-4)])
def test_float32_gradients_survive_an_offset_in_the_upstream_gradient(offset, allowed):
    """∂L/∂y = offset + noise: what is subtracted from it must not be rounded first.

    Chains of float32 sums lose a little of it, PyTorch's layer ten times as much.
    """
    x = torch.randn(512, 64).requires_grad_()
    grad_y = torch.randn(512, 64) + offset
    weight, bias = uniform_parameters(64, torch.empty(()))
    exact = ask_oracle(x, grad_y, weight, bias, 1e-5).grad_x
    errors = []
    for layer in (batch_norm, torch.nn.functional.batch_norm):
        (grad_x,) = torch.autograd.grad(layer(x, None, None, weight, bias, True), x, grad_y)
        errors.append(abs(numpy64(grad_x) - exact).max() / abs(exact).max())
    assert errors[0] < allowed
    assert errors[0] < errors[1] / 4


def test_compiled_code_uses_the_function_it_can_trace():
    assert _BatchNorm.jvp is torch.autograd.Function.jvp


def test_fx_traces_the_layer_as_one_call():
    traced, x = torch.fx.symbolic_trace(Net().eval()), torch.randn(2, 3, 8, 8)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert targets == ["conv", "norm"]
    for training in (False, True):
        # The mode is the layer's, not that of when it was traced.
        assert max_difference(traced.train(training)(x), Net().train(training)(x)) == 0.0


def test_fx_traces_the_function_as_one_call():
    traced = torch.fx.symbolic_trace(lambda x, mean, var: batch_norm(x, mean, var))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets == [batch_norm]
    x, mean, var = torch.randn(4, 3), torch.zeros(3), torch.ones(3)
    assert torch.equal(traced(x, mean, var), batch_norm(x, mean, var))


def test_tensor_subclasses_keep_their_class():
    class Labelled(torch.Tensor):
        pass

    y = batch_norm(torch.randn(4, 3).as_subclass(Labelled), None, None, training=True)
    assert type(y) is Labelled


def test_under_torch_func_running_statistics_are_arguments():
    x, mean, var = torch.randn(6, 3).double(), torch.zeros(3).double(), torch.ones(3).double()

    def loss(x, mean, var):
        return batch_norm(x, mean, var, training=True).pow(3).sum()

    with pytest.raises(RuntimeError, match="in-place"):
        torch.func.grad(lambda x: loss(x, mean, var))(x)
    assert torch.equal(mean, torch.zeros(3).double())
    gradient = torch.func.grad(loss)(x, mean, var)
    expected = reference.backward(3 * reference.forward(x).y ** 2, reference.forward(x)).x
    torch.testing.assert_close(gradient, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mean, 0.1 * x.mean(dim=0))
