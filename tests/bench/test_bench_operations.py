import sys

import pytest
import torch
from torch.nn import functional as F

from companion import functional
from companion.bench import operations
from companion.bench.operations import PASSES, call_of, copy_of, layers, recording, tensors
from companion.bench.suite import DTYPES, Case

CASE = Case("tiny", (4, 3, 5, 6))


def run(name, layer, given):
    with recording(name):
        return call_of(name, layer, given)()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_have_the_layout_and_the_type_of_the_case(channels_last, dtype):
    case = CASE._replace(channels_last=channels_last, dtype=dtype)
    x, grad_y, target = tensors(case, "cpu")
    for tensor in (x, grad_y, target):
        assert tensor.shape == CASE.shape
        assert tensor.dtype == DTYPES[dtype]
        assert (tensor.stride(1) == 1) == channels_last
    assert x.requires_grad
    assert not grad_y.requires_grad
    assert not torch.equal(x, grad_y)


def test_tensors_are_repeatable_and_differ_by_seed():
    first, again, other = (tensors(CASE, "cpu", seed).x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    x = tensors(Case("rows", (1000, 10)), "cpu").x
    assert x.mean().item() == pytest.approx(0.5, abs=0.1)
    assert x.std().item() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "case", [CASE, CASE._replace(dtype="bfloat16"), Case("module", (60, 100), module=True)]
)
def test_all_layers_compute_the_same_in_every_pass(case):
    given = tensors(case, "cpu")
    contenders = layers(case, "cpu", "eager", compiled=False)
    assert list(contenders) == ["ours", "torch", "again"]
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if case.dtype == "bfloat16" else {}
    for name in PASSES:
        ours, others, again = (run(name, layer, given) for layer in contenders.values())
        torch.testing.assert_close(ours, others, **tolerance)
        torch.testing.assert_close(again, others)
        assert len({id(layer.weight) for layer in contenders.values()}) == 3


def test_each_pass_does_what_its_name_says():
    given = tensors(CASE, "cpu")
    layer = layers(CASE, "cpu", "eager", compiled=False)["torch"]
    assert run("forward", layer, given).requires_grad
    fixed = run("fixed", layer, given)
    assert not fixed.requires_grad
    assert fixed.mean().item() > 0.1
    forward = F.batch_norm(given.x, None, None, layer.weight, layer.bias, True)
    inputs = (given.x, layer.weight, layer.bias)
    expected = torch.autograd.grad(forward, inputs, given.grad_y)
    for name in ("backward", "both"):
        torch.testing.assert_close(run(name, layer, given), expected)
    # The same graph is differentiated again and again.
    call = call_of("backward", layer, given)
    torch.testing.assert_close(call(), call())


@pytest.mark.parametrize(("name", "forwards"), [("forward", 3), ("backward", 1), ("both", 3)])
def test_only_some_passes_run_the_forward_pass_each_time(name, forwards):
    given = tensors(CASE, "cpu")
    layer = layers(CASE, "cpu", "eager", compiled=False)["torch"]
    calls = []
    counted = layer._replace(train=lambda x: calls.append(None) or layer.train(x))
    call = call_of(name, counted, given)
    for _ in range(3):
        call()
    assert len(calls) == forwards


def test_the_copy_writes_into_an_existing_tensor():
    given = tensors(CASE, "cpu")
    before = given.target.data_ptr()
    copy_of(given)()
    assert torch.equal(given.target, given.x)
    assert given.target.data_ptr() == before
    assert not given.target.requires_grad


def test_ours_is_the_public_function_with_statistics_weight_bias_and_backend(monkeypatch):
    seen = []

    def stand_in(x, mean, var, weight, bias, training, *, backend):
        seen.append((training, backend, mean, var))
        return F.batch_norm(x, mean, var, weight, bias, training)

    monkeypatch.setattr(functional, "batch_norm", stand_in)
    given = tensors(CASE, "cpu")
    contenders = layers(CASE, "cpu", "cpu", compiled=False)
    for name in ("forward", "fixed"):
        run(name, contenders["ours"], given)
    assert [entry[:2] for entry in seen] == [(True, "cpu"), (False, "cpu")]
    _, _, mean, var = seen[0]
    assert not torch.equal(mean, torch.zeros(3))
    assert not torch.equal(var, torch.ones(3))


def test_statistics_and_parameters_of_half_precision_are_float32():
    for dtype, expected in (("float16", torch.float32), ("float64", torch.float64)):
        layer = layers(CASE._replace(dtype=dtype), "cpu", "eager", compiled=False)["ours"]
        assert layer.weight.dtype == layer.bias.dtype == expected


def test_why_nothing_can_be_compiled(monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)
    assert operations.cannot_compile("cpu") is None
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert operations.cannot_compile("cpu") == "there is no C++ compiler"


def test_compiled_layers_are_made_for_one_shape(monkeypatch):
    seen = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: seen.append(options) or function
    )
    for case in (CASE, Case("module", (60, 100), module=True)):
        contenders = layers(case, "cpu", "eager", compiled=True)
        assert list(contenders) == ["ours", "torch", "again", "compile"]
        run("both", contenders["compile"], tensors(case, "cpu"))
    assert seen == [{"dynamic": False}] * 4
    # Else a second backward pass through one graph is an error.
    assert not torch._functorch.config.donated_buffer
