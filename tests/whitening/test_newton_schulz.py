"""What the Newton–Schulz iteration converges to, how fast, and that it stays there."""

import math

import _formulas
import numpy as np
import pytest
import torch

from companion.whitening import covariance, whiten, whitening_matrix

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))


def with_spectrum(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    turn = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(turn)[0]
    sigma = turn @ torch.diag(values) @ turn.T
    return (sigma + sigma.T) / 2


def with_least_share(share, d=4):
    """A covariance matrix whose smallest eigenvalue is `share` of the trace, the others alike."""
    return with_spectrum([share] + [(1 - share) / (d - 1)] * (d - 1)) * 7.0


def iterated_variance(shares, steps):
    """q_T² of the shares: q_0 = √a, q_{k+1} = q_k(3 - q_k²)/2."""
    q = np.sqrt(shares)
    for _ in range(steps):
        q = q * (3 - q * q) / 2
    return q * q


def error(sigma, steps):
    w = whitening_matrix(sigma, "newton-schulz", steps=steps)
    return torch.linalg.matrix_norm(w @ sigma @ w.T - torch.eye(len(sigma)), 2).item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [1, 5, 15, 40])
@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e4, 1e8])
def test_each_axis_follows_the_scalar_iteration(kappa, steps, device):
    values = np.geomspace(1.0, 1 / kappa, 6) * 3.0
    sigma = with_spectrum(values).to(device)
    w = whitening_matrix(sigma, "newton-schulz", steps=steps)
    after = torch.linalg.eigvalsh(w @ sigma @ w.T).cpu().numpy()
    exact = np.sort(iterated_variance(values / values.sum(), steps))
    np.testing.assert_allclose(after, exact, rtol=0, atol=1e-15 * max(kappa, 100))


def least_share(steps, tolerance):
    """The share from which on the scalar iteration is within the tolerance: by bisection."""
    low, high = 1e-12, 1.0
    for _ in range(200):
        middle = math.sqrt(low * high)
        inside = abs(iterated_variance(middle, steps) - 1) < tolerance
        low, high = (low, middle) if inside else (middle, high)
    return high


@pytest.mark.parametrize(
    ("steps", "tolerance", "stated"), [(15, 1e-8, 1.32e-4), (15, 1e-8, 1 / 7613), (5, 1e-3, 0.133)]
)
def test_the_stated_conditions(steps, tolerance, stated):
    share = least_share(steps, tolerance)
    assert share <= stated <= 1.01 * share
    assert error(with_least_share(1.001 * share), steps) < tolerance
    assert error(with_least_share(0.99 * share), steps) > tolerance


def test_five_and_fifteen_steps_on_a_sample():
    # The smallest of the eigenvalues holds a fifth of the variance.
    sigma = with_least_share(0.2)
    assert 1e-5 < error(sigma, 5) < 1e-3
    assert error(sigma, 15) < 1e-13


@pytest.mark.parametrize("share", [0.3, 0.05, 1e-3, 1e-5, 1e-8])
def test_the_stated_number_of_steps_suffices(share):
    steps = math.ceil(math.log(1 / math.sqrt(share)) / math.log(1.5)) + 5
    assert error(with_least_share(share), steps) < 1e-8 + 1e-15 / share


def uncoupled(sigma, steps):
    """The iteration as the paper and its code write it: P ← (3P - P³ Σ_N)/2."""
    trace = sigma.trace()
    p = torch.eye(len(sigma), dtype=sigma.dtype)
    for _ in range(steps):
        p = 1.5 * p - 0.5 * p @ p @ p @ (sigma / trace)
    return p / trace.sqrt()


@pytest.mark.parametrize("kappa", [30.0, 1e3])
def test_the_papers_iteration_diverges_after_it_has_converged_and_this_one_does_not(kappa):
    sigma = with_spectrum(np.geomspace(1.0, 1 / kappa, 8))
    exact = torch.from_numpy(_formulas.matrix(sigma.numpy(), "newton-schulz", 5))
    assert (uncoupled(sigma, 5) - exact).abs().max() < 1e-13 * exact.abs().max()
    # What takes over are rounding errors that do not commute with Σ, in float64.
    zca = whitening_matrix(sigma)
    assert not (uncoupled(sigma, 25) - zca).abs().max() < zca.abs().max()
    for steps in (25, 200):
        ours = whitening_matrix(sigma, "newton-schulz", steps=steps)
        assert (ours - zca).abs().max() < 1e-14 * kappa * zca.abs().max()


def test_a_direction_that_is_not_there_stays_zero():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    y = whiten(x, "newton-schulz", eps=1e-6, steps=60)
    variances = torch.linalg.eigvalsh(covariance(y))
    exact = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(variances, exact, rtol=0, atol=1e-4)
