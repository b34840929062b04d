"""Bad input: an error of PyTorch's type that names the argument, before anything changes."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from companion.functional import batch_norm

CHANNELS = 3


def arguments(**changed):
    good = {
        "input": torch.randn(4, CHANNELS),
        "running_mean": torch.zeros(CHANNELS),
        "running_var": torch.ones(CHANNELS),
        "weight": torch.ones(CHANNELS),
        "bias": torch.zeros(CHANNELS),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
    }
    return good | changed


def refusal(function, **given):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the type is what is compared)
        function(**given)
    return caught.value


def inference_tensor():
    with torch.inference_mode():
        return torch.ones(CHANNELS)


PER_CHANNEL = {
    "too many": (torch.ones(CHANNELS + 1), "expected shape (3,)", "got (4,)"),
    "a scalar": (torch.ones(()), "expected shape (3,)", "got ()"),
    "float64": (torch.ones(CHANNELS).double(), "expected torch.float32", "got torch.float64"),
    "float16": (torch.ones(CHANNELS).half(), "expected torch.float32", "got torch.float16"),
    "bfloat16": (torch.ones(CHANNELS).bfloat16(), "expected torch.float32", "got torch.bfloat16"),
    "integers": (torch.ones(CHANNELS).long(), "expected torch.float32", "got torch.int64"),
    "another device": (torch.ones(CHANNELS, device="meta"), "device, cpu", "got meta"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("mistake", PER_CHANNEL)
def test_per_channel_arguments(name, mistake, training):
    value, *texts = PER_CHANNEL[mistake]
    given = arguments(training=training, **{name: value})
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs)
    assert str(ours).startswith(f"{name}: ")
    for text in texts:
        assert text in str(ours)


def test_row_vectors_are_refused_for_parameters_as_for_statistics():
    """PyTorch takes a (1, C) weight by accident, and refuses (1, C) statistics."""
    for name in ("running_mean", "running_var", "weight", "bias"):
        given = arguments(**{name: torch.ones(1, CHANNELS)})
        assert type(refusal(batch_norm, **given)) is RuntimeError


INPUTS = {
    "rank 1": (torch.randn(CHANNELS), "at least 2 dimensions (N, C, ...), got 1: (3,)"),
    "rank 0": (torch.randn(()), "at least 2 dimensions (N, C, ...), got 0: ()"),
    "int64": (torch.ones(4, CHANNELS).long(), "got torch.int64"),
    "int32": (torch.ones(4, CHANNELS).int(), "got torch.int32"),
    "uint8": (torch.ones(4, CHANNELS).byte(), "got torch.uint8"),
    "bool": (torch.ones(4, CHANNELS).bool(), "got torch.bool"),
    "complex": (torch.ones(4, CHANNELS) * 1j, "got torch.complex64"),
    "float8": (torch.ones(4, CHANNELS).to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
    "sparse": (torch.ones(4, CHANNELS).to_sparse(), "torch.sparse_coo"),
}


@pytest.mark.parametrize("state", ["statistics", "nothing"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mistake", INPUTS)
def test_input(mistake, training, state):
    value, text = INPUTS[mistake]
    given = arguments(input=value, training=training, weight=None, bias=None)
    if state == "nothing" and training:
        given |= {"running_mean": None, "running_var": None}
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs)
    assert str(ours).startswith("input: expected ")
    assert text in str(ours)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 0)])
def test_one_value_per_channel_in_training(shape):
    given = arguments(input=torch.randn(shape))
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs) is ValueError
    message = f"input: expected more than 1 value per channel when training, got shape {shape}"
    assert str(ours) == message


def test_one_value_per_channel_otherwise():
    batch_norm(**arguments(input=torch.randn(1, CHANNELS), training=False))


@pytest.mark.parametrize("value", ["a list", np.ones((4, CHANNELS))])
def test_input_of_another_kind(value):
    assert str(refusal(batch_norm, **arguments(input=value))).startswith(
        f"input: expected a tensor, got {type(value).__name__}"
    )


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
def test_per_channel_arguments_of_another_kind(name):
    given = arguments(**{name: [1.0] * CHANNELS})
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs) is TypeError
    assert str(ours) == f"{name}: expected a tensor or None, got list"


@pytest.mark.parametrize(
    ("eps", "training", "text"),
    [
        (0.0, True, "eps: expected a positive number in training, got 0.0"),
        (-1e-5, True, "eps: expected a positive number in training, got -1e-05"),
        (-1e-5, False, "eps: expected a number not below 0, got -1e-05"),
        (None, True, "eps: expected a number, got NoneType"),
        ("a", False, "eps: expected a number, got str"),
    ],
)
def test_eps(eps, training, text):
    given = arguments(eps=eps, training=training)
    ours = refusal(batch_norm, **given)
    assert str(ours) == text
    # PyTorch 2.9 takes any number.
    if torch.__version__ >= "2.10" or not isinstance(eps, float):
        assert type(ours) is type(refusal(F.batch_norm, **given))


@pytest.mark.parametrize("eps", [1, np.float32(1e-5), np.float64(1e-5), float("inf")])
def test_eps_of_other_number_types(eps):
    assert batch_norm(**arguments(eps=eps)).isfinite().all()


def test_eps_zero_is_allowed_in_evaluation():
    # PyTorch 2.10 and 2.11 refuse it.
    given = arguments(eps=0.0, training=False)
    expected = F.batch_norm(**(given | {"eps": 1e-30}))
    torch.testing.assert_close(batch_norm(**given), expected)


@pytest.mark.parametrize("momentum", [None, "a"])
def test_momentum(momentum):
    given = arguments(momentum=momentum)
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs) is TypeError
    assert str(ours).startswith("momentum: expected a number")


@pytest.mark.parametrize(
    ("missing", "training", "text"),
    [
        (["running_mean"], True, "running_mean: expected a tensor, since running_mean and"),
        (["running_var"], True, "running_var: expected a tensor, since running_mean and"),
        (["running_mean"], False, "running_mean: expected a tensor when not training, got None"),
        (["running_var"], False, "running_var: expected a tensor when not training, got None"),
        (["running_mean", "running_var"], False, "running_mean: expected a tensor when not"),
    ],
)
def test_missing_statistics(missing, training, text):
    given = arguments(training=training, **dict.fromkeys(missing))
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs)
    assert str(ours).startswith(text)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_that_require_a_gradient(name, training):
    given = arguments(training=training, **{name: torch.ones(CHANNELS, requires_grad=True)})
    ours, theirs = refusal(batch_norm, **given), refusal(F.batch_norm, **given)
    assert type(ours) is type(theirs) is RuntimeError
    assert re.match(f"{name}: expected a tensor that does not require a gradient", str(ours))
    with torch.no_grad():
        batch_norm(**given)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3, TypeError, "num_batches_tracked: expected a tensor or None, got int"),
        (torch.zeros(2, dtype=torch.int64), RuntimeError, "got torch.int64 of shape (2,)"),
        (torch.tensor(False), RuntimeError, "got torch.bool of shape ()"),
    ],
)
def test_num_batches_tracked(value, error, text):
    ours = refusal(batch_norm, **arguments(num_batches_tracked=value))
    assert type(ours) is error
    assert str(ours).startswith("num_batches_tracked: expected ")
    assert text in str(ours)


@pytest.mark.parametrize(
    "mistake",
    [
        {"input": torch.randn(1, CHANNELS)},
        {"input": torch.randn(4, CHANNELS + 1)},
        {"input": torch.ones(4, CHANNELS).long()},
        {"eps": 0.0},
        {"bias": torch.ones(CHANNELS).half()},
        {"running_var": torch.ones(CHANNELS).double()},
        {"running_var": torch.ones(1).expand(CHANNELS)},
        {"running_var": inference_tensor()},
        {"num_batches_tracked": torch.tensor(3, device="meta")},
    ],
)
def test_nothing_changes_before_an_error(mistake):
    state = {
        "running_mean": torch.zeros(CHANNELS),
        "running_var": torch.ones(CHANNELS),
        "num_batches_tracked": torch.tensor(3),
    }
    error = refusal(batch_norm, **arguments(**(state | mistake)))
    assert ": expected " in str(error)
    assert torch.equal(state["running_mean"], torch.zeros(CHANNELS))
    assert torch.equal(state["running_var"], torch.ones(CHANNELS))
    assert state["num_batches_tracked"].item() == 3


def test_statistics_made_in_inference_mode_can_be_moved_in_it():
    with torch.inference_mode():
        given = arguments(running_mean=torch.zeros(CHANNELS), running_var=torch.ones(CHANNELS))
        batch_norm(**given)
    assert given["running_mean"].abs().max() > 0


def test_meta_tensors_work_together():
    x = torch.randn(2, 3, 4, 4, device="meta").contiguous(memory_format=torch.channels_last)
    state = torch.zeros(3, device="meta"), torch.ones(3, device="meta")
    y = batch_norm(x, *state, training=True)
    assert (y.device.type, y.shape, y.stride()) == ("meta", x.shape, x.stride())


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
def test_a_float64_input_takes_float64_parameters_only(name):
    given = {key: value for key, value in arguments().items() if isinstance(value, torch.Tensor)}
    given = {key: value.double() for key, value in given.items()}
    batch_norm(**given, training=True)
    given[name] = given[name].float()
    error = refusal(batch_norm, **given, training=True)
    assert type(error) is RuntimeError
    assert str(error).startswith(f"{name}: expected torch.float64 with an input of torch.float64")
