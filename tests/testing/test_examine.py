"""The tests that any implementation may be put to, of this package's own and of wrong ones."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion import variants
from companion.exercises import properties
from companion.exercises.exercise import Property
from companion.functional import batch_norm, sync_batch_norm
from companion.testing import OPERATIONS, Verdict, examine
from companion.testing.operation import NAMES

BACKENDS = ["eager", "cpu"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_package_has_every_property(name):
    verdict = examine(name)
    assert verdict, verdict
    assert verdict.excess < 0.7
    assert verdict.operation == name


@pytest.mark.parametrize("backend", BACKENDS)
def test_so_does_every_backend(backend):
    def forward(x, gamma, beta, eps):
        return batch_norm(x, None, None, gamma, beta, True, eps=eps, backend=backend)

    def step(x, mean, var, weight, bias, momentum, eps):
        return batch_norm(x, mean, var, weight, bias, True, momentum, eps, backend=backend)

    def backward(grad_y, x, gamma, eps):
        y = forward(x.requires_grad_(), gamma, None, eps)
        return torch.autograd.grad(y, x, grad_y)[0]

    def inference(x, mean, var, gamma, beta, eps):
        return batch_norm(x, mean, var, gamma, beta, eps=eps, backend=backend)

    for name, function in {
        "forward": forward,
        "training-step": step,
        "backward": backward,
        "second-derivatives": lambda x, gamma, eps: forward(x, gamma, None, eps),
        "inference": inference,
    }.items():
        verdict = examine(name, function)
        assert verdict, verdict


def test_so_do_further_layers_and_conversions():
    def alone(x, gamma, beta, eps):
        return sync_batch_norm(x, None, None, gamma, beta, True, eps=eps)

    def tracked(channels, batches, momentum, eps):
        dtype = batches[0].dtype if batches else torch.float64
        layer = variants.SyncBatchNorm(channels, eps, momentum).to(dtype)
        for x in batches:
            layer(x)
        return layer.running_mean, layer.running_var

    def finite(channels, batches, momentum, eps):
        layer = nn.BatchNorm1d(channels, eps, momentum, dtype=torch.float64)
        for x in batches:
            with companion.finite_statistics(layer):
                layer(x)
        return layer.running_mean, layer.running_var

    for name, implementation in {
        "forward": alone,
        "running": tracked,
        "overflow": finite,
        "conversion": companion.convert,
        "recomputation": lambda channels: variants.SyncBatchNorm(channels).double(),
    }.items():
        verdict = examine(name, implementation)
        assert verdict, verdict


def test_what_is_said_of_a_wrong_result():
    verdict = examine("masked", lambda x, mask, _eps: x * mask[:, None])
    assert not verdict
    assert [each.name for each in verdict.broken] == ["VALID_ALONE"]
    assert repr(verdict) == (
        "VALID_ALONE fails on two of four sequences, padded with 0:\n"
        "    Valid values are normalized as if there were no padding"
    )


def test_a_result_that_is_not_finite_violates_everything():
    verdict = examine("forward", lambda x, *_: x * np.nan)
    assert [each.name for each in verdict.broken] == ["MEAN_IS_BETA", "VARIANCE", "LINE"]
    assert verdict.excess == np.inf


def test_the_first_case_that_shows_it_is_named():
    def in_float32(x, gamma, beta, eps):
        y = batch_norm(x.float(), None, None, gamma.float(), beta.float(), True, eps=eps)
        return y.to(x.dtype)

    (first, *_) = examine("forward", in_float32).broken
    assert first.on == "eight rows of three channels"


def test_each_property_is_known_by_what_it_says():
    laws = [each for each in vars(properties).values() if isinstance(each, Property)]
    assert len(NAMES) == len(laws)
    for operation in OPERATIONS.values():
        assert all(NAMES[law.says] for law in operation.properties)


def test_arguments_are_copies_that_share_what_the_case_shares():
    seen = []

    def step(x, mean, var, weight, bias, momentum, eps):
        seen.append((mean is bias, var is weight))
        return batch_norm(x, mean.clone(), var.clone(), weight, bias, True, momentum, eps)

    assert examine("training-step", step)
    assert seen == [(False, False), (True, True)]


def test_errors_name_what_was_expected():
    with pytest.raises(ValueError, match=r"operation: expected one of forward, .*, got 'fourth'"):
        examine("fourth")
    with pytest.raises(TypeError, match="implementation: expected a function, got int"):
        examine("forward", 3)


@pytest.mark.parametrize(
    ("operation", "result", "came"),
    [
        ("forward", None, "NoneType"),
        ("forward", torch.zeros(3, 8), r"shape \(3, 8\)"),
        ("backward", torch.zeros(1, 3), r"shape \(1, 3\)"),
        ("running", torch.zeros(3), r"shape \(3,\)"),
        ("running", (torch.zeros(3), 1.0), r"\(shape \(3,\), shape \(\)\)"),
    ],
)
def test_a_result_of_another_shape_is_no_verdict(operation, result, came):
    message = f"implementation: expected .*shape .*, got {came}"
    with pytest.raises(ValueError, match=message):
        examine(operation, lambda *_: result)


def test_the_shape_is_asked_for_in_every_case():
    flat = r"expected shape \(4, 3, 2, 3\), got shape \(4, 3, 6\)"
    with pytest.raises(ValueError, match=flat):
        examine("forward", lambda x, *_: x.flatten(2) if x.ndim > 2 else x)


@pytest.mark.parametrize("operation", ["forward", "conversion"])
def test_an_exception_names_the_case_and_the_call(operation):
    with pytest.raises(TypeError) as caught:
        examine(operation, lambda: None)
    case = next(iter(OPERATIONS[operation].cases()))
    assert caught.value.__notes__ == [
        f"{operation}, {case.what}: called as {OPERATIONS[operation].call}"
    ]


def test_a_verdict_without_faults_is_true():
    assert re.fullmatch("running: every property holds", repr(Verdict("running", (), 0.1)))
