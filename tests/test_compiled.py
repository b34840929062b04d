"""Under torch.compile: one graph for all batches, the layouts of PyTorch, statistics in float64."""

import copy
import shutil

import pytest
import torch
from _layer import ask_oracle, max_difference, numpy64, uniform_parameters
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.utils import run_and_get_code

import companion
from companion.functional import batch_norm
from companion.kernels import layouts

CHANNELS = 37
INDUCTOR = [
    pytest.mark.slow(reason="compiles with g++, which takes half a minute"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]
COMPILERS = ["aot_eager", pytest.param("inductor", marks=INDUCTOR)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def images(size=4, layout=torch.contiguous_format):
    x = torch.randn(size, CHANNELS, 6, 6, generator=torch.Generator().manual_seed(size))
    return x.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_graph_serves_all_batches(backend, momentum):
    """Another batch changes the count, and the third size of a batch finds the sizes dynamic."""
    counter = CompileCounterWithBackend("aot_eager")
    layer = companion.BatchNorm2d(CHANNELS, momentum=momentum, backend=backend)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    graphs = []
    for size in (4, 4, 4, 5, 5, 6, 7, 4):
        compiled(images(size)).sum().backward()
        plain(images(size))
        graphs.append(counter.frame_count)
    assert graphs == [1, 1, 1, 2, 2, 2, 2, 2]
    for graph in counter.graphs:
        assert ("companion.normalize" in str(graph.graph)) is (backend == "cpu")
    assert layer.num_batches_tracked.item() == 8
    assert max_difference(layer.running_var, plain.running_var) < 1e-6
    layer.eval()
    for size in (4, 5, 6):
        compiled(images(size))
    assert counter.frame_count <= 4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_results_have_the_layout_of_the_input(backend, layout, training):
    layer = companion.BatchNorm2d(CHANNELS, backend=backend).train(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for grad_layout in LAYOUTS:
        x = images(layout=layout)
        y = compiled(x)
        y.backward(torch.ones_like(x).contiguous(memory_format=grad_layout))
        for result in (y, x.grad):
            assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_are_as_accurate_as_without_a_compiler(layout, compiler):
    """float32 sums, or sums about 0, lose the variance of such a batch."""
    x = (images(16).detach() + 1e4).contiguous(memory_format=layout).requires_grad_()
    grad_y = torch.randn_like(x)
    weight, bias = uniform_parameters(CHANNELS, torch.empty(()))
    exact = ask_oracle(x, grad_y, weight, bias, 1e-5)
    mean, var = torch.zeros(CHANNELS), torch.ones(CHANNELS)

    @torch.compile(fullgraph=True, backend=compiler)
    def normalized(x):
        return batch_norm(x, mean, var, weight, bias, True, 1.0)

    y = normalized(x)
    (grad_x,) = torch.autograd.grad(y, x, grad_y)
    unbiased = x.detach().double().var((0, 2, 3))
    assert (var.double() / unbiased - 1.0).abs().max() < 2.0**-23
    for value, right in ((y, exact.y), (grad_x, exact.grad_x)):
        assert abs(numpy64(value) - right).max() < 1e-6 * abs(right).max()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_channel_that_is_not_finite_spoils_no_other(value):
    x = images().detach()
    x[0, 3] = value
    y = torch.compile(batch_norm, fullgraph=True, backend="aot_eager")(x, None, None, training=True)
    assert y[:, 3].isnan().all()
    others = [channel for channel in range(CHANNELS) if channel != 3]
    assert y[:, others].isfinite().all()


def test_only_a_compiler_that_fuses_is_told_what_to_store():
    """An exported program, and vmap, get no views by strides."""
    assert not layouts.is_fused()
    value = torch.ones(3)
    assert layouts.computed_once(value) is value
    exported = torch.export.export(companion.BatchNorm2d(CHANNELS), (images().detach(),))
    assert "as_strided" not in str(exported.graph)


def test_operators_take_any_layout():
    """Else the compiler copies activations, which it likes channels-last, to the traced layout."""
    for operator in (torch.ops.companion.normalize, torch.ops.companion.differentiate):
        assert torch.Tag.flexible_layout in operator.default.tags


@pytest.mark.slow(reason="compiles with g++, which takes half a minute")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("training", [True, False])
def test_what_a_channel_has_is_computed_once(training):
    """The compiler stores centre, slope and constant, and no loop over x takes a root."""
    model = nn.Sequential(companion.BatchNorm2d(CHANNELS), nn.ReLU()).train(training)
    with torch.no_grad():
        _, codes = run_and_get_code(torch.compile(model), images())
    stored = f"empty_strided_cpu(({CHANNELS}, ), (1, ), torch.float32)"
    assert codes[0].count(stored) >= 3
    assert codes[0].count("cpp_fused_") == codes[0].count("async_compile.cpp_pybinding") * 2
    assert "companion.normalize" not in codes[0]
