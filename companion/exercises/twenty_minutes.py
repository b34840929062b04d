"""The exercises of the chapter `twenty-minutes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from companion import reference
from companion.kernels.interface import Running
from companion.running import update_running

from .exercise import Case, Exercise
from .properties import FIXED_LINE

CHAPTER = "twenty-minutes"
SAME_TYPE = "The result has the type of x: float32 in, float32 out."


def _evaluation_cases() -> Iterator[Case]:
    zero, one = np.zeros(1), np.ones(1)
    three, four = 3 * one, 4 * one
    yield Case("one example of one feature", (np.array([[5.0]]), three, four, one, zero, 0.0))
    yield Case("ε as large as the variance", (np.array([[5.0]]), three, 2 * one, one, zero, 2.0))
    x = np.array([[5.0], [1.0]])
    yield Case("γ and β, two examples", (x, three, four, three, one, 0.0))
    rng = np.random.default_rng(0)
    mean, var = np.array([1.0, -2.0, 0.5]), np.array([4.0, 0.25, 1.0])
    gamma, beta = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, 2.0])
    layer = (mean, var, gamma, beta, 1e-5)
    yield Case("three features", (rng.normal(size=(4, 3)), *layer))
    yield Case("as many examples as features", (rng.normal(size=(3, 3)), *layer))
    constant = np.array([[7.0], [7.01]])
    yield Case("a feature that never varied", (constant, 7 * one, zero, one, one, 1e-5))
    single = [each.astype(np.float32) for each in (rng.normal(size=(4, 3)), *layer[:-1])]
    yield Case("float32", (*single, 1e-5), tolerance=1e-6, advice=SAME_TYPE)
    far = rng.normal(size=(50, 1)) + 1e12
    yield Case("values around 10¹²", (far, 1e12 * one, three, one, zero, 1e-5))


def _inference(x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float) -> Any:
    return reference.inference(x, mean, var, gamma, beta, eps).astype(x.dtype)


def _of_the_batch(x: Any, _mean: Any, _var: Any, gamma: Any, beta: Any, eps: float) -> Any:
    return gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta


def _folded(x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float) -> Any:
    scale = gamma / np.sqrt(var + eps)
    return scale * x + (beta - scale * mean)


EVALUATION_BY_HAND = Exercise(
    "evaluation-by-hand",
    CHAPTER,
    "what a layer gives in evaluation mode",
    ("x", "running_mean", "running_var", "gamma", "beta", "eps"),
    oracle=_inference,
    cases=_evaluation_cases,
    properties=(FIXED_LINE,),
    slips={
        "Evaluation uses the running averages, not the mean and the variance of x.": _of_the_batch,
        "The running variance is no standard deviation: divide by the root of it plus ε.": (
            lambda x, mean, var, gamma, beta, eps: gamma * (x - mean) / (var + eps) + beta
        ),
        "ε stands inside the root: √(σ² + ε), not σ + ε.": (
            lambda x, mean, var, gamma, beta, eps: gamma * (x - mean) / (np.sqrt(var) + eps) + beta
        ),
        "ε is missing.": (
            lambda x, mean, var, gamma, beta, _eps: gamma * (x - mean) / np.sqrt(var) + beta
        ),
        "ε is the argument eps, and not always 1e-5.": (
            lambda x, mean, var, gamma, beta, _eps: _inference(x, mean, var, gamma, beta, 1e-5)
        ),
        "γ multiplies the normalized value, and then β is added.": (
            lambda x, mean, var, gamma, beta, eps: gamma * ((x - mean) / np.sqrt(var + eps) + beta)
        ),
        "This is x̂; y = γx̂ + β is asked for.": lambda x, mean, var, _gamma, _beta, eps: (
            (x - mean) / np.sqrt(var + eps)
        ),
        "β is added: y = γx̂ + β.": lambda x, mean, var, gamma, beta, eps: _inference(
            x, mean, var, gamma, -beta, eps
        ),
        "Take the running mean off x first: two large numbers lose the digits of a small result.": (
            _folded
        ),
    },
    called="evaluate",
)


def _update_cases() -> Iterator[Case]:
    zero, one = np.zeros(1), np.ones(1)
    two = np.array([[1.0], [3.0]])
    yield Case("two values, from 0 and 1", (two, zero, one, 0.1))
    yield Case("averages that have moved", (two, 4 * one, 3 * one, 0.1))
    yield Case("a momentum of 1", (two, zero, one, 1.0))
    yield Case("a momentum of 0", (two, 4 * one, 3 * one, 0.0))
    rng = np.random.default_rng(0)
    mean, var = np.array([1.0, -2.0, 0.5]), np.array([4.0, 0.25, 1.0])
    yield Case("three features", (rng.normal(size=(4, 3)), mean, var, 0.2))
    yield Case("as many examples as features", (rng.normal(size=(3, 3)), mean, var, 0.2))
    far = rng.normal(size=(50, 1)) + 1e8
    yield Case("values around 10⁸", (far, 1e8 * one, one, 0.1), tolerance=1e-6)


def _updated(x: Any, running_mean: Any, running_var: Any, momentum: float) -> Any:
    mean, var = map(torch.from_numpy, reference.moments(x))
    running = Running(
        torch.tensor(running_mean), torch.tensor(running_var), None, momentum, skip_nonfinite=False
    )
    update_running(running, mean, var, len(x))
    assert running.mean is not None
    assert running.var is not None
    return running.mean.numpy(), running.var.numpy()


def _moved(statistics: Any, share: Any = lambda momentum: (1 - momentum, momentum)) -> Any:
    """Running averages that move by other statistics, or by another share."""

    def update(x: Any, running_mean: Any, running_var: Any, momentum: float) -> Any:
        mean, var = statistics(x)
        old, new = share(momentum)
        return old * running_mean + new * mean, old * running_var + new * var

    return update


def _unbiased(x: Any) -> Any:
    return x.mean(axis=0), x.var(axis=0, ddof=1)


def _around_the_old_mean(x: Any, running_mean: Any, running_var: Any, momentum: float) -> Any:
    mean, var = _unbiased(x)
    m = len(x)
    around = var + (mean - running_mean) ** 2 * m / (m - 1)
    return _moved(lambda _x: (mean, around))(x, running_mean, running_var, momentum)


RUNNING_UPDATE = Exercise(
    "running-update",
    CHAPTER,
    "where one training step moves the running averages",
    ("x", "running_mean", "running_var", "momentum"),
    oracle=_updated,
    cases=_update_cases,
    returns=("running_mean", "running_var"),
    slips={
        "The averaged variance divides by m − 1: it is the unbiased one.": _moved(
            lambda x: (x.mean(axis=0), x.var(axis=0))
        ),
        "Momentum is the share of the new value; the old one keeps the rest.": _moved(
            _unbiased, lambda momentum: (momentum, 1 - momentum)
        ),
        "The share is the argument momentum, and not always 0.1.": (
            lambda x, mean, var, _momentum: _updated(x, mean, var, 0.1)
        ),
        "What is new is added, but the old value has to shrink to 1 − momentum of itself.": _moved(
            _unbiased, lambda momentum: (1, momentum)
        ),
        "The averages go a part of the way to the batch's values; they do not become these.": (
            _moved(_unbiased, lambda _momentum: (0, 1))
        ),
        "The variance is averaged, not its root.": _moved(
            lambda x: (x.mean(axis=0), x.std(axis=0, ddof=1))
        ),
        "The statistics go over the examples, axis 0: there is one of each per feature.": _moved(
            lambda x: (x.mean(axis=1), x.var(axis=1))
        ),
        "The statistics go over the examples, axis 0, and not over the features, axis 1.": _moved(
            lambda x: (x.mean(axis=1), x.var(axis=1, ddof=1))
        ),
        "Each feature has averages of its own; these statistics are of all values together.": (
            _moved(lambda x: (x.mean(), x.var(ddof=1)))
        ),
        "The average of the mean comes first, then that of the variance.": (
            lambda *given: _updated(*given)[::-1]
        ),
        "σ² is about the batch's own mean, not about the running mean.": _around_the_old_mean,
        "The unbiased variance is larger: the biased one times m/(m − 1).": _moved(
            lambda x: (x.mean(axis=0), x.var(axis=0) * (len(x) - 1) / len(x))
        ),
        "E[x²] − E[x]² loses its digits where the mean is large; take the mean off first.": _moved(
            lambda x: (
                x.mean(axis=0),
                ((x**2).mean(axis=0) - x.mean(axis=0) ** 2) * len(x) / (len(x) - 1),
            )
        ),
    },
)

EXERCISES = (EVALUATION_BY_HAND, RUNNING_UPDATE)
