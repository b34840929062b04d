"""Which backend computes, and what is said of one that cannot."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from companion import BatchNorm1d, BatchNorm2d
from companion.functional import batch_norm
from companion.kernels import select


def test_auto_takes_the_kernels_of_the_device():
    x = torch.randn(4, 3)
    assert select.choose(x, "auto") == ("cpu" if select.installed("cpu") else "eager")
    assert select.choose(x.to("meta"), "auto") == "eager"


def test_every_backend_computes_the_same():
    x = torch.randn(8, 3, 5, 5)
    outputs = [
        batch_norm(x, None, None, training=True, backend=backend)
        for backend in ("auto", "eager", "cpu", "torch")
    ]
    for y in outputs[1:]:
        torch.testing.assert_close(y, outputs[0], rtol=1e-5, atol=1e-5)


def test_pytorchs_own_is_pytorchs():
    x, state = torch.randn(8, 3), [torch.zeros(3), torch.ones(3)]
    theirs, theirs_state = x.clone().requires_grad_(), [t.clone() for t in state]
    ours, count = x.clone().requires_grad_(), torch.tensor(1)
    y = batch_norm(ours, *state, training=True, backend="torch", num_batches_tracked=count)
    expected = F.batch_norm(theirs, *theirs_state, training=True)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, theirs_state, strict=True))
    assert count.item() == 2
    batch_norm(x, *state, None, None, True, None, backend="torch", num_batches_tracked=count)
    F.batch_norm(x, *theirs_state, training=True, momentum=1 / 3)
    assert all(torch.equal(a, b) for a, b in zip(state, theirs_state, strict=True))
    with pytest.raises(ValueError, match="skip_nonfinite: expected False with backend 'torch'"):
        batch_norm(x, None, None, training=True, backend="torch", skip_nonfinite=True)


def test_unknown_backend():
    message = "backend: expected one of auto, eager, cpu, cuda, torch, got 'gpu'"
    with pytest.raises(ValueError, match=message):
        batch_norm(torch.randn(4, 3), None, None, training=True, backend="gpu")
    with pytest.raises(ValueError, match=message):
        BatchNorm1d(3, backend="gpu")


def test_backend_of_another_device():
    with pytest.raises(RuntimeError, match="backend: 'cuda' expected a cuda tensor, got cpu"):
        batch_norm(torch.randn(4, 3), None, None, training=True, backend="cuda")


def test_a_missing_package_is_named_or_passed_over(monkeypatch):
    monkeypatch.setitem(select._INSTALLED, "cpu", False)
    x = torch.randn(4, 3)
    assert select.choose(x, "auto") == "eager"
    message = r"needs numba, which is not installed: pip install 'batchnorm-companion\[cpu\]'"
    with pytest.raises(RuntimeError, match=message):
        batch_norm(x, None, None, training=True, backend="cpu")
    layer = BatchNorm1d(3)
    layer(x)
    assert layer.num_batches_tracked.item() == 1


@pytest.mark.parametrize(
    ("number", "is_met"),
    [("3.3.1", False), ("2.9.0", False), ("3.4.0", True), ("3.10.0+git", True), (None, True)],
)
def test_a_package_that_is_too_old_is_as_good_as_none(monkeypatch, number, is_met):
    def version(name):
        assert name == "triton"
        if number is None:
            raise select.PackageNotFoundError
        return number

    monkeypatch.setattr(select, "find_spec", lambda _: object())
    monkeypatch.setattr(select, "version", version)
    need = select._NEEDS["cuda"]
    assert need.is_met() == is_met
    assert str(need) == "triton>=3.4"
    monkeypatch.setattr(select, "find_spec", lambda _: None)
    assert not need.is_met()


def test_what_is_installed_is_found_without_importing_it():
    program = (
        "import importlib.util, sys; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name: None if name == 'numba' else find(name); "
        "from companion.kernels import select; "
        "print(select.installed('cpu'), select.installed('eager'), 'triton' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "False"]


def test_kernels_are_called_and_leave_alone_what_they_cannot_read(monkeypatch):
    pytest.importorskip("numba")
    kernels, calls = select.load("cpu"), []
    monkeypatch.setattr(select, "_built", lambda _again: None)
    normalize = kernels.normalize
    monkeypatch.setattr(kernels, "normalize", lambda *a: calls.append(1) or normalize(*a))
    x = torch.randn(4, 3, 2, 2)
    batch_norm(x, None, None, training=True)
    assert len(calls) == 1
    negative = torch._neg_view(x)
    expected = batch_norm(-x, None, None, training=True, backend="eager")
    torch.testing.assert_close(batch_norm(negative, None, None, training=True), expected)
    torch.func.vmap(lambda z: batch_norm(z, None, None, training=True))(torch.stack([x, x]))
    torch.func.jvp(lambda z: batch_norm(z, None, None, training=True), (x,), (x,))
    traced = torch.jit.trace(
        lambda z: batch_norm(z, None, None, training=True), (x,), check_trace=False
    )
    other = torch.randn(4, 3, 2, 2)
    expected = batch_norm(other, None, None, training=True, backend="eager")
    torch.testing.assert_close(traced(other), expected)
    assert len(calls) == 1


def test_state_that_kernels_cannot_move_where_it_lies():
    x = torch.randn(8, 3)
    expected = torch.zeros(3), torch.ones(3), torch.tensor(0)
    batch_norm(x, *expected[:2], training=True, num_batches_tracked=expected[2], backend="eager")
    apart = torch.zeros(3, 2)[:, 0], torch.ones(3, 2)[:, 0], torch.tensor(0)
    short = torch.zeros(3), torch.ones(3), torch.tensor(0, dtype=torch.int32)
    for mean, var, count in (apart, short):
        batch_norm(x, mean, var, training=True, num_batches_tracked=count)
        for value, exact in zip((mean, var, count), expected, strict=True):
            torch.testing.assert_close(value, exact, check_dtype=False, check_stride=False)


def test_the_layer_shows_and_uses_its_backend():
    layer = BatchNorm2d(3, backend="eager")
    assert repr(layer).endswith("backend='eager')")
    assert "backend" not in repr(BatchNorm2d(3))


def test_kernels_import_nothing_that_stands_on_them():
    """Also within functions, where a circle would hide. Private modules stand below them."""
    folder = Path(select.__file__).parent
    imported = set()
    for path in folder.rglob("*.py"):
        package = ".".join(("companion", *path.relative_to(folder.parent).parent.parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                name = "." * node.level + (node.module or "")
                base = importlib.util.resolve_name(name, package)
                imported |= {f"{base}.{alias.name}" for alias in node.names}
    ours = {name.split(".")[1] for name in imported if name.startswith("companion.")}
    assert {"kernels", "_torch"} <= ours
    assert {name for name in ours if not name.startswith("_")} <= {"kernels", "caches"}
