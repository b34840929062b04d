"""Each property holds of the oracle, at any scale, and fails of a function that is wrong."""

import numpy as np
import pytest
import torch

from companion import reference
from companion.exercises import properties
from companion.exercises.exercise import Property

INPUTS = {
    "ordinary": lambda normal: normal,
    "values around 10⁸": lambda normal: normal + 1e8,
    "width 10⁻⁶": lambda normal: 1e-6 * normal,
    "width 10⁶": lambda normal: 1e6 * normal,
    "two values": lambda normal: normal[:2],
}
SHAPES = [(6, 3), (3, 3, 2, 2)]


class Batch:
    """Arguments of every kind of property, and what the oracle makes of them."""

    def __init__(self, kind, shape, eps):
        rng = np.random.default_rng(0)
        self.x = INPUTS[kind](rng.normal(size=shape))
        self.grad_y, self.v = rng.normal(size=(2, *self.x.shape))
        self.gamma, self.beta, self.eps = rng.normal(size=3), rng.normal(size=3), eps
        self.batch = reference.forward(self.x, self.gamma, self.beta, eps)
        self.forward = self.x, self.gamma, self.beta, eps
        self.backward = self.grad_y, self.x, self.gamma, eps
        self.second = self.v, *self.backward
        self.values = self.x.reshape(len(self.x), -1)[:, 0]

    @property
    def y(self):
        return self.batch.y

    @property
    def grad_x(self):
        return reference.backward(self.grad_y, self.batch).x

    @property
    def direct(self):
        """∂L/∂x with statistics held constant."""
        return self.batch.gamma * self.batch.inv_std * self.grad_y

    @property
    def jacobian(self):
        return reference.jacobian(self.values, 2.0, self.eps)

    @property
    def double(self):
        return reference.double_backward(self.v, self.grad_y, self.batch)


HOLDS = {
    "MEAN_IS_BETA": lambda b: (b.y, *b.forward),
    "VARIANCE": lambda b: (b.y, *b.forward),
    "LINE": lambda b: (b.y, *b.forward),
    "NO_MOVE": lambda b: (b.grad_x, *b.backward),
    "NO_STRETCH": lambda b: (b.grad_x, *b.backward),
    "ROWS_SUM_TO_0": lambda b: (b.jacobian, b.values, 2.0, b.eps),
    "ROWS_ALONG_X_HAT": lambda b: (b.jacobian, b.values, 2.0, b.eps),
    "TANGENTS_SUM_TO_0": lambda b: (b.grad_x, *b.backward),
    "LINEAR_IN_GRAD_Y": lambda b: (b.double, *b.second),
    "SECOND_NO_MOVE": lambda b: (b.double, *b.second),
    "LINEAR_IN_GAMMA": lambda b: (b.double, *b.second),
}
# A small mistake in what a property speaks of.
FAILS = {
    "MEAN_IS_BETA": lambda b: (b.y + 1e-6, *b.forward),
    "VARIANCE": lambda b: (
        b.batch.beta + 1.01 * (b.y - b.batch.beta),
        *b.forward,
    ),
    "LINE": lambda b: (
        b.batch.beta + 1.01 * (b.y - b.batch.beta),
        *b.forward,
    ),
    "NO_MOVE": lambda b: (b.grad_x + 1e-6 * b.direct, *b.backward),
    "NO_STRETCH": lambda b: (
        b.grad_x + 1e-6 * b.batch.inv_std * b.batch.x_hat / np.abs(b.batch.x_hat).max(),
        *b.backward,
    ),
    "ROWS_SUM_TO_0": lambda b: (
        b.jacobian + 1e-6 * np.eye(len(b.values)) / np.sqrt(b.values.var() + b.eps),
        b.values,
        2.0,
        b.eps,
    ),
    "ROWS_ALONG_X_HAT": lambda b: (
        b.jacobian + 1e-6 * np.eye(len(b.values)) / np.sqrt(b.values.var() + b.eps),
        b.values,
        2.0,
        b.eps,
    ),
    "TANGENTS_SUM_TO_0": lambda b: (b.grad_x + 1e-6 * b.direct, *b.backward),
    "LINEAR_IN_GRAD_Y": lambda b: (
        (b.double[0] + 1e-6 * b.batch.gamma * b.batch.inv_std * b.grad_y, *b.double[1:]),
        *b.second,
    ),
    "SECOND_NO_MOVE": lambda b: (
        (b.double[0], b.double[1] + 1e-6 * b.batch.gamma * b.batch.inv_std**2, b.double[2]),
        *b.second,
    ),
    "LINEAR_IN_GAMMA": lambda b: (
        (*b.double[:2], b.double[2] + 1e-6 * b.batch.squeeze(b.batch.inv_std)),
        *b.second,
    ),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", HOLDS)
def test_each_holds_of_the_oracle_and_of_no_mistake(name, kind):
    each = getattr(properties, name)
    for shape in SHAPES:
        for eps in (0.0, 1e-5, 0.3):
            batch = Batch(kind, shape, eps)
            assert each.error(*HOLDS[name](batch)) <= 1e-13, (shape, eps)
            if kind != "values around 10⁸":  # of which x̂ has eight digits
                assert each.error(*FAILS[name](batch)) > each.at_most, (shape, eps)


@pytest.mark.parametrize("name", HOLDS)
def test_each_may_be_asked_of_tensors(name):
    batch = Batch("ordinary", (6, 3), 0.3)
    result, *arguments = HOLDS[name](batch)
    results = [*result] if isinstance(result, tuple) else result
    arguments = [torch.as_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    assert getattr(properties, name).error(results, *arguments) <= 1e-13


def test_a_mistake_in_one_channel_is_not_hidden_by_a_larger_one():
    x, gamma, beta = np.random.default_rng(0).normal(size=(5, 2)), np.array([1e9, 1.0]), np.zeros(2)
    y = reference.forward(x, gamma, beta).y
    wrong = np.add(y, [0.0, 1e-3]), x, gamma, beta, 1e-5
    assert properties.MEAN_IS_BETA.error(y, *wrong[1:]) < 1e-14
    assert properties.MEAN_IS_BETA.error(*wrong) > 1e-4
    assert properties.VARIANCE.error(y * [1.0, 1.001], *wrong[1:]) > 1e-4


def test_a_result_with_nan_has_no_property():
    batch = Batch("ordinary", (6, 3), 0.3)
    error = properties.NO_MOVE.error(np.nan * batch.grad_x, *batch.backward)
    assert not error <= properties.NO_MOVE.at_most


def test_a_property_of_one_of_several_results():
    second = Property("it is 0", lambda value, _argument: abs(value)).of(1)
    assert second.says == "it is 0"
    assert second.error((5.0, 0.25), None) == 0.25
