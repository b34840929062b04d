"""The hand-derived backward passes against NumPy formulas, differences and closed forms."""

import math

import _formulas
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from companion.whitening import covariance, whiten, whitening_matrix
from companion.whitening.zca import _Sylvester

METHODS = ("zca", "pca", "cholesky", "newton-schulz")
SMOOTH = ("zca", "cholesky", "newton-schulz")
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))
STEPS = 8


def rotation(d, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def symmetric(a):
    return (a + a.mT) / 2


def with_spectrum(*values, turned=True):
    values = torch.tensor(values, dtype=torch.float64)
    turn = rotation(len(values)) if turned else torch.eye(len(values), dtype=torch.float64)
    return symmetric(turn @ torch.diag(values) @ turn.T)


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def matrix_gradient(sigma, upstream, method):
    sigma = sigma.clone().requires_grad_()
    loss = (upstream * whitening_matrix(sigma, method, steps=STEPS)).sum()
    return torch.autograd.grad(loss, sigma)[0]


def slope(function, at, along, step=1e-5):
    """Derivative by the five-point central difference, of error O(step⁴)."""
    ahead = 8 * (function(at + step * along) - function(at - step * along))
    return (ahead - function(at + 2 * step * along) + function(at - 2 * step * along)) / (12 * step)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spectrum", [(0.3, 1.0, 2.5, 7.0), (1.0, 1.01, 1.03, 5.0), (1e-3, 1, 9)])
def test_the_gradient_of_the_matrix_is_the_formula(spectrum, method, device):
    sigma = with_spectrum(*spectrum)
    upstream = normal(*sigma.shape)
    gradient = matrix_gradient(sigma.to(device), upstream.to(device), method).cpu().numpy()
    exact = _formulas.gradient(sigma.numpy(), upstream.numpy(), method, STEPS)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-10 * np.abs(exact).max())
    matrix = whitening_matrix(sigma.to(device), method, steps=STEPS).cpu().numpy()
    exact = _formulas.matrix(sigma.numpy(), method, STEPS)
    np.testing.assert_allclose(matrix, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_the_batch_is_the_formula(method, eps):
    x = (normal(20, 4) @ normal(4, 4, seed=2) + 5.0).requires_grad_()
    grad_y = normal(20, 4, seed=3)
    y = whiten(x, method, eps, steps=STEPS)
    (gradient,) = torch.autograd.grad(y, x, grad_y)
    data = x.detach().numpy()
    exact = _formulas.whiten_backward(data, grad_y.numpy(), method, eps, STEPS)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-11 * np.abs(exact).max())
    exact = _formulas.whiten(data, method, eps, STEPS)
    np.testing.assert_allclose(y.detach(), exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-10, 1e-14, 0.0])
@pytest.mark.parametrize("method", SMOOTH)
def test_near_and_at_repeated_eigenvalues_the_gradient_is_the_slope(method, gap):
    sigma = with_spectrum(1.0, 1.0 + gap, 1.0 + 2 * gap, 4.0)
    upstream, along = normal(4, 4), symmetric(normal(4, 4, seed=2))
    gradient = matrix_gradient(sigma, upstream, method)
    expected = slope(
        lambda a: (upstream * whitening_matrix(a, method, steps=STEPS)).sum(), sigma, along, 1e-3
    )
    assert (gradient * along).sum().item() == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_near_repeated_eigenvalues_the_gradient_of_pca_is_the_slope(gap):
    sigma = with_spectrum(1.0, 1.0 + gap, 4.0)
    upstream, along = normal(3, 3), symmetric(normal(3, 3, seed=2))
    gradient = matrix_gradient(sigma, upstream, "pca")
    expected = slope(
        lambda a: (upstream * whitening_matrix(a, "pca")).sum(), sigma, along, 1e-2 * gap
    )
    assert (gradient * along).sum().item() == pytest.approx(expected.item(), rel=1e-4)


def by_pytorch(sigma, method):
    """ZCA and PCA as one writes them with PyTorch alone."""
    values, vectors = torch.linalg.eigh(sigma)
    pca = (vectors / values.sqrt()).T
    return vectors @ pca if method == "zca" else pca


@pytest.mark.parametrize("spectrum", [(1.0, 1.0, 1.0), (2.0, 2.0, 5.0)])
def test_pytorchs_zca_gradient_is_lost_at_repeated_eigenvalues_and_this_one_is_not(spectrum):
    sigma = with_spectrum(*spectrum, turned=False).requires_grad_()
    upstream = normal(3, 3)
    (theirs,) = torch.autograd.grad((upstream * by_pytorch(sigma, "zca")).sum(), sigma)
    assert not theirs.isfinite().all()
    ours = matrix_gradient(sigma.detach(), upstream, "zca")
    exact = _formulas.gradient(sigma.detach().numpy(), upstream.numpy(), "zca", 0)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("spectrum", [(1.0, 1.0, 1.0), (2.0, 2.0, 5.0)])
def test_pca_at_repeated_eigenvalues_has_no_gradient_and_says_so(spectrum, turned):
    sigma = with_spectrum(*spectrum, turned=turned)
    assert matrix_gradient(sigma, normal(3, 3), "pca").isnan().any()
    # The forward pass has chosen axes, and whitens by them.
    w = whitening_matrix(sigma, "pca")
    assert (w @ sigma @ w.T - torch.eye(3)).abs().max() < 1e-14


def test_pytorchs_pca_gradient_at_eigenvalues_equal_to_rounding_is_a_number_without_a_meaning():
    sigma = with_spectrum(2.0, 2.0, 5.0).requires_grad_()
    values = torch.linalg.eigvalsh(sigma.detach())
    assert 0 < values[1] - values[0] < 1e-14
    (theirs,) = torch.autograd.grad((normal(3, 3) * by_pytorch(sigma, "pca")).sum(), sigma)
    assert theirs.isfinite().all()
    assert theirs.abs().max() > 1e13
    assert matrix_gradient(sigma.detach(), normal(3, 3), "pca").isnan().any()


def test_pca_beside_repeated_eigenvalues_has_a_gradient_and_pytorchs_has_not():
    # The loss depends on the axis of the eigenvalue 5 alone: on the first row of W.
    sigma, along = with_spectrum(2.0, 2.0, 5.0, turned=False), symmetric(normal(3, 3, seed=2))
    upstream = normal(3, 3) * torch.tensor([[1.0], [0.0], [0.0]])
    given = sigma.clone().requires_grad_()
    (theirs,) = torch.autograd.grad((upstream * by_pytorch(given, "pca").flip(0)).sum(), given)
    assert theirs.isnan().any()
    expected = slope(
        lambda a: (upstream * whitening_matrix(a, "pca")).sum(), sigma, along, step=1e-3
    )
    ours = (matrix_gradient(sigma, upstream, "pca") * along).sum().item()
    assert ours == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("row", [1, 2])
def test_pca_has_no_gradient_if_the_loss_depends_on_one_of_two_equal_axes(row):
    sigma = with_spectrum(2.0, 2.0, 5.0, turned=False)
    upstream = normal(3, 3) * torch.eye(3)[row][:, None]
    assert matrix_gradient(sigma, upstream, "pca").isnan().any()


def test_where_pca_has_no_gradient_the_rest_of_the_stack_keeps_its():
    repeated, distinct = with_spectrum(2.0, 2.0, 5.0), with_spectrum(1.0, 2.0, 3.0)
    upstream = normal(3, 3)
    gradient = matrix_gradient(torch.stack([repeated, distinct]), upstream, "pca")
    assert gradient[0].isnan().any()
    # A stack may be multiplied in another order than one matrix: the last bits may differ.
    alone = matrix_gradient(distinct, upstream, "pca")
    torch.testing.assert_close(gradient[1], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("least", [1.0, 1e-3])
def test_pca_of_a_batch_without_full_rank_has_a_gradient_and_pytorchs_has_not(least):
    # Five examples in eight dimensions: ε is a fourfold eigenvalue of Σ + εI. The four components
    # that exist depend on the examples smoothly; the others are 0.
    x = normal(5, 8) * torch.logspace(math.log10(least), 0, 8, dtype=torch.float64)
    weights, eps, along = normal(5, 4, seed=2), 0.1, normal(5, 8, seed=3)

    def theirs(x):
        centred = x - x.mean(dim=0)
        sigma = centred.T @ centred / len(x) + eps * torch.eye(8, dtype=x.dtype)
        return centred @ by_pytorch(sigma, "pca").T.flip(1)

    def gradient(function):
        given = x.clone().requires_grad_()
        return torch.autograd.grad((weights * function(given)[:, :4]).sum(), given)[0]

    def ours(x):
        return whiten(x, "pca", eps)

    expected = slope(lambda a: (weights * ours(a)[:, :4]).sum(), x, along, 1e-4).item()
    assert (gradient(ours) * along).sum().item() == pytest.approx(expected, rel=1e-7)
    # The other four are 0 and may have a share in the loss.
    assert ours(x)[:, 4:].abs().max() < 1e-13
    given = x.clone().requires_grad_()
    assert torch.autograd.grad(ours(given).pow(3).sum(), given)[0].isfinite().all()
    lost = (gradient(theirs) * along).sum().item()
    assert not abs(lost - expected) < 1e-6 * abs(expected)


@pytest.mark.parametrize("options", [{"eps": 0.1}, {"groups": 2}, {"eps": 0.1, "groups": 4}])
@pytest.mark.parametrize("method", METHODS)
def test_first_and_second_derivatives_of_the_whole_map(method, options):
    x = (normal(7, 4) @ normal(4, 4, seed=2)).requires_grad_()
    assert gradcheck(lambda x: whiten(x, method, steps=5, **options), x)
    assert gradgradcheck(lambda x: whiten(x, method, steps=5, **options), x)


@pytest.mark.parametrize("spectrum", [(1.0, 1.0, 1.0), (2.0, 2.0, 5.0)])
@pytest.mark.parametrize("method", SMOOTH)
def test_first_and_second_derivatives_at_repeated_eigenvalues(method, spectrum):
    sigma = with_spectrum(*spectrum).requires_grad_()
    assert gradcheck(lambda a: whitening_matrix(symmetric(a), method, steps=5), sigma)
    assert gradgradcheck(lambda a: whitening_matrix(symmetric(a), method, steps=5), sigma)


@pytest.mark.parametrize("method", METHODS)
def test_the_third_derivative_in_one_dimension(method):
    # W = s^(-1/2) exactly, also by the iteration, which starts at its solution.
    s = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    value = whitening_matrix(s, method)
    for power, factor in ((1.5, -0.5), (2.5, 0.75), (3.5, -1.875)):
        (value,) = torch.autograd.grad(value, s, create_graph=True)
        assert value.item() == pytest.approx(factor * 2.0**-power, rel=1e-12)


def test_the_sylvester_equation_with_a_right_hand_side_that_is_not_symmetric():
    root = with_spectrum(0.5, 1.0, 3.0).requires_grad_()
    rhs = normal(3, 3).requires_grad_()

    def solve(root, rhs):
        values, vectors = torch.linalg.eigh(symmetric(root).detach())
        return _Sylvester.apply(symmetric(root), rhs, vectors, values)

    solution = solve(root, rhs)
    assert not torch.allclose(solution, solution.T)
    assert torch.allclose(root @ solution + solution @ root, rhs, rtol=1e-10, atol=1e-10)
    assert gradcheck(solve, (root, rhs))
    assert gradgradcheck(solve, (root, rhs))


@pytest.mark.parametrize("method", METHODS)
def test_a_stack_of_matrices_is_whitened_one_by_one(method):
    sigmas = torch.stack([covariance(normal(30, 3, seed=seed)) for seed in range(4)])
    sigmas = sigmas.reshape(2, 2, 3, 3).requires_grad_()
    upstream = normal(2, 2, 3, 3, seed=9)
    stack = whitening_matrix(sigmas, method, 0.1)
    (gradient,) = torch.autograd.grad(stack, sigmas, upstream)
    for i in range(2):
        for j in range(2):
            alone = sigmas[i, j].detach().requires_grad_()
            matrix = whitening_matrix(alone, method, 0.1)
            assert torch.allclose(stack[i, j], matrix, rtol=0, atol=1e-14)
            (expected,) = torch.autograd.grad(matrix, alone, upstream[i, j])
            assert torch.allclose(gradient[i, j], expected, rtol=0, atol=1e-13)
