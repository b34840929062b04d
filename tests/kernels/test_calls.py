"""The compiled way of a call to the CPU kernels against Python's way: the same bits, or no call."""

import os
import re
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
import torch
from _contract import Case, given
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from companion.differentiation import differentiate_again
from companion.functional import batch_norm, batch_norm_act
from companion.kernels import select

calls = pytest.importorskip("companion.kernels.cpu.calls", reason="Numba is not installed")
from companion.kernels.cpu.formats import FORMATS  # noqa: E402
from companion.kernels.cpu.jobs import Job, PlanNumbers  # noqa: E402

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# One thread, two threads, and, last, channels-last.
SHAPES = [(60, 100), (3, 5), (2, 3, 5, 5), (4, 64, 20, 20), (4, 64, 20, 21)]


@pytest.fixture(scope="module")
def direct():
    function = calls.load(differentiate_again)
    if function is None:
        if "REQUIRE_COMPILER" in os.environ:
            pytest.fail("not built: python -m companion compile")
        pytest.skip("not built: python -m companion compile")
    return function


@pytest.fixture(params=["direct", "python"])
def way(request, direct, monkeypatch):
    """Each way alone: a call that the direct one declines fails there."""

    def insist(*arguments):
        y = direct(*arguments)
        assert y is not None, "declined"
        return y

    chosen = insist if request.param == "direct" else None
    monkeypatch.setattr(select, "_built", lambda _again: chosen)
    return request.param


def leaves(*shape_and_type, **options):
    """A case's x, weight, bias and residual, which ask for a gradient, one of y, and its state."""
    arguments = given(Case(*shape_and_type, residual=True, running=True, **options))
    inputs = (arguments.x, arguments.weight, arguments.bias, arguments.residual)
    inputs = [t if t is None else t.requires_grad_() for t in inputs]
    return inputs, arguments.grad_y, arguments.running[:4]


def both_ways(direct, compute):
    """What `compute` returns by each way, in order: direct, Python's."""
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for chosen in (direct, None):
            patch.setattr(select, "_built", lambda _again, chosen=chosen: chosen)
            results.append(compute())
    return results


def same(a, b):
    """Bits, types, layouts; None for None."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("training", "affine", "relu", "residual", "cumulative"),
    [
        (True, True, False, False, False),
        (True, False, True, False, True),
        (True, True, True, True, False),
        (False, True, False, True, False),
        (False, False, True, False, False),
        (False, True, True, True, False),
    ],
)
def test_both_ways_give_the_same_bits(
    direct, shape, dtype, training, affine, relu, residual, cumulative
):
    last = shape == SHAPES[-1]
    served = []

    def counted(*arguments):
        y = direct(*arguments)
        served.append(y is not None)
        return y

    def compute():
        (x, weight, bias, added), grad_y, (mean, var, count, momentum) = leaves(
            shape, dtype, last, affine=affine, momentum=None if cumulative else 0.3
        )
        # In another layout where channels are last.
        added, grad_y = added.detach().contiguous().requires_grad_(), grad_y.contiguous()
        y = batch_norm_act(
            *(x, mean, var, weight, bias, training, momentum, 1e-3),
            residual=added if residual else None,
            relu=relu,
            num_batches_tracked=count,
        )
        wanted = [t for t in (x, weight, bias, added if residual else None) if t is not None]
        grads = torch.autograd.grad(y, wanted, grad_y)
        versions = [t._version for t in (mean, var, count)]
        return [y.detach(), *grads, mean, var, count], versions

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (ours, versions), (expected, expected_versions) = both_ways(counted, compute)
    finally:
        torch.set_num_threads(before)
    assert served == [True]
    assert all(same(a, b) for a, b in zip(ours, expected, strict=True))
    assert [v > 0 for v in versions] == [v > 0 for v in expected_versions]


def test_skipped_batches(direct):
    def compute():
        mean, var, count, momentum = leaves((2, 3))[2]
        x = torch.tensor([[1.0, 2.0, float("nan")], [2.0, 3.0, 4.0]])
        y = batch_norm(
            *(x, mean, var, None, None, True, momentum),
            num_batches_tracked=count,
            skip_nonfinite=True,
        )
        return [y.nan_to_num(7.0), mean, var, count]

    ours, expected = both_ways(direct, compute)
    assert all(same(a, b) for a, b in zip(ours, expected, strict=True))
    assert ours[3] == 3


def test_without_a_gradient_nothing_is_recorded(direct):
    (x, weight, bias, _), *_ = leaves((6, 3))
    arguments = (None, None, weight, bias, True, 0.1, 1e-5, None, False, None, False)
    assert direct(x, *arguments).requires_grad
    with torch.no_grad():
        assert not direct(x, *arguments).requires_grad
    with torch.inference_mode():
        assert direct(x, *arguments).is_inference()


class _Subclass(torch.Tensor):
    pass


def _odd_calls():
    """A name, and what is changed of a call that would be served."""
    base = torch.randn(6, 3)
    with torch.inference_mode():
        inference = torch.ones(3)
    return {
        "a subclass": {"input": base.as_subclass(_Subclass)},
        "integers": {"input": torch.ones(6, 3, dtype=torch.int32)},
        "complex numbers": {"input": base.to(torch.complex64)},
        "no tensor": {"input": [[1.0]]},
        "one axis": {"input": torch.randn(3)},
        "one value per channel": {"input": torch.randn(1, 3)},
        "an empty batch": {"input": torch.randn(0, 3)},
        "a negated view": {"input": torch._neg_view(base)},
        "a sparse tensor": {"input": base.to_sparse()},
        "another device": {"input": base.to("meta")},
        "an unknown layout": {"input": torch.randn(3, 6).t()},
        "statistics of another shape": {
            "running_mean": torch.ones(4),
            "running_var": torch.ones(4),
        },
        "statistics of another type": {"running_mean": torch.ones(3, dtype=torch.float64)},
        "strided statistics": {"running_var": torch.ones(6)[::2]},
        "one of the statistics": {"running_var": None},
        "statistics with a gradient": {"running_mean": torch.ones(3, requires_grad=True)},
        "statistics of inference mode": {"running_mean": inference},
        "no statistics outside training": {
            "running_mean": None,
            "running_var": None,
            "training": False,
        },
        "weights of another shape": {"weight": torch.ones(1)},
        "weights of another type": {"weight": torch.ones(3, dtype=torch.float64)},
        "weights in two axes": {"weight": torch.ones(3, 1)},
        "a count of floats": {"num_batches_tracked": torch.tensor(0.0)},
        "a short count": {"num_batches_tracked": torch.tensor(0, dtype=torch.int32)},
        "counts": {"num_batches_tracked": torch.tensor([0])},
        "no count to average by": {"momentum": None, "num_batches_tracked": None},
        "an integer momentum": {"momentum": 1},
        "no eps": {"eps": 0.0},
        "an integer eps": {"eps": 1},
        "a word for training": {"training": "yes"},
        "a residual of another shape": {"residual": torch.randn(6, 4)},
        "a residual of another type": {"residual": torch.randn(6, 3, dtype=torch.float64)},
    }


def _call(direct, **changes):
    arguments = {
        "input": torch.arange(18.0).view(6, 3),
        "running_mean": torch.zeros(3),
        "running_var": torch.ones(3),
        "weight": torch.ones(3),
        "bias": torch.zeros(3),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
        "num_batches_tracked": torch.tensor(0),
        "skip_nonfinite": False,
        "residual": None,
        "relu": False,
    } | changes
    y = direct(*arguments.values())
    return y, arguments


def test_the_plain_call_is_served(direct):
    y, arguments = _call(direct)
    assert y is not None
    assert arguments["num_batches_tracked"] == 1


@pytest.mark.parametrize("name", list(_odd_calls()))
def test_what_is_not_obviously_fine_is_declined_untouched(direct, name):
    changes = _odd_calls()[name]
    y, arguments = _call(direct, **changes)
    assert y is None
    for state_name, initial in (("running_mean", 0.0), ("running_var", 1.0)):
        if state_name not in changes:
            assert torch.equal(arguments[state_name], torch.full((3,), initial))
    count = arguments["num_batches_tracked"]
    assert count is None or (count == 0).all()


def test_too_few_arguments_are_declined(direct):
    assert direct(torch.randn(6, 3)) is None
    assert direct() is None


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return operation(*args, **(kwargs or {}))


def test_modes_transforms_and_tracers_see_the_operations(direct):
    for mode in (_Functions(), _Operations()):
        with mode:
            assert _call(direct)[0] is None
    outputs = []
    torch.func.vmap(lambda x: outputs.append(_call(direct)[0]) or x)(torch.ones(2))
    with torch.autograd.forward_ad.dual_level():
        outputs.append(_call(direct)[0])
    counting = {"num_batches_tracked": None}
    torch.jit.trace(
        lambda x: outputs.append(_call(direct, **counting)[0]) or x + 1,
        torch.ones(2),
        check_trace=False,
    )
    assert outputs == [None] * len(outputs)
    assert len(outputs) >= 3


@pytest.mark.usefixtures("way")
def test_second_derivative():
    (x, weight, bias, residual), *_ = leaves((5, 3), torch.float64)
    for relu in (False, True):

        def function(*inputs, relu=relu):
            return batch_norm_act(
                *(inputs[0], None, None, *inputs[1:3], True),
                residual=inputs[3] if relu else None,
                relu=relu,
            )

        inputs = (x, weight, bias, residual) if relu else (x, weight, bias)
        assert torch.autograd.gradgradcheck(function, inputs)
        fixed = x.detach().mean(0), x.detach().var(0)
        assert torch.autograd.gradgradcheck(
            lambda x, w, b, fixed=fixed: batch_norm(x, *fixed, w, b), (x, weight, bias)
        )


@pytest.mark.usefixtures("way")
def test_only_what_is_asked_for():
    """The indices of gradients when some inputs are missing or need none."""
    x, bias = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    bias.requires_grad_()
    y = batch_norm(x, None, None, None, bias, True)
    (grad_bias,) = torch.autograd.grad(y.square().sum(), bias, create_graph=True)
    torch.testing.assert_close(grad_bias, 2 * y.sum(0))
    (second,) = torch.autograd.grad(grad_bias.sum(), bias)
    torch.testing.assert_close(second, torch.full_like(bias, 10.0))


@pytest.mark.usefixtures("way")
def test_gradients_of_many_directions_at_once():
    (x, weight, bias, _), grad_y, _ = leaves((5, 3), torch.float64)
    y = batch_norm(x, None, None, weight, bias, True)
    directions = torch.stack([grad_y, 2 * grad_y])
    batched = torch.autograd.grad(
        y, (x, weight), directions, is_grads_batched=True, retain_graph=True
    )
    single = torch.autograd.grad(y, (x, weight), grad_y)
    for many, one in zip(batched, single, strict=True):
        torch.testing.assert_close(many, torch.stack([one, 2 * one]))


@pytest.mark.usefixtures("way")
def test_gradients_in_another_layout():
    (x, weight, bias, _), grad_y, _ = leaves((4, 3, 5, 5), torch.float32, True)
    y = batch_norm(x, None, None, weight, bias, True)
    expected = torch.autograd.grad(y, (x, weight), grad_y, retain_graph=True)
    expanded = torch.ones(()).expand_as(y)
    for g in (
        grad_y,
        grad_y.contiguous(memory_format=torch.channels_last),
        grad_y.mT.contiguous().mT,
    ):
        grads = torch.autograd.grad(y, (x, weight), g, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))
    ones = torch.autograd.grad(y, bias, torch.ones_like(y), retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, bias, expanded)[0], ones)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.usefixtures("way")
def test_a_recomputed_batch_counts_once(reentrant):
    (x, weight, bias, _), _, (mean, var, count, momentum) = leaves((6, 3))

    def layer(x):
        return batch_norm(
            x, mean, var, weight, bias, True, momentum, num_batches_tracked=count
        ).square()

    checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
    assert count == 4
    assert x.grad is not None


@pytest.mark.usefixtures("way")
def test_autograd_notices_changes_in_place():
    (x, weight, bias, _), _, (mean, var, *_) = leaves((6, 3))
    y = batch_norm(x, None, None, weight, bias, True)
    with torch.no_grad():
        x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    doubled = mean.clone().requires_grad_() * mean
    batch_norm(x, mean, var, weight, bias, True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        doubled.sum().backward()


@pytest.mark.usefixtures("way")
def test_saved_tensors_go_through_hooks():
    (x, weight, bias, _), grad_y, _ = leaves((6, 3))
    packed = []
    with saved_tensors_hooks(lambda t: packed.append(t.shape) or t.clone(), lambda t: t):
        y = batch_norm(x, None, None, weight, bias, True)
    assert x.shape in packed
    expected = torch.autograd.grad(batch_norm(x, None, None, weight, bias, True), x, grad_y)
    assert torch.equal(torch.autograd.grad(y, x, grad_y)[0], expected[0])


@pytest.mark.usefixtures("way")
def test_hooks_may_give_back_another_layout():
    (x, weight, bias, _), grad_y, _ = leaves((6, 3), torch.float64)

    def strided(t):
        return t.repeat_interleave(2, dim=-1)[..., ::2]

    with saved_tensors_hooks(lambda t: t, strided):
        y = batch_norm(x, None, None, weight, bias, True)
    grads = torch.autograd.grad(y, (x, weight, bias), grad_y)
    again = batch_norm(x, None, None, weight, bias, True)
    for a, b in zip(grads, torch.autograd.grad(again, (x, weight, bias), grad_y), strict=True):
        torch.testing.assert_close(a, b)


def test_an_error_of_the_python_part_arrives(direct, monkeypatch):
    """The second derivative runs Python code inside the C++ node."""
    (x, weight, bias, _), *_ = leaves((5, 3), torch.float64)
    y = direct(x, None, None, weight, bias, True, 0.1, 1e-5, None, False, None, False)
    monkeypatch.setattr("companion.differentiation.batch_eager", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.usefixtures("direct")
def test_threads_do_not_disturb_each_other():
    (x, weight, bias, _), grad_y, _ = leaves((40, 50))
    inputs = [x.detach().roll(number, 1).requires_grad_() for number in range(4)]
    wrong = []

    def gradient(x):
        return torch.autograd.grad(batch_norm(x, None, None, weight, bias, True), x, grad_y)[0]

    expected = [gradient(x) for x in inputs]

    def work(number):
        for _ in range(200):
            if not torch.equal(gradient(inputs[number]), expected[number]):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_the_header_has_the_jobs_fields():
    plan, job = calls.header().split("struct Job")
    field = r"(int64_t|double|Plan) (\w+)(?:\[4\])?;"
    assert re.findall(field, plan) == [("int64_t", name) for name, _ in PlanNumbers._fields_]
    types = {"eps": "double", "momentum": "double", "plan": "Plan"}
    expected = [(types.get(name, "int64_t"), name) for name, _ in Job._fields_]
    assert re.findall(field, job) == expected
    for name, numbers in FORMATS.items():
        assert f" {name.upper()} = {numbers.kind}" in plan


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_where_it_is_not_built_calls_take_pythons_way(tmp_path):
    program = (
        "import torch; from companion.functional import batch_norm; "
        "from companion.kernels import select; "
        "print(batch_norm(torch.tensor([[1.0], [3.0]]), None, None, training=True).tolist()); "
        "print(select._built(len))"
    )
    done = run(program, TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[1] == "None"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": "/there/is/nothing"}, "ninja is not installed"),
        ({"CXX": "there-is-no-such-compiler"}, "there is no C++ compiler"),
        ({"CXX": "false"}, "the C++ compiler failed"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(tmp_path, environment, reason):
    program = (
        "import sysconfig; find = sysconfig.get_path; "
        "sysconfig.get_path = lambda name: '/nowhere' if name == 'scripts' else find(name)\n"
        if "PATH" in environment
        else ""
    )
    program += "from companion.__main__ import main; raise SystemExit(main(['compile']))"
    done = run(program, TORCH_EXTENSIONS_DIR=str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    assert "compile: calls of small batches remain slower: " in done.stderr
    assert reason in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.split(reason)[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has another way of quoting")
def test_folders_may_have_spaces_in_their_names(tmp_path):
    """Those of the source, of what is built, and of PyTorch's libraries."""
    folder, compiler = tmp_path / "a b", tmp_path / "compiler"
    folder.mkdir()
    note = f"""printf '%s\\n' "$@" >> '{tmp_path}/arguments'"""
    compiler.write_text(f"#!/bin/sh\n{note}\n: > calls.o\n")
    compiler.chmod(0o755)
    source = folder / "calls.cpp"
    source.touch()
    libraries = "from torch.utils import cpp_extension; cpp_extension.TORCH_LIB_PATH = '/c d/lib'\n"
    scripts = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    subprocess.run(
        [sys.executable, "-c", libraries + calls._BUILD, calls.NAME, str(source), str(folder)],
        env=os.environ | {"CXX": str(compiler), "PATH": scripts},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert {str(source), f"-I{folder}", "-L/c d/lib"} <= set(arguments)


def test_the_source_travels_with_the_package():
    assert (Path(calls.__file__).with_name("calls.cpp")).exists()
    with open(Path(__file__).parents[2] / "pyproject.toml", encoding="utf-8") as file:
        assert '"companion.kernels.cpu" = ["*.cpp"]' in file.read()


def test_loading_imports_nothing_that_warns_where_there_is_no_gpu():
    code = "import sys, companion.kernels.cpu.calls; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "companion.kernels.cpu.calls" in modules
    assert "torch.utils.cpp_extension" not in modules
