"""The oracle against definitions: finite differences, extended precision, hand-computed cases."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from companion import reference
from companion.exercises.properties import (
    FIXED_LINE,
    LINEAR_IN_GAMMA,
    LINEAR_IN_GRAD_Y,
    MEAN_IS_BETA,
    NO_MOVE,
    NO_STRETCH,
    RESTORED,
    ROWS_ALONG_X_HAT,
    ROWS_SUM_TO_0,
    SECOND_NO_MOVE,
    VARIANCE,
)

SHAPES = [(5, 3), (7, 1), (3, 2, 4), (2, 3, 2, 2), (2, 2, 2, 1, 2)]


def numerical_gradient(function, at, step=1e-6):
    """Central differences of a scalar function of an array."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[index] = step
        gradient[index] = (function(at + moved) - function(at - moved)) / (2 * step)
    return gradient


@pytest.fixture(params=list(itertools.product(SHAPES, [0.0, 1e-5, 0.3])), ids=str)
def case(request):
    shape, eps = request.param
    rng = np.random.default_rng(0)
    x, grad_y, v = rng.normal(size=(3, *shape))
    gamma, beta, v_gamma, v_beta = rng.normal(size=(4, shape[1]))
    return x, grad_y, v, gamma, beta, v_gamma, v_beta, eps


def test_forward_of_a_hand_computed_batch():
    # (0, 0, 6): mean 2, deviations -2, -2, 4, variance 24/3 = 8; with ε = 1 the root is 3.
    batch = reference.forward([[0.0], [0.0], [6.0]], gamma=[3.0], beta=[1.0], eps=1.0)
    assert batch.batch_mean.item() == 2
    assert batch.batch_var.item() == 8
    np.testing.assert_allclose(batch.x_hat[:, 0], [-2 / 3, -2 / 3, 4 / 3], rtol=1e-15)
    np.testing.assert_allclose(batch.y[:, 0], [-1, -1, 5], rtol=1e-15)
    assert batch.m == 3


@pytest.mark.parametrize("offset", [0, 10**8])
def test_moments_agree_with_exact_rational_arithmetic(offset):
    values = np.random.default_rng(0).integers(-1000, 1000, size=(999, 1)) / 1024 + offset
    exact = [Fraction(value) for value in values[:, 0]]
    mean = sum(exact) / len(exact)
    var = sum((value - mean) ** 2 for value in exact) / len(exact)
    got_mean, got_var = reference.moments(values)
    assert abs(Fraction(got_mean[0]) - mean) <= abs(mean) * Fraction(1, 10**15)
    assert abs(Fraction(got_var[0]) - var) <= var * Fraction(1, 10**12)


@pytest.mark.parametrize("offset", [1e12, -1e15])
def test_moments_are_right_to_the_last_digit(offset):
    values = np.random.default_rng(0).normal(offset, size=(5000, 3))
    got_mean, got_var = reference.moments(values)
    for channel in range(3):
        exact = [Fraction(value) for value in values[:, channel]]
        mean = sum(exact) / len(exact)
        var = sum((value - mean) ** 2 for value in exact) / len(exact)
        spacing = Fraction(float(np.spacing(abs(offset))))
        assert abs(Fraction(got_mean[channel]) - mean) <= spacing * Fraction(51, 100)
        assert abs(Fraction(got_var[channel]) - var) <= var * Fraction(1, 10**13)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (-1,), (0, 1, 2)])
def test_statistics_over_any_axes(axes):
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    mean, var = reference.moments(x, axes)
    np.testing.assert_allclose(mean, x.mean(axis=axes), atol=1e-15)
    np.testing.assert_allclose(var, x.var(axis=axes), rtol=1e-13)
    batch = reference.forward(x, gamma=np.full(mean.shape, 2.0), eps=0, axes=axes)
    np.testing.assert_allclose(batch.y.var(axis=axes), 4, rtol=1e-12)


@pytest.mark.parametrize("law", [MEAN_IS_BETA, VARIANCE], ids=lambda law: law.says)
def test_moments_of_the_output(case, law):
    x, _, _, gamma, beta, *_, eps = case
    batch = reference.forward(x, gamma, beta, eps)
    assert law.error(batch.y, x, gamma, beta, eps) <= 1e-14
    assert law.error(batch.x_hat, x, np.ones_like(gamma), np.zeros_like(beta), eps) <= 1e-14


@pytest.mark.parametrize("law", [NO_MOVE, NO_STRETCH], ids=lambda law: law.says)
@pytest.mark.parametrize("backward", [reference.backward, reference.backward_staged])
def test_what_no_gradient_contains(case, law, backward):
    x, grad_y, _, gamma, beta, *_, eps = case
    gradients = backward(grad_y, reference.forward(x, gamma, beta, eps))
    assert law.error(gradients.x, grad_y, x, gamma, eps) <= 1e-14


@pytest.mark.parametrize(
    "law", [LINEAR_IN_GRAD_Y, SECOND_NO_MOVE, LINEAR_IN_GAMMA], ids=lambda law: law.says
)
def test_what_no_second_gradient_contains(case, law):
    x, grad_y, v, gamma, beta, *_, eps = case
    double = reference.double_backward(v, grad_y, reference.forward(x, gamma, beta, eps))
    assert law.error(double, v, grad_y, x, gamma, eps) <= 1e-14


def test_staged_backward_equals_the_closed_form(case):
    x, grad_y, _, gamma, beta, *_, eps = case
    batch = reference.forward(x, gamma, beta, eps)
    for staged, closed in zip(
        reference.backward_staged(grad_y, batch), reference.backward(grad_y, batch), strict=True
    ):
        np.testing.assert_allclose(staged, closed, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backward", [reference.backward, reference.backward_staged])
def test_backward_agrees_with_finite_differences(case, backward):
    x, grad_y, _, gamma, beta, *_, eps = case
    gradients = backward(grad_y, reference.forward(x, gamma, beta, eps))

    def loss(x=x, gamma=gamma, beta=beta):
        return (reference.forward(x, gamma, beta, eps).y * grad_y).sum()

    np.testing.assert_allclose(gradients.x, numerical_gradient(lambda a: loss(x=a), x), atol=1e-7)
    expected = numerical_gradient(lambda a: loss(gamma=a), gamma)
    np.testing.assert_allclose(gradients.gamma, expected, atol=1e-7)
    expected = numerical_gradient(lambda a: loss(beta=a), beta)
    np.testing.assert_allclose(gradients.beta, expected, atol=1e-7)


def test_double_backward_agrees_with_finite_differences(case):
    x, grad_y, v, gamma, beta, v_gamma, v_beta, eps = case
    double = reference.double_backward(
        v, grad_y, reference.forward(x, gamma, beta, eps), v_gamma, v_beta
    )

    def weighted(x=x, grad_y=grad_y, gamma=gamma):
        first = reference.backward(grad_y, reference.forward(x, gamma, beta, eps))
        return (first.x * v).sum() + (first.gamma * v_gamma).sum() + (first.beta * v_beta).sum()

    expected = numerical_gradient(lambda a: weighted(x=a), x)
    np.testing.assert_allclose(double.x, expected, atol=1e-6)
    expected = numerical_gradient(lambda a: weighted(grad_y=a), grad_y)
    np.testing.assert_allclose(double.grad_y, expected, atol=1e-6)
    expected = numerical_gradient(lambda a: weighted(gamma=a), gamma)
    np.testing.assert_allclose(double.gamma, expected, atol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_jacobian(eps):
    x, grad_y = np.random.default_rng(0).normal(size=(2, 6))
    matrix = reference.jacobian(x, gamma=1.7, eps=eps)
    batch = reference.forward(x[:, None], [1.7], eps=eps)
    expected = reference.backward(grad_y[:, None], batch).x[:, 0]
    np.testing.assert_allclose(matrix @ grad_y, expected, rtol=1e-12)
    assert ROWS_SUM_TO_0.error(matrix, x, 1.7, eps) <= 1e-14
    assert ROWS_ALONG_X_HAT.error(matrix, x, 1.7, eps) <= 1e-14
    # Eigenvalues of P: 1 (m - 2 times), 0, and ε/(σ²+ε).
    var = batch.batch_var.item()
    eigenvalues = np.linalg.eigvalsh(matrix * np.sqrt(var + eps) / 1.7)
    np.testing.assert_allclose(
        np.sort(eigenvalues), np.sort([0, eps / (var + eps), 1, 1, 1, 1]), atol=1e-13
    )


@settings(deadline=None, derandomize=True)
@given(
    x=hnp.arrays(
        np.float64, st.tuples(st.integers(2, 9), st.integers(1, 4)), elements=st.floats(-1e6, 1e6)
    ),
    scale=st.floats(0.5, 4),
    shift=st.floats(-1e3, 1e3),
)
def test_the_output_ignores_shift_and_bounds_every_value(x, scale, shift):
    batch = reference.forward(x)
    assert np.abs(batch.x_hat).max() <= np.sqrt(batch.m - 1) * (1 + 1e-9)
    moved = reference.forward(scale * x + shift, eps=scale**2 * 1e-5)
    tolerance = 1e-9 * (1 + (np.abs(x).max() + abs(shift)) / np.sqrt(1e-5))
    np.testing.assert_allclose(moved.x_hat, batch.x_hat, atol=tolerance)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 10.0])
def test_inference_returns_its_input_at_the_parameters_of_the_identity(eps):
    mean, var = np.array([3.0, -1e4, 0.0]), np.array([1e-6, 4.0, 25.0])
    assert RESTORED.error((np.sqrt(var + eps), mean), mean, var, eps) < 1e-14
    assert RESTORED.error((np.sqrt(var + eps), 0 * mean), mean, var, eps) > 0.1


def test_inference_is_a_fixed_affine_map():
    rng = np.random.default_rng(0)
    x, (mean, gamma, beta), var = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 3)), rng.random(3)
    scale, shift = reference.inference_affine(mean, var, gamma, beta)
    y = reference.inference(x, mean, var, gamma, beta)
    np.testing.assert_allclose(y, scale[:, None] * x + shift[:, None], rtol=1e-12, atol=1e-13)
    assert FIXED_LINE.error(y, x, mean, var, gamma, beta, 1e-5) < 1e-12
    np.testing.assert_allclose(reference.inference(x[:1], mean, var, gamma, beta), y[:1], rtol=0)


def test_population_statistics_are_unbiased():
    batches = [[[0.0], [2.0]], [[10.0], [16.0]]]
    mean, var = reference.population_statistics(batches)
    assert mean == [7]  # of 1 and 13
    assert var == [10]  # 2/1 times the mean of the biased 1 and 9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: reference.forward([1.0, 2.0]), ValueError, "ndim: expected.*got rank 1"),
        (lambda: reference.forward([[1.0]], eps=-1), ValueError, "eps: expected.*got -1"),
        (lambda: reference.forward([[1j], [2]]), TypeError, "x: expected real.*complex"),
        (lambda: reference.forward([["a"]]), TypeError, "x: expected real"),
        (
            lambda: reference.forward(np.ones((2, 3)), gamma=[1, 2]),
            ValueError,
            r"gamma: expected 3 .*\(2,\)",
        ),
        (
            lambda: reference.forward(np.ones((2, 3)), beta=[1, 2]),
            ValueError,
            r"beta: expected 3 .*\(2,\)",
        ),
        (lambda: reference.forward(np.ones((0, 3))), ValueError, r"x: expected at least one"),
        (lambda: reference.moments(np.ones((2, 3)), axes=(0, 0)), ValueError, "axes: expected"),
        (lambda: reference.moments(np.ones((2, 3)), axes=(2,)), ValueError, "axes: expected"),
        (lambda: reference.moments(np.ones((2, 3)), axes=()), ValueError, "axes: expected"),
        (lambda: reference.inference([[1.0]], [0.0], [-1.0]), ValueError, "var: expected"),
        (lambda: reference.inference([[1.0]], [0], [1], eps=-1), ValueError, "eps: expected"),
        (lambda: reference.inference_affine([0.0], [-1.0]), ValueError, "var: expected"),
        (lambda: reference.jacobian([[1.0], [2.0]]), ValueError, "x: expected one channel"),
        (lambda: reference.population_statistics([]), ValueError, "batches: expected"),
        (lambda: reference.population_statistics([[[1.0]]]), ValueError, "at least 2"),
        (
            lambda: reference.population_statistics([np.ones((2, 1)), np.ones((3, 1))]),
            ValueError,
            r"one size, got sizes \[2, 3\]",
        ),
        (
            lambda: reference.backward(np.ones((3, 2)), reference.forward(np.ones((2, 2)))),
            ValueError,
            r"grad_y: expected.*\(2, 2\), got \(3, 2\)",
        ),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_axes_may_be_an_iterator():
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    np.testing.assert_array_equal(
        reference.forward(x, axes=iter((0, 2))).y, reference.forward(x, axes=(0, 2)).y
    )
