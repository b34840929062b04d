"""The mathematics of the page against the oracle: the same inputs, 1e-9."""

import math

import numpy as np
import pytest
import torch

from companion import closed_forms, reference
from companion.experiments import memory_traffic
from companion.explore import bundle
from companion.statistics import (
    RunningAverage,
    RunningMoments,
    ema_lag,
    ema_variance,
    merge,
)
from companion.whitening import gd_steps

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def batches():
    """Batches of every kind that a reader can drag together."""
    generator = np.random.default_rng(0)
    for m in (2, 3, 8, 64, 257):
        for scale in (1e-3, 1.0, 1e3):
            yield generator.standard_normal(m) * scale + generator.uniform(-5, 5) * scale
    yield np.full(5, 3.7)  # no variance: ε alone is under the root
    yield np.array([1e5, 1e5 + 1e-3, 1e5 + 3e-3])  # far from 0
    yield np.array([0.0, 0.0, 0.0, 1.0])  # x̂ at its bound


@pytest.fixture(scope="module")
def call(browser):
    """Call an exported function of `bn.js` in the browser."""
    page = browser.new_page()
    page.add_script_tag(content=bundle.core())
    code = "([v, name, values]) => globalThis.bnExplore[v]['bn.js'][name](...values)"
    yield lambda name, *values: page.evaluate(code, [bundle.version(), name, values])
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_forward(call, eps):
    for x in batches():
        actual = call("forward", x.tolist(), {"gamma": -1.7, "beta": 0.3, "eps": eps})
        expected = reference.forward(x[:, None], [-1.7], [0.3], eps)
        assert actual["m"] == len(x)
        for name, array in {
            "mean": expected.batch_mean,
            "var": expected.batch_var,
            "invStd": expected.inv_std,
            "xHat": expected.x_hat,
            "y": expected.y,
        }.items():
            np.testing.assert_allclose(actual[name], array.squeeze(), **TIGHT, err_msg=name)


@pytest.mark.browser
def test_the_variance_far_from_zero_keeps_its_digits(call):
    x = 1e6 + np.array([0.0, 1e-3, 5e-3, 7e-3])
    expected = reference.moments(x[:, None])[1].item()
    assert call("moments", x.tolist())["var"] == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.browser
def test_fixed_statistics(call):
    x, (mean, var) = np.linspace(-3, 5, 9), (0.7, 2.3)
    actual = call("normalize", x.tolist(), {"mean": mean, "var": var}, {"gamma": 3.0, "eps": 0.1})
    expected = reference.inference(x[:, None], mean, var, 3.0, 0.0, 0.1)
    np.testing.assert_allclose(actual["y"], expected[:, 0], **TIGHT)


@pytest.mark.browser
@pytest.mark.parametrize("blocks", [(3, 1, 2), (1, 4, 2), (1, 2, 1), (1, 1, 2)])
def test_values_normalized_together(call, blocks):
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    actual = call("normalizeTogether", x.ravel().tolist(), x.shape, blocks, 0.1)
    expected = np.empty_like(x)
    for place in np.ndindex(*(size // block for size, block in zip(x.shape, blocks, strict=True))):
        part = tuple(slice(k * b, (k + 1) * b) for k, b in zip(place, blocks, strict=True))
        column = x[part].reshape(-1, 1)
        expected[part] = reference.forward(column, eps=0.1).x_hat.reshape(blocks)
    np.testing.assert_allclose(actual, expected.ravel(), **TIGHT)


@pytest.mark.browser
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_jacobian(call, eps):
    for x in batches():
        if len(x) > 10:
            continue
        actual = np.array(call("jacobian", x.tolist(), {"gamma": 2.0, "eps": eps}))
        np.testing.assert_allclose(actual, reference.jacobian(x, 2.0, eps), **TIGHT)


@pytest.mark.browser
def test_the_share_of_the_others(call):
    for x in batches():
        if 2 < len(x) <= 10 and x.var() > 0:
            squares = reference.jacobian(x, eps=1e-5) ** 2
            expected = 1 - np.diagonal(squares) / squares.sum(axis=1)
            actual = [call("othersShare", x.tolist(), i, {"eps": 1e-5}) for i in range(len(x))]
            np.testing.assert_allclose(actual, expected, **TIGHT)


@pytest.mark.browser
def test_probabilities(call):
    logits = torch.tensor([3.0, -2.0, 800.0, 799.0], dtype=torch.float64)
    actual = call("softmax", logits.tolist())
    np.testing.assert_allclose(actual, torch.softmax(logits, dim=0), **TIGHT)


@pytest.mark.browser
@pytest.mark.parametrize("blocks", [(3, 1, 2, 5), (1, 2, 2, 5), (1, 4, 1, 1), (1, 1, 1, 1)])
def test_values_that_share_a_mean(call, blocks):
    shape, place = (3, 4, 2, 5), (2, 3, 0, 4)
    own = [at // block for at, block in zip(place, blocks, strict=True)]
    cut = tuple(slice(k * size, (k + 1) * size) for k, size in zip(own, blocks, strict=True))
    expected = np.arange(np.prod(shape)).reshape(shape)[cut]
    assert call("sharing", shape, blocks, place) == expected.ravel().tolist()


@pytest.mark.browser
def test_merged_moments(call):
    x = np.random.default_rng(1).standard_normal(20) + 4
    for split in (0, 1, 7, 19, 20):
        parts = [part.tolist() for part in (x[:split], x[split:])]
        moments = [
            call("moments", part) if part else {"m": 0, "mean": 0, "var": 0} for part in parts
        ]
        actual = call("merge", *moments)
        filled = [torch.tensor(part, dtype=torch.float64)[:, None] for part in parts if part]
        whole = merge(*(RunningMoments.of(part) for part in filled))
        expected = reference.moments(x[:, None])
        np.testing.assert_allclose(actual["mean"], expected[0].item(), **TIGHT)
        np.testing.assert_allclose(actual["var"], expected[1].item(), **TIGHT)
        np.testing.assert_allclose(actual["mean"], whole.mean.item(), **TIGHT)
        assert actual["m"] == 20


@pytest.mark.browser
def test_shrinkage(call):
    for m in (2, 3, 4, 17, 256, 1000):
        assert call("stdShrinkage", m) == pytest.approx(closed_forms.std_shrinkage(m), abs=1e-9)


@pytest.mark.browser
def test_eigenvalues(call):
    for a, b, c in [(4.0, 1.5, 2.0), (2.0, 0.0, 7.0), (1.0, 0.999999, 1.0), (3.0, 0.0, 3.0)]:
        actual, matrix = call("eigen", [a, b, c]), np.array([[a, b], [b, c]])
        np.testing.assert_allclose(actual["values"], np.linalg.eigvalsh(matrix)[::-1], **TIGHT)
        for value, vector in zip(actual["values"], actual["vectors"], strict=True):
            np.testing.assert_allclose(matrix @ vector, value * np.array(vector), **TIGHT)
            assert math.hypot(*vector) == pytest.approx(1)


@pytest.mark.browser
def test_second_moment(call):
    x = np.random.default_rng(2).standard_normal((50, 2)) @ [[2.0, 1.0], [0.0, 0.5]]
    expected = x.T @ x / len(x)
    actual = call("secondMoment", x.tolist())
    np.testing.assert_allclose(actual, [expected[0, 0], expected[0, 1], expected[1, 1]], **TIGHT)


@pytest.mark.browser
def test_steps_of_descent(call):
    for values in ([5.0, 5.0], [4.0, 1.0], [9.0, 0.01], [7.0, 0.3]):
        for energy in ([0.5, 0.5], [0.0, 1.0], [3.0, 0.01]):
            for rate in (1.8 / values[0], 1.0 / values[0], 2.0 / sum(values)):
                eigenvalues, excess = torch.tensor([values, energy], dtype=torch.float64)
                expected = gd_steps(eigenvalues, excess, rate)
                assert call("descentSteps", values, energy, rate) == expected


@pytest.mark.browser
def test_steps_of_descent_end(call):
    assert call("descentSteps", [1.0, 1e-9], [0.0, 1.0], 1.8, 0.01, 50) == 50


def descend(u, t, rate, steps, every, inside):
    """The same descent with derivatives by autograd."""
    u, t = torch.tensor([u, t], dtype=torch.float64)
    b = torch.zeros((), dtype=torch.float64)
    for step in range(steps + 1):
        b = b.detach().requires_grad_()
        if inside:
            mean = (u + b).mean()
        elif step % every == 0:
            mean = (u + b).mean().detach()
        loss = (u + b - mean - t).square().mean() / 2
        (gradient,) = torch.autograd.grad(loss, b)
        yield {"b": b.item(), "loss": loss.item(), "gradient": gradient.item()}
        b = b - rate * gradient


@pytest.mark.browser
@pytest.mark.parametrize("inside", [False, True])
def test_descent_on_a_bias(call, inside):
    u, t = (np.random.default_rng(3).normal([[4.0], [-1.2]], 1.0, (2, 11))).tolist()
    for rate, every in [(0.1, 1), (0.5, 3), (1.5, 4), (0.3, 30)]:
        options = {"rate": rate, "steps": 20, "every": every, "inside": inside}
        path, expected = call("biasDescent", u, t, options), [*descend(u, t, **options)]
        assert len(path) == len(expected) == 21
        for name in ("b", "loss", "gradient"):
            np.testing.assert_allclose(
                [state[name] for state in path], [state[name] for state in expected], **TIGHT
            )
        if not inside:
            drift = closed_forms.bias_drift(20, rate, np.mean(t), every)
            assert path[-1]["b"] == pytest.approx(drift, rel=1e-12)


@pytest.mark.browser
@pytest.mark.parametrize("alpha", [0.005, 0.1, 1.0])
def test_a_running_average(call, alpha):
    values = np.random.default_rng(0).normal(4, 1, size=30)
    expected = RunningAverage.empty(torch.Size([]), alpha)
    kept, removed = (call("runningAverage", values.tolist(), alpha, flag) for flag in (False, True))
    for k, value in enumerate(values):
        expected = expected.update(torch.tensor(value))
        assert removed[k] == pytest.approx(expected.value.item(), rel=1e-9)
        assert kept[k] == pytest.approx(expected.started_at(torch.zeros(())).item(), rel=1e-9)


@pytest.mark.browser
@pytest.mark.parametrize("steps", [1, 2, 40])
@pytest.mark.parametrize("alpha", [0.005, 0.1, 1.0])
def test_errors_of_a_running_average(call, alpha, steps):
    moving = {"start": -3.0, "drift": 0.2, "variance": 2.5}
    left = (1 - alpha) ** steps
    for removed, weight in ((False, 1 - left), (True, 1.0)):
        errors = call("averageErrors", alpha, steps, {**moving, "removed": removed})
        assert errors["start"] == pytest.approx(0.0 if removed else -3 * left, abs=1e-12)
        assert errors["lag"] == pytest.approx(-0.2 * weight * ema_lag(alpha, steps), abs=1e-9)
        std = weight * math.sqrt(2.5 * ema_variance(alpha, steps))
        assert errors["std"] == pytest.approx(std, rel=1e-9)


@pytest.mark.browser
def test_backward(call):
    for x in batches():
        g = np.cos(np.arange(len(x)))
        batch = call("forward", x.tolist(), {"eps": 0.1})
        expected = reference.backward(
            g[:, None], reference.forward(x[:, None], [-1.7], eps=0.1)
        ).x.squeeze()
        np.testing.assert_allclose(call("backward", batch, g.tolist(), -1.7), expected, **TIGHT)


@pytest.mark.browser
@pytest.mark.parametrize(("std", "share"), [(0.1, 1.0), (1.0, 0.5), (2.8, 0.9)])
def test_the_factor_of_a_recurrence(call, std, share):
    expected = closed_forms.recurrent_factor(std, share)
    assert call("recurrentFactor", std, share) == pytest.approx(expected, rel=1e-12)


@pytest.mark.browser
def test_the_gradient_through_time(call):
    generator = np.random.default_rng(5)
    weights, inputs = generator.standard_normal((3, 3)), generator.standard_normal((6, 3, 8))
    options = {"gammaH": 0.7, "gammaX": 0.2, "eps": 0.01}
    norms = call("gradientThroughTime", weights.tolist(), inputs.tolist(), options)
    h, states = torch.tensor(np.tanh(inputs[0])).T, []
    for x in torch.tensor(inputs[1:-1]).mT:
        past = torch.nn.functional.batch_norm(
            (h @ torch.tensor(weights).T).requires_grad_(), None, None, training=True, eps=0.01
        )
        h = torch.tanh(0.7 * past + 0.2 * x)
        h.retain_grad()
        states.append(h)
    (h * torch.tensor(inputs[-1]).T).sum().backward()
    expected = [state.grad.norm().item() for state in reversed(states)]
    np.testing.assert_allclose(norms, expected, **TIGHT)


@pytest.mark.browser
def test_traffic(call):
    for name in ("forward", "backward"):
        for tensor, in_flight, kept in [(1000, 1000, 0), (1000, 30, 45), (1000, 300, 100)]:
            expected = memory_traffic.bytes_moved(name, tensor, in_flight, kept)
            assert call("bytesMoved", name, tensor, in_flight, kept) == expected
    for intensity in (0.1, 1.0, 50.0):
        expected = memory_traffic.attainable(intensity, 8.0, 40.0)
        assert call("attainable", intensity, 8.0, 40.0) == expected


@pytest.mark.browser
@pytest.mark.parametrize("start", [0.05, 1.0, 20.0])
def test_weights_that_decay(call, start):
    rates, decay, gradient = [0.5] * 40 + [0.05] * 20, 0.1, 0.2
    path, w = call("decayPath", start, rates, decay, gradient), np.array([start, 0.0])
    assert len(path) == 60
    for rate, state in zip(rates, path, strict=True):
        across = np.array([w[1], -w[0]]) / np.linalg.norm(w)
        new = w - rate * (gradient / np.linalg.norm(w) * across + decay * w)
        cosine = w @ new / np.linalg.norm(w) / np.linalg.norm(new)
        assert state["r"] == pytest.approx(np.linalg.norm(w), rel=1e-9)
        assert np.cos(state["angle"]) == pytest.approx(cosine, rel=1e-9)
        w = new


@pytest.mark.browser
@pytest.mark.parametrize("activation", ["line", "relu", "sigmoid", "tanh"])
def test_gradients_through_a_stack(call, activation):
    """Against autograd."""
    f = {"line": lambda z: z, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    generator = np.random.default_rng(4)
    inputs, gradient = generator.normal(size=(2, 5, 7))  # five units, seven values each
    matrices = generator.normal(size=(3, 5, 5))

    def layer(x):
        x_hat = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-12).sqrt()
        return f[activation](x_hat)

    levels = [layer(torch.tensor(inputs.T)).requires_grad_()]
    for matrix in torch.tensor(matrices):
        levels.append(layer(levels[-1] @ matrix.T))
    top = torch.tensor(gradient.T)
    gradients = torch.autograd.grad(levels[-1], levels[-2::-1], top)
    expected = [top.norm().item(), *(each.norm().item() for each in gradients)]
    given = inputs.tolist(), matrices.tolist(), gradient.tolist()
    np.testing.assert_allclose(call("gradientNorms", activation, *given), expected, rtol=1e-9)


@pytest.mark.browser
@pytest.mark.parametrize("rate", [0.1, 30.0])
def test_descent_on_a_normalized_unit(call, rate):
    u = np.random.default_rng(4).standard_normal((12, 2)) @ [[1.5, 0.4], [0.0, 0.8]]
    t = u @ [0.3, -1.0] + np.random.default_rng(5).standard_normal(12)
    u, t = u - u.mean(axis=0), (t - t.mean()) / t.std()
    moment = (u.T @ u / 12)[np.triu_indices(2)].tolist()
    options = {"rate": rate, "steps": 25}
    path = call("unitDescent", moment, (u.T @ t / 12).tolist(), [0.5, 2.0], options)
    assert len(path) == 26
    u, t = torch.tensor(u), torch.tensor(t)
    w = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for state in path:
        w = w.detach().requires_grad_()
        x = u @ w
        loss = (x / x.std(correction=0) - t).square().mean() / 2
        (gradient,) = torch.autograd.grad(loss, w)
        np.testing.assert_allclose(state["w"], w.detach(), **TIGHT)
        assert state["loss"] == pytest.approx(loss.item(), rel=1e-9)
        assert state["gradient"] == pytest.approx(gradient.norm().item(), rel=1e-9)
        w = w - rate * gradient


@pytest.mark.browser
def test_the_range_of_values(call):
    for x in batches():
        assert call("range", x.tolist()) == pytest.approx(np.ptp(x), rel=1e-12)


@pytest.mark.browser
def test_where_a_unit_bends(call):
    generator = np.random.default_rng(4)
    points, w = generator.normal([4.0, 1.0], size=(9, 2)), np.array([0.6, -1.7])
    values = points @ w
    statistics = call("moments", values.tolist())
    for gamma, beta, eps in [(1.0, 0.0, 0.0), (2.0, -1.5, 1e-5), (-0.5, 0.75, 0.3)]:
        line = call("kink", statistics, {"gamma": gamma, "beta": beta, "eps": eps})
        actual = call("distances", points.tolist(), w.tolist(), line)
        batch = reference.forward(values[:, None], [gamma], [beta], eps)
        # The distance to the nearest point at which the unit is 0, by the unit's slope.
        slope = abs(gamma) * batch.inv_std.item() * np.linalg.norm(w)
        np.testing.assert_allclose(actual, batch.y[:, 0] / slope, **TIGHT)
