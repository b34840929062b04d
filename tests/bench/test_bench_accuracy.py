import numpy as np
import pytest
import torch
from torch.nn import functional as F

from companion.bench import accuracy
from companion.bench.accuracy import checked_channels, errors, relative_error
from companion.bench.operations import layers, tensors
from companion.bench.suite import Case


def errors_of(case, **replaced):
    given = tensors(case, "cpu")
    ways = layers(case, "cpu", "eager", compiled=False)
    ways["ours"] = ways["torch"]._replace(**replaced)
    return errors(case, ways, given)


@pytest.mark.parametrize(
    "case",
    [
        Case("tiny", (8, 5, 4, 6)),
        Case("tiny", (8, 5, 4, 6), channels_last=True),
        Case("rows", (40, 7)),
        Case("module", (60, 100), module=True),
    ],
)
def test_errors_are_those_of_rounding(case):
    record = errors_of(case)
    assert record["channels"] == case.shape[1]
    for output in ("y", "grad_x"):
        assert 0 < record[output]["torch"] < 1e-6
        assert record[output]["ours"] == record[output]["torch"]


def test_half_precision_has_its_own_errors():
    record = errors_of(Case("tiny", (8, 5, 4, 6), dtype="bfloat16"))
    assert 1e-4 < record["y"]["torch"] < 1e-2


def test_a_wrong_output_and_a_wrong_gradient_show():
    case = Case("tiny", (8, 5, 4, 6))
    wrong = errors_of(case, train=lambda x: F.batch_norm(x, None, None, None, None, True) * 1.5)
    assert wrong["y"]["ours"] > 0.1
    assert wrong["grad_x"]["ours"] > 0.1
    assert wrong["y"]["torch"] < 1e-6
    broken = errors_of(case, train=lambda x: x / 0.0)
    assert broken["y"]["ours"] is None


def test_of_large_tensors_some_channels_are_checked(monkeypatch):
    monkeypatch.setattr(accuracy, "_MOST_VALUES", 1)
    monkeypatch.setattr(accuracy, "checked_channels", lambda C, m: checked_channels(C, m, 2 * m))
    case = Case("tiny", (8, 5, 4, 6))
    for channel, seen in ((0, True), (1, False), (3, True), (4, False)):
        wrong = torch.ones(5)
        wrong[channel] = 2.0
        record = errors_of(
            case, train=lambda x, w=wrong: F.batch_norm(x, None, None, w, None, True)
        )
        right = errors_of(case, train=lambda x: F.batch_norm(x, None, None, None, None, True))
        assert record["channels"] == 2
        assert record["y"]["torch"] < 1e-6
        assert (record["y"] != right["y"]) == seen


def test_the_checked_channels_are_evenly_spaced():
    assert list(checked_channels(5, 100, 500)) == [0, 1, 2, 3, 4]
    assert list(checked_channels(64, 100, 3200)) == list(range(0, 64, 2))
    assert list(checked_channels(3, 10**9, 100)) == [0]
    assert len(checked_channels(1024, 10, 10**9)) == 1024
    assert len(checked_channels(64, 401408)) == 10


def test_errors_are_relative_to_the_largest_value():
    assert relative_error(np.array([1.0, -3.9]), np.array([1.0, -4.0])) == pytest.approx(0.025)
    assert relative_error(np.array([np.nan]), np.array([1.0])) is None
    assert relative_error(torch.ones(2).numpy(), np.ones(2)) == 0.0
