"""What the oracle says of the numbers that an interactive figure shows."""

import numpy as np
import pytest
import torch

from companion import closed_forms, reference
from companion.experiments import memory_traffic
from companion.explore.boundary import draws, output
from companion.explore.company import answer
from companion.explore.histograms import trained
from companion.explore.slices import measured
from companion.explore.stack import gradient_norms
from companion.statistics import (
    RunningAverage,
    RunningMoments,
    ema_lag,
    ema_variance,
    merge,
)
from companion.variants import group_norm, instance_norm, layer_norm
from companion.whitening import gd_steps


def identity(page):
    start, shown = page.figure.start, page.numbers()
    x, m, eps = np.array(start["x"]), int(shown["m"]), start["eps"]
    mean, var = (each.item() for each in reference.moments(x[:, None]))
    # One batch of m values a column.
    batches = x.reshape(-1, m).T
    columns = batches.shape[1]
    y = reference.forward(batches, [shown["gamma"]] * columns, [shown["beta"]] * columns, eps).y
    best = reference.forward(batches, [(var + eps) ** 0.5] * columns, [mean] * columns, eps).y
    return {
        "mse": np.square(y - batches).mean(),
        "cost": np.square(best - batches).mean(),
    }


def batch(page):
    x = np.array([place[0] for place in page.handles().values()])
    normalized = reference.forward(x[:, None], eps=page.figure.start["eps"])
    assert len(x) == page.numbers()["m"]
    return {
        "mean": normalized.batch_mean.item(),
        "var": normalized.batch_var.item(),
        "square": np.square(normalized.x_hat).mean(),
        "largest": np.abs(normalized.x_hat).max(),
        "bound": (len(x) - 1) ** 0.5,
    }


def jacobian(page):
    x = np.array([place[0] for place in page.handles().values()])
    m, eps = len(x), page.numbers()["eps"]
    entries = reference.jacobian(x, eps=eps)
    normalized = reference.forward(x[:, None], eps=eps)
    inv_std = normalized.inv_std.item()
    assert m == page.numbers()["m"]
    values = np.linalg.eigvalsh(entries) / inv_std
    ratio = eps / (normalized.batch_var.item() + eps)
    assert np.abs(values - ratio).min() == pytest.approx(0, abs=1e-9)
    return {
        "std": 1 / inv_std,
        "largest": np.abs(entries).max(),
        "passed": values.sum(),
        "ratio": ratio,
    }


def boundary(page):
    start, m = page.figure.start, int(page.numbers()["m"])
    points = np.array(start["points"])
    drawn = np.reshape(draws(start["seed"], len(points), 16 * m), (16, m))
    settled = output(start, points, points)
    outputs = np.stack([output(start, points, points[batch]) for batch in drawn])
    probe = page.handles()["probe"]
    noise = np.square(outputs - settled).mean()
    return {
        "votes": sum(output(start, probe, points[batch]) > 0 for batch in drawn),
        "logit": output(start, probe, points),
        "flips": ((outputs > 0) != (settled > 0)).mean(),
        "noise": noise,
        "scaled": noise * m,
    }


def roofline(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()
    n, c, side = start["shapes"][int(chosen["shape"])]
    tensor = 4 * n * c * side**2
    in_flight = tensor // c * min(int(shown["block"]), c)
    kept = int(shown["cache"]) * 2**20
    moved = memory_traffic.bytes_moved(chosen["pass"], tensor, in_flight, kept)
    operations = memory_traffic.OPERATIONS[chosen["pass"]] * tensor / 4
    speed = memory_traffic.attainable(operations / moved, **start["machine"])
    return {
        "tensor": tensor,
        "inFlight": in_flight,
        "traffic": moved / tensor,
        "intensity": operations / moved,
        "least": operations / speed,
    }


def ranks(page):
    x, owners = np.array(list(page.handles().values())).T
    parts = [torch.tensor(x[owners == rank, None]) for rank in set(owners)]
    merged = merge(*(RunningMoments.of(part) for part in parts))
    inside = sum(len(part) * part.var(unbiased=False).item() for part in parts) / len(x)
    return {
        "whole": reference.moments(x[:, None])[1].item(),
        "merged": merged.m2.item() / len(x),
        "averaged": inside,
        "between": x.var() - inside,
    }


def descent(page):
    start, tips = page.figure.start, page.handles()
    stretch = np.array([tips["long"], tips["short"]]).T
    stretch = np.eye(2) if page.choices()["inputs"] == "whitened" else stretch
    z = np.array(start["z"])
    # The axes of the ellipse are orthogonal: z turned along them, then stretched.
    x, target = z @ stretch.T, z @ start["weights"]
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    weights = np.linalg.solve(x.T @ x, x.T @ target)
    excess = values * (vectors.T @ weights) ** 2 / 2
    steps = gd_steps(torch.tensor(values), torch.tensor(excess), tolerance=0.001)
    kappa = values[1] / values[0]
    return {
        "kappa": kappa,
        "rate": 2 / values.sum(),
        "steps": steps,
        "bound": kappa / 4 * np.log(1000),
    }


def drift(page):
    start, shown = page.figure.start, page.numbers()
    u, t = np.array(start["u"]), np.array(start["t"])
    ((step, b),) = page.handles().values()
    every = int(shown["every"])
    if inside := page.choices()["mean"] == "inside":
        expected, gained = 0.0, 0.0
    else:
        expected, before = (
            closed_forms.bias_drift(steps, shown["rate"], t.mean(), every)
            for steps in (step, step - step % every)
        )
        gained = expected - before
    assert b == pytest.approx(expected, rel=1e-9, abs=1e-9)
    errors = u - u.mean() + gained - t
    return {
        "b": expected,
        "loss": np.square(errors).mean() / 2,
        "gradient": 0.0 if inside else errors.mean(),
    }


def average(page):
    start, shown = page.figure.start, page.numbers()
    x, m, alpha, drift = np.array(start["x"]), int(shown["m"]), shown["alpha"], shown["drift"]
    ((step, _),) = page.handles().values()
    step = int(step)
    drawn = np.reshape(draws(start["seed"], len(x), m * start["steps"]), (-1, m))
    running = RunningAverage.empty(torch.Size([]), alpha)
    for k, batch in enumerate(drawn[:step], start=1):
        running = running.update(torch.tensor(x[batch].mean() + drift * k))
    removed = page.choices()["beginning"] == "removed"
    exact, left = x.mean() + drift * step, (1 - alpha) ** step
    weight = 1.0 if removed else 1 - left
    value = running.value if removed else running.started_at(torch.zeros(()))
    return {
        "exact": exact,
        "running": value.item(),
        "start": 0.0 if removed else -left * exact,
        "lag": -drift * weight * ema_lag(alpha, step),
        "std": weight * (x.var() / m * ema_variance(alpha, step)) ** 0.5,
    }


def axes(page):
    start, chosen = page.figure.start, page.choices()
    x = np.array(start["maps"])
    ((column, row),) = page.handles().values()
    (n, h), (c, w) = divmod(int(row), 8), divmod(int(column), 8)
    size = {"together": 1.0, "groups": 0.5, "apart": 0.0}
    blocks = [
        max(int(size[chosen[axis]] * length), 1)
        for axis, length in zip("NCHW", x.shape, strict=True)
    ]
    # Each axis cut into blocks: its place among them, then its place in its block.
    cut = [
        each
        for length, block in zip(x.shape, blocks, strict=True)
        for each in (length // block, block)
    ]
    parts = x.reshape(cut).transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, np.prod(blocks))
    own = np.ravel_multi_index(
        [at // block for at, block in zip((n, c, h, w), blocks, strict=True)], cut[::2]
    )
    normalized = reference.forward(parts[own][:, None])
    assert x[n, c, h, w] in parts[own]
    return {
        "statistics": len(parts),
        "m": parts.shape[1],
        "mean": normalized.batch_mean.item(),
        "var": normalized.batch_var.item(),
        "normalized": (x[n, c, h, w] - normalized.batch_mean.item()) * normalized.inv_std.item(),
    }


def stack(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()["activation"]
    m, depth = int(shown["m"]), int(shown["depth"])
    norms = gradient_norms(chosen, m, depth, int(shown["seed"]), start)
    batch = closed_forms.linear_gradient_growth(m)
    predicted = start["growths"][chosen] * batch
    return {
        "growth": (norms[-1] / norms[0]) ** (1 / depth),
        "predicted": predicted,
        "ratio": norms[-1] / norms[0],
        "predictedRatio": predicted**depth,
    }


def bands(page):
    start, run = page.figure.start, page.figure.start["runs"][int(page.choices()["seed"])]
    (look, _), expected = page.handles()["step"], {}
    for network in ("plain", "batch"):
        ends = np.array([run[network]["low"][look], run[network]["high"][look]])
        low, high = 1 / (1 + np.exp(-ends))
        expected[f"{network}Spread"] = high - low
        expected[f"{network}Accuracy"] = run[network]["accuracy"][look]
    shown = page.page.locator("[data-handle=step]").get_attribute("aria-valuetext")
    assert shown == f"step {start['steps'][look]:,}"
    return expected


def histograms(page):
    watched, expected = trained(), {}
    for network in ("plain", "batch"):
        layers = watched[network][page.numbers()["step"]]
        for end, layer in (("First", layers[0]), ("Last", layers[-1])):
            _, var = reference.moments(layer.double().numpy())
            expected[network + end] = np.sqrt(var).mean().round(4)
    return expected


def through_time(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()
    features = torch.tensor(start["features"], dtype=torch.float64)
    size = len(start["orthogonal"])
    weights = torch.tensor(start["orthogonal"], dtype=torch.float64)
    weights = torch.eye(size, dtype=torch.float64) if chosen["start"] == "identity" else weights
    gamma, ratio = shown["gamma"], shown["ratio"]

    def normalized(t):
        rows = (torch.arange(start["examples"]) + start["stride"] * t) % len(features)
        return standardize(features[rows])

    def standardize(values):
        var, mean = torch.var_mean(values, dim=0, correction=0)
        return (values - mean) / (var + 1e-5).sqrt()

    h, states = torch.tanh(normalized(0)), []
    for t in range(1, start["steps"] + 2):
        past = standardize((h @ weights.T).requires_grad_())
        h = torch.tanh(gamma * past + gamma * ratio * normalized(t))
        h.retain_grad()
        states.append(h)
    (h * normalized(start["steps"] + 2)).sum().backward()
    norms = [state.grad.norm().item() for state in reversed(states)]
    ((back, power),) = page.handles().values()
    left, share = norms[int(back)] / norms[0], 1 / (1 + ratio**2)
    assert power == pytest.approx(max(np.log10(left), -10), rel=1e-6, abs=1e-6)
    factor = closed_forms.recurrent_factor(gamma * np.hypot(1, ratio), share)
    return {"share": share, "factor": factor, "expected": factor**back, "left": left}


# What the oracle says of a figure's present state, and the handle or slider that a test moves.
def decay(page):
    start, shown = page.figure.start, page.numbers()
    ((step, log_r),) = page.handles().values()
    half = start["steps"] // 2
    w = np.array([shown["start"], 0.0])
    for t in range(int(step) + 1):
        rate = shown["rate"] / (shown["drop"] if t >= half else 1.0)
        r, old = np.linalg.norm(w), w
        gradient = start["gradient"] / r**2 * np.array([w[1], -w[0]])
        w = w - rate * (gradient + shown["decay"] * w)
    assert 10**log_r == pytest.approx(r, rel=1e-9)
    return {
        "r": r,
        "rest": closed_forms.equilibrium_norm(rate, shown["decay"], start["gradient"]),
        "angle": np.arctan2(old[0] * w[1] - old[1] * w[0], old @ w),
        "restAngle": closed_forms.equilibrium_angle(rate, shown["decay"]),
        "effective": rate / r**2,
    }


def circle(page):
    start, rate = page.figure.start, page.numbers()["rate"]
    u, t = np.array(start["u"]), np.array(start["t"])
    place = np.array(page.handles()["start"])
    length = np.linalg.norm(place)
    w, within = place / length * 10 ** (length - 1), -1
    path = [w]
    best = np.linalg.solve(u.T @ u, u.T @ t)
    for step in range(10_001):
        if within < 0 and np.degrees(_angle(w, best)) <= 1:
            within = step
        normalized = reference.forward((u @ w)[:, None], eps=0.0)
        grad_y = (normalized.y - t[:, None]) / len(t)
        slope = u.T @ reference.backward(grad_y, normalized).x[:, 0]
        path.append(w := w - rate * slope)
    return {
        "first": rate / (path[0] @ path[0]),
        "second": rate / (path[1] @ path[1]),
        "turned": np.degrees(_angle(path[0], path[1])),
        "norm": np.linalg.norm(path[10_000]),
        "steps": within,
    }


def _angle(v, w):
    return np.arctan2(abs(v[0] * w[1] - v[1] * w[0]), v @ w)


def slices(page):
    start, choices = page.figure.start, page.choices()
    look = start["steps"].index(page.numbers()["step"])
    ((at, _),) = page.handles().values()
    shown = page.page.locator("[data-handle=rate]").get_attribute("aria-valuetext")
    assert shown == f"learning rate {start['rates'][int(at)]:g}"
    expected = {}
    for shown, name in (("plain", "plain"), ("batch", choices["weights"])):
        found = start["networks"][name][look]
        assert found["losses"] == pytest.approx(measured()[name][look]["losses"], rel=1e-5)
        expected[f"{shown}Range"] = np.ptp(found["losses"][: int(at) + 2])
        expected[f"{shown}Change"] = found["changes"][int(at) + 1]
    return expected


def kinks(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()
    weights, m = np.array(start["weights"]), int(shown["m"])
    points = np.array(start["points"]) + page.handles()["flowers"] - start["center"]
    batch = points
    if m < len(points):
        batch = points[draws(start["seed"] + int(shown["batch"]), len(points), m)]
    mean, var = np.zeros(len(weights)), np.ones(len(weights))
    if chosen["statistics"] == "batch":
        mean, var = reference.moments(batch @ weights.T)
    gamma = np.full(len(weights), 1.0 if chosen["sign"] == "plus" else -1.0)
    y = reference.inference(points @ weights.T, mean, var, gamma, gamma * 0 + shown["beta"], 0.0)
    length = np.linalg.norm(weights, axis=1)
    distances = y * np.sqrt(var).ravel() / length
    # Along its weights, a layer's inputs have this covariance; no line of the direction is closer.
    units = weights / length[:, None]
    least = np.einsum("ij,jk,ik->i", units, np.cov(points.T, bias=True), units)
    return {
        "cutting": ((y > 0).any(axis=0) & ~(y > 0).all(axis=0)).sum(),
        "off": (~(y > 0).any(axis=0)).sum(),
        "distance": np.square(distances).mean(),
        "least": least.mean(),
    }


def company(page):
    start, shown = page.figure.start, page.numbers()
    subject = page.choices()["subject"]
    one, eps = start["subjects"][subject], start["eps"]
    own, others, dim = (int(shown[name]) for name in ("own", "others", "dim"))
    batch = [one["image"], *one["own"][:own], *one["others"][:others], *start["dimmed"][:dim]]
    columns = np.array(batch).T
    x_hat = reference.forward(columns.T, eps=eps).x_hat[0]
    fixed = reference.inference(columns.T, start["mean"], start["var"], eps=eps)[0]
    slopes = np.array([reference.jacobian(values, eps=eps)[0] for values in columns]) ** 2
    _, in_batch = answer(start, one["image"], *reference.moments(columns.T))
    _, in_evaluation = answer(start, one["image"], start["mean"], start["var"])
    return {
        "m": len(batch),
        "share": (1 - slopes[:, 0] / slopes.sum(axis=1)).mean(),
        "error": np.square(x_hat - fixed).mean(),
        "right": in_batch[int(subject)],
        "fixed": in_evaluation[int(subject)],
    }


def neighbours(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()
    maps, m = torch.tensor(start["maps"], dtype=torch.float64), int(shown["m"])
    image, channel = (each - 1 for each in start["place"])
    ((power, change),) = page.handles().values()
    before, touched = maps[:m], torch.zeros(m, maps.shape[1], dtype=torch.bool)
    whole = slice(None)
    touched[
        {
            "image": (image, whole),
            "channel": (whole, channel),
            "all": (whole, whole),
            "swap": (image, whole),
        }[chosen["change"]]
    ] = True
    after = before.clone()
    after[touched] = maps[-1] if chosen["change"] == "swap" else 10**power * before[touched]
    normalize = {
        "batch": lambda x: torch.from_numpy(reference.forward(x.numpy(), eps=1e-9).y),
        "layer": lambda x: layer_norm(x, x.shape[1:], eps=1e-9),
        "position": lambda x: layer_norm(x.movedim(1, 3), x.shape[1:2], eps=1e-9).movedim(3, 1),
        "instance": lambda x: instance_norm(x, eps=1e-9),
        "group": lambda x: group_norm(x, 2, eps=1e-9),
    }[chosen["layer"]]
    squares = (normalize(after) - normalize(before)).square()
    channels, positions = maps.shape[1], maps[0, 0].numel()
    means = {
        "batch": channels,
        "layer": m,
        "position": m * positions,
        "instance": m * channels,
        "group": m * 2,
    }[chosen["layer"]]
    others = squares[~touched]
    assert change == pytest.approx(shown["touched"], rel=1e-9)
    return {
        "factor": 10**power,
        "means": means,
        "behind": before.numel() / means,
        "touched": squares[touched].mean().sqrt().item(),
        "others": others.mean().sqrt().item() if others.numel() else 0.0,
    }


ORACLES = {
    "average": average,
    "axes": axes,
    "bands": bands,
    "batch": batch,
    "boundary": boundary,
    "circle": circle,
    "company": company,
    "decay": decay,
    "descent": descent,
    "drift": drift,
    "histograms": histograms,
    "identity": identity,
    "jacobian": jacobian,
    "kinks": kinks,
    "neighbours": neighbours,
    "ranks": ranks,
    "roofline": roofline,
    "slices": slices,
    "stack": stack,
    "through_time": through_time,
}
MOVED = {
    "average": "step",
    "axes": "place",
    "bands": "step",
    "batch": "x7",
    "boundary": "probe",
    "circle": "start",
    "decay": "step",
    "descent": "long",
    "drift": "step",
    "identity": "parameters",
    "jacobian": "x5",
    "kinks": "flowers",
    "neighbours": "factor",
    "ranks": "x9",
    "slices": "rate",
    "through_time": "step",
}


def check_numbers(page):
    """Hold all numbers against the oracle; each is shown in a short form, too."""
    shown, expected = page.numbers(), ORACLES[page.figure.name](page)
    assert expected
    for name, value in expected.items():
        assert shown[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    texts = page.texts()
    assert all(texts[name].strip() for name in expected), texts
