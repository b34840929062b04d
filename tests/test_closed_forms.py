import math

import mpmath
import numpy as np
import pytest

from companion import closed_forms


@pytest.mark.parametrize("m", [2, 3, 10, 50])
def test_std_shrinkage_is_the_mean_of_the_sampled_standard_deviation(m):
    samples = np.random.default_rng(0).normal(size=(200_000, m)).std(axis=1)
    error = 4 * samples.std() / math.sqrt(len(samples))
    assert abs(closed_forms.std_shrinkage(m) - samples.mean()) < error


def test_std_shrinkage_at_two_and_at_many():
    assert closed_forms.std_shrinkage(2) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-14)
    assert closed_forms.std_shrinkage(10**6) == pytest.approx(1 - 3 / 4e6, abs=1e-9)


def test_batch_identity_mse_is_in_the_square_of_the_unit():
    assert closed_forms.batch_identity_mse(4, var=9) == 9 * closed_forms.batch_identity_mse(4)
    assert closed_forms.batch_identity_mse(1000) == pytest.approx(1.5e-3, rel=1e-2)


@pytest.mark.parametrize(("steps", "every"), [(0, 1), (5, 1), (6, 3), (7, 3), (2, 9)])
@pytest.mark.parametrize("rate", [0.1, 1.0, 1.7])
def test_bias_drift_is_where_descent_goes(steps, every, rate):
    u, t = np.random.default_rng(0).normal([[3.0], [1.5]], 1.0, (2, 8))
    b = 0.0
    for step in range(steps):
        if step % every == 0:
            mean = (u + b).mean()
        b -= rate * (u + b - mean - t).mean()
    expected = closed_forms.bias_drift(steps, rate, t.mean(), every)
    assert b == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_errors_of_the_drift():
    with pytest.raises(ValueError, match="steps: expected a number not below 0, got -1"):
        closed_forms.bias_drift(-1, 0.1, 1.0)
    with pytest.raises(ValueError, match="every: expected at least 1 step, got 0"):
        closed_forms.bias_drift(1, 0.1, 1.0, every=0)
    with pytest.raises(ValueError, match="learning_rate: expected a positive number, got 0"):
        closed_forms.bias_drift(1, 0, 1.0)


def _correlations(length, rho):
    places = np.arange(length)
    return rho ** np.abs(places[:, None] - places)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 3), (8, 8)])
@pytest.mark.parametrize("rho", [(0.0, 0.0), (0.5, 0.9), (1.0, 0.3), (-0.7, 0.2)])
def test_effective_batch_is_the_sum_over_all_pairs_of_positions(height, width, rho):
    one_map = np.kron(_correlations(height, rho[0]), _correlations(width, rho[1]))
    covariance = np.kron(np.eye(3), one_map)  # of three examples, variance 1
    var_of_mean = covariance.sum() / len(covariance) ** 2
    assert closed_forms.effective_batch(3, height, width, *rho) == pytest.approx(
        1 / var_of_mean, rel=1e-12
    )


def test_effective_batch_of_long_axes_and_of_maps_all_alike():
    # Along an infinite axis n values are worth n(1 - ρ)/(1 + ρ).
    assert closed_forms.effective_batch(1, 10**5, 1, 0.8, 0.0) == pytest.approx(1e5 / 9, rel=1e-3)
    assert closed_forms.effective_batch(7, 28, 28, 1.0, 1.0) == pytest.approx(7, rel=1e-13)
    nearly = closed_forms.effective_batch(7, 28, 28, 1 - 1e-9, 1.0)
    assert nearly == pytest.approx(7 * (1 + 9e-9), rel=1e-9)


def test_errors_of_the_effective_batch():
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        closed_forms.effective_batch(1, 1, 0, 0.5, 0.5)
    with pytest.raises(ValueError, match="along_height: expected a correlation above -1, at most"):
        closed_forms.effective_batch(1, 2, 2, -1.0, 0.5)
    with pytest.raises(ValueError, match="along_width: expected a correlation above -1, at most"):
        closed_forms.effective_batch(1, 2, 2, 0.5, 1.1)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="m: expected at least 2 values, got 1"):
        closed_forms.std_shrinkage(1)


@pytest.mark.parametrize("m", [2, 3, 5, 40])
def test_x_hat_bound_is_attained_by_one_value_away_from_all_others(m):
    x = np.zeros(m)
    x[0] = 7.0
    assert closed_forms.x_hat_bound(m) == pytest.approx((x[0] - x.mean()) / x.std(), rel=1e-14)


def test_x_hat_variance():
    assert closed_forms.x_hat_variance(4.0, eps=0.0) == 1
    assert closed_forms.x_hat_variance(0.0) == 0
    assert closed_forms.x_hat_variance(1e-5, eps=1e-5) == 0.5
    with pytest.raises(ValueError, match="var, eps: expected numbers not below 0, not both 0"):
        closed_forms.x_hat_variance(0.0, eps=0.0)


@pytest.mark.parametrize("m", [2, 3, 4, 8, 1000])
def test_moments_of_x_hat(m):
    assert closed_forms.x_hat_moment(m, 0) == pytest.approx(1, rel=1e-10)
    assert closed_forms.x_hat_moment(m, 2) == pytest.approx(1, rel=1e-10)
    assert closed_forms.x_hat_moment(m, 3) == 0
    assert closed_forms.x_hat_moment(m, 4) == pytest.approx(3 * (m - 1) / (m + 1), rel=1e-10)


@pytest.mark.parametrize("m", [3, 4, 8, 32])
def test_density_of_x_hat_has_the_moments(m):
    # x̂ = √(m-1)·sin t turns the density into a smooth function of t.
    width = math.sqrt(m - 1)
    t = (np.arange(20_000) + 0.5) / 20_000 * math.pi - math.pi / 2
    values = width * np.sin(t)
    density = np.array([closed_forms.x_hat_density(value, m) for value in values])
    weights = density * width * np.cos(t) * math.pi / 20_000
    for order in (0, 2, 4, 6):
        expected = closed_forms.x_hat_moment(m, order)
        assert (weights * values**order).sum() == pytest.approx(expected, rel=1e-5)


def test_density_of_x_hat_at_four_is_uniform():
    for value in (0.0, -1.0, 1.7):
        assert closed_forms.x_hat_density(value, 4) == pytest.approx(1 / math.sqrt(12))
    assert closed_forms.x_hat_density(1.8, 4) == 0


def test_sixth_moment_of_sampled_x_hat():
    samples = np.random.default_rng(0).normal(size=(5, 400_000))
    x_hat = (samples - samples.mean(axis=0)) / samples.std(axis=0)
    assert (x_hat[0] ** 6).mean() == pytest.approx(closed_forms.x_hat_moment(5, 6), rel=0.01)


def test_errors_of_the_forms_of_x_hat():
    with pytest.raises(ValueError, match="m: expected at least 1 value, got 0"):
        closed_forms.x_hat_bound(0)
    with pytest.raises(ValueError, match="m: expected at least 2 values, got 1"):
        closed_forms.x_hat_moment(1, 4)
    with pytest.raises(ValueError, match="order: expected a number not below 0, got -2"):
        closed_forms.x_hat_moment(4, -2)
    with pytest.raises(ValueError, match="m: expected at least 3 values, got 2"):
        closed_forms.x_hat_density(0.0, 2)


@pytest.mark.parametrize("m", [3, 4, 7, 20])
def test_inverse_moments_are_integrals_over_the_chi_squared_law(m):
    # Midpoint rule in log q, q = m·σ_B²/σ² with m - 1 degrees of freedom.
    grid = np.linspace(-60, 12, 72_001)
    log_q = (grid[1:] + grid[:-1]) / 2
    log_density = (m - 1) / 2 * (log_q - math.log(2)) - np.exp(log_q) / 2 - math.lgamma((m - 1) / 2)
    weight = np.exp(log_density) * (grid[1] - grid[0])
    var = 9 * np.exp(log_q) / m
    assert weight.sum() == pytest.approx(1, rel=1e-9)
    inverse_std = (weight / np.sqrt(var)).sum()
    assert closed_forms.inverse_std_mean(m, std=3) == pytest.approx(inverse_std, rel=1e-8)
    if m > 3:
        inverse_var = (weight / var).sum()
        assert closed_forms.inverse_var_mean(m, var=9) == pytest.approx(inverse_var, rel=1e-8)


def test_inverse_moments_are_infinite_for_small_batches():
    assert closed_forms.inverse_std_mean(2) == closed_forms.inverse_var_mean(3) == math.inf
    assert closed_forms.inverse_var_mean(2) == math.inf
    assert closed_forms.inverse_std_mean(10**6) == pytest.approx(1, abs=1e-5)


def test_example_noise_is_the_variance_of_the_sampled_output():
    rng = np.random.default_rng(0)
    m, z = 100, 1.5
    # An exponential law, standardized: skewness 2, kurtosis 9.
    batches = rng.exponential(size=(50_000, m)) - 1
    batches[:, 0] = z
    centred = z - batches.mean(axis=1)
    measured = (centred / batches.std(axis=1)).var()
    predicted = closed_forms.example_noise(m, z, skewness=2, kurtosis=9)
    assert measured == pytest.approx(predicted, rel=0.1)
    assert closed_forms.example_noise(50, 2.0) == pytest.approx(3 / 50)


def test_relu_mean_at_two_at_four_and_at_many():
    assert closed_forms.relu_mean(2) == pytest.approx(0.5, rel=1e-14)
    # At m = 4 x̂ is uniform on ±√3.
    assert closed_forms.relu_mean(4) == pytest.approx(math.sqrt(3) / 4, rel=1e-14)
    assert closed_forms.relu_mean(10**7) == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        closed_forms.inverse_std_mean,
        closed_forms.inverse_var_mean,
        closed_forms.relu_mean,
        lambda m: closed_forms.example_noise(m, 0.0),
    ],
)
def test_one_value_has_no_spread(function):
    with pytest.raises(ValueError, match="m: expected at least 2 values, got 1"):
        function(1)


@pytest.mark.parametrize("m", [3, 10, 39, 41, 43, 100, 10**5, 10**9, 10**12])
def test_gamma_ratios_keep_their_digits_for_every_batch_size(m):
    with mpmath.workdps(60):
        ratio = mpmath.gammaprod([mpmath.mpf(m) / 2], [mpmath.mpf(m - 1) / 2])
        c_m = mpmath.sqrt(mpmath.mpf(2) / m) * ratio
        inverse = mpmath.gammaprod([mpmath.mpf(m - 2) / 2], [mpmath.mpf(m - 1) / 2])
        expected = {
            "std_shrinkage": c_m,
            "batch_identity_mse": 2 * (1 - c_m),
            "inverse_std_mean": mpmath.sqrt(mpmath.mpf(m) / 2) * inverse,
            "relu_mean": mpmath.sqrt((m - 1) / (2 * mpmath.pi * m)) / c_m,
        }
        computed = {name: getattr(closed_forms, name)(m) for name in expected}
        for name, exact in expected.items():
            assert abs(computed[name] / exact - 1) < 1e-12, name
        assert (
            abs(closed_forms.x_hat_moment(m, 4) / (mpmath.mpf(3) * (m - 1) / (m + 1)) - 1) < 1e-15
        )


def test_the_density_of_a_large_batch_is_the_normal_one():
    normal = math.exp(-0.5) / math.sqrt(2 * math.pi)
    assert closed_forms.x_hat_density(1.0, 10**12) == pytest.approx(normal, rel=1e-10)


@pytest.mark.parametrize(
    ("form", "name"),
    [("batch_identity_mse", "var"), ("inverse_std_mean", "std"), ("inverse_var_mean", "var")],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(form, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number"):
        getattr(closed_forms, form)(8, value)


def test_growth_of_a_linear_network_is_that_of_its_two_parts():
    # The projection keeps m - 2 of the m - 1 directions without a mean; the inverse variance is
    # that of m - 1 Gaussian directions whose variance is 1 after the normalization below.
    for m in (4, 5, 8, 100):
        variance = m / (m - 1)
        square = (m - 2) / (m - 1) * closed_forms.inverse_var_mean(m, variance)
        assert closed_forms.linear_gradient_growth(m) ** 2 == pytest.approx(square, rel=1e-12)
    assert closed_forms.linear_gradient_growth(3) == math.inf
    with pytest.raises(ValueError, match="m: expected at least 3 values, got 2"):
        closed_forms.linear_gradient_growth(2)


@pytest.mark.parametrize("rho", [1.0, 1.25, 2.5])
def test_growth_through_shortcuts_is_a_ratio_of_gamma_functions(rho):
    for blocks in (0, 1, 7, 60):
        logarithm = math.lgamma(blocks + 1 + rho) - math.lgamma(1 + rho) - math.lgamma(blocks + 1)
        growth = closed_forms.shortcut_gradient_growth(blocks, rho)
        assert growth**2 == pytest.approx(math.exp(logarithm), rel=1e-10)
        assert closed_forms.shortcut_gradient_growth(blocks, rho, 0.0) == 1.0
    half = closed_forms.shortcut_gradient_growth(2, rho, -0.5)
    assert half**2 == pytest.approx((1 + rho / 4) * (1 + rho / 5))
    with pytest.raises(ValueError, match="blocks: expected a number not below 0, got -1"):
        closed_forms.shortcut_gradient_growth(-1, rho)
    with pytest.raises(ValueError, match="rho: expected at least 1, got"):
        closed_forms.shortcut_gradient_growth(1, 0.5)


def ring_all_gather(ranks):
    """Steps until every rank has every block, and blocks that each has sent; rank 0's."""
    blocks_on = [{rank} for rank in range(ranks)]
    last, steps = list(range(ranks)), 0
    while any(len(blocks) < ranks for blocks in blocks_on):
        last = [last[rank - 1] for rank in range(ranks)]
        for rank in range(ranks):
            blocks_on[rank].add(last[rank])
        steps += 1
    return steps


def doubling_steps(ranks):
    """Steps until every rank has every block where each learns all that another knows."""
    known, steps = 1, 0
    while known < ranks:
        known, steps = 2 * known, steps + 1
    return steps


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8, 64, 1024])
def test_collective_operations_take_the_steps_of_their_schedules(ranks):
    n = 2 * ranks
    gathered = closed_forms.collective_traffic(ranks, n)
    steps = ring_all_gather(ranks) if ranks <= 64 else ranks - 1
    assert gathered == (steps, steps * n)
    # A reduction that leaves each rank a share of the sums, then a gathering of the shares.
    reduced = closed_forms.collective_traffic(ranks, n, "all_reduce")
    assert reduced == (2 * steps, 2 * steps * (n // ranks))
    for operation in ("all_gather", "all_reduce"):
        steps, sent = closed_forms.collective_traffic(ranks, n, operation, "tree")
        assert steps == doubling_steps(ranks)
        assert sent == (n * (ranks - 1) if operation == "all_gather" else n * steps)


def test_the_cost_of_a_message_is_latency_and_bytes():
    assert closed_forms.sync_cost(1, 129, 1e-5, 1e9) == 0.0
    assert closed_forms.sync_cost(4, 100, 1e-5, math.inf) == pytest.approx(3e-5)
    assert closed_forms.sync_cost(4, 100, 1e-5, 1e6) == pytest.approx(3e-5 + 2400e-6)
    reduced = closed_forms.sync_cost(4, 100, 1e-5, 1e6, operation="all_reduce")
    assert reduced == pytest.approx(6e-5 + 1200e-6)
    with pytest.raises(ValueError, match="latency: expected a positive number, got 0"):
        closed_forms.sync_cost(2, 1, 0, 1.0)
    with pytest.raises(ValueError, match="bandwidth"):
        closed_forms.sync_cost(2, 1, 1.0, -1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "ranks: expected at least 1, got 0"),
        ((2, -1), "values: expected a number not below 0, got -1"),
        ((2, 1, "broadcast"), "operation: expected 'all_gather' or 'all_reduce', got 'broadcast'"),
        ((2, 1, "all_reduce", "star"), "schedule: expected 'ring' or 'tree', got 'star'"),
    ],
)
def test_mistakes_about_collective_operations_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        closed_forms.collective_traffic(*arguments)


@pytest.mark.parametrize("std", [0.1, 1.0, 2**0.5, 7.0, 60.0])
def test_the_slope_of_tanh_is_its_integral(std):
    def mean(function):
        ends = [-mpmath.inf, -40, -10, -4, -2, -1, 0, 1, 2, 4, 10, 40, mpmath.inf]
        with mpmath.workdps(30):
            return float(mpmath.quad(lambda z: function(z) * mpmath.npdf(z, 0, std), ends))

    powers = [
        mean(lambda z: mpmath.sech(z) ** 2),
        mean(lambda z: mpmath.sech(z) ** 4),
        mean(lambda z: mpmath.sech(z) ** 6),
    ]
    for order, power in enumerate(powers, start=1):
        expected = power ** (1 / order)
        assert closed_forms.tanh_slope(std, order) == pytest.approx(expected, rel=1e-12)
    factor = std * math.sqrt(powers[1] / mean(lambda z: mpmath.tanh(z) ** 2))
    assert closed_forms.recurrent_factor(std) == pytest.approx(factor, rel=1e-12)


def test_a_step_of_a_recurrence_multiplies_by_the_mean_degree_of_tanh():
    # Coefficients in orthonormal Hermite polynomials, by Gauss's rule.
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    weights = weights / weights.sum()
    values, below, here = np.tanh(nodes), np.zeros_like(nodes), np.ones_like(nodes)
    squares = []
    for k in range(60):
        squares.append((weights @ (values * here)) ** 2)
        below, here = here, (nodes * here - math.sqrt(k) * below) / math.sqrt(k + 1)
    degree = np.arange(60) @ squares / np.sum(squares)
    assert closed_forms.recurrent_factor(1.0) ** 2 == pytest.approx(degree, rel=1e-6)


def test_the_factor_of_a_step_at_its_ends():
    assert closed_forms.recurrent_factor(0.0, 0.25) == 0.5
    assert closed_forms.recurrent_factor(1e-6) == pytest.approx(1, abs=1e-11)
    assert closed_forms.recurrent_factor(3.0, 0.0) == 0
    factors = [closed_forms.recurrent_factor(std) for std in (0.1, 0.3, 1.0, 3.0, 10.0)]
    assert factors == sorted(factors)
    assert factors[0] > 1
    many = math.sqrt(4 / (3 * math.sqrt(2 * math.pi)) * 300)
    assert closed_forms.recurrent_factor(300.0) == pytest.approx(many, rel=5e-3)


def test_errors_of_the_recurrence():
    for function in (closed_forms.tanh_slope, closed_forms.recurrent_factor):
        with pytest.raises(ValueError, match="std: expected a number not below 0, got -1"):
            function(-1)
    with pytest.raises(ValueError, match="share: expected a number from 0 to 1, got 2"):
        closed_forms.recurrent_factor(1.0, 2)
    with pytest.raises(ValueError, match="order: expected at least 1, got 0"):
        closed_forms.tanh_slope(1.0, 0)


DECAYS = [(0.1, 0.05), (0.4, 0.02), (0.5, 0.5)]


def in_the_plane(steps, norm, learning_rate, weight_decay, gradient):
    """Weights in the plane, with a gradient orthogonal to them: their lengths and angles."""
    w, lengths, angles = np.array([norm, 0.0]), [norm], []
    for _ in range(steps):
        across = np.array([w[1], -w[0]]) / np.linalg.norm(w)
        new = w - learning_rate * (gradient / np.linalg.norm(w) * across + weight_decay * w)
        angles.append(math.atan2(w[0] * new[1] - w[1] * new[0], w @ new))
        w = new
        lengths.append(np.linalg.norm(w))
    return np.array(lengths), np.array(angles)


@pytest.mark.parametrize(("rate", "decay"), DECAYS)
@pytest.mark.parametrize("start", [0.01, 1.0, 30.0])
def test_weights_come_to_the_equilibrium(rate, decay, start):
    lengths, angles = in_the_plane(int(20 / (rate * decay)), start, rate, decay, 0.3)
    expected = closed_forms.equilibrium_norm(rate, decay, 0.3)
    assert lengths[-1] == pytest.approx(expected, rel=1e-12)
    assert angles[-1] == pytest.approx(closed_forms.equilibrium_angle(rate, decay), rel=1e-12)
    assert closed_forms.equilibrium_norm(rate, decay, 0.6) == pytest.approx(2**0.5 * expected)


def test_the_angle_of_small_decays_keeps_its_digits():
    angle = closed_forms.equilibrium_angle(1e-3, 1e-6)
    assert angle == pytest.approx(math.sqrt(2e-9) * (1 + 1e-9 / 12), rel=1e-15)


def test_decayed_norm_is_near_the_length_above_the_equilibrium():
    for start in (0.6, 1.0, 10.0):
        lengths, _ = in_the_plane(1000, start, 0.4, 0.02, 0.11)
        found = [closed_forms.decayed_norm(t, start, 0.4, 0.02, 0.11) for t in range(1001)]
        assert found[0] == pytest.approx(start, rel=1e-14)
        np.testing.assert_allclose(found, lengths, rtol=0.002)


def test_errors_of_the_decay():
    with pytest.raises(ValueError, match="weight_decay: expected a positive number, got 0"):
        closed_forms.equilibrium_angle(0.1, 0)
    with pytest.raises(ValueError, match=r"expected learning_rate \* weight_decay < 1, got 1\.5"):
        closed_forms.equilibrium_norm(3.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="gradient: expected a positive number, got 0"):
        closed_forms.equilibrium_norm(0.1, 0.1, 0)
    with pytest.raises(ValueError, match="norm: expected a positive number, got -1"):
        closed_forms.decayed_norm(1, -1, 0.1, 0.1, 1.0)
    with pytest.raises(ValueError, match="steps: expected a number not below 0, got -1"):
        closed_forms.decayed_norm(-1, 1.0, 0.1, 0.1, 1.0)
