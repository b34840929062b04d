"""The exercises of the chapter `regularization-noise`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from companion import reference

from .exercise import Case, Exercise, Property, of_no_eps
from .properties import MEAN_IS_BETA, VARIANCE

CHAPTER = "regularization-noise"
NO_EPS = 1e-12  # PyTorch refuses 0 in training


def _tensor(*rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _company_cases() -> Iterator[Case]:
    yield Case("pairs, where x̂ is 1 or −1", (np.array([0.0, 1.0, 3.0]), 1, 2))
    yield Case("pairs, for the smallest value", (np.array([0.0, 1.0, 3.0]), 0, 2))
    yield Case("threes of four", (np.array([0.0, 2.0, 3.0, 7.0]), 1, 3))
    yield Case("all values in one batch", (np.array([0.0, 1.0, 3.0]), 2, 3))
    values = np.random.default_rng(0).normal(size=9)
    yield Case("fours of nine", (values, 5, 4))
    yield Case("values around 10⁸", (values + 1e8, 5, 4), tolerance=1e-6)


def _company(values: Any, index: int, m: int) -> Any:
    """Mean and variance of x̂, with every batch a channel of the oracle."""
    others = [i for i in range(len(values)) if i != index]
    batches = [(index, *company) for company in itertools.combinations(others, m - 1)]
    x_hat = reference.forward(values[np.array(batches).T], eps=0.0).x_hat[0]
    mean, var = reference.moments(x_hat[:, None])
    return mean.item(), var.item()


def _gathered(
    values: Any,
    index: int,
    m: int,
    batches: Any = None,
    output: Any = lambda x, batch: (x - batch.mean()) / batch.std(),
    spread: Any = np.var,
) -> tuple[float, float]:
    """As `_company`, over other batches, or with another output or spread."""
    others = np.delete(values, index)
    batches = batches or (
        lambda: ([values[index], *company] for company in itertools.combinations(others, m - 1))
    )
    x_hat = [output(values[index], np.array(batch)) for batch in batches()]
    return float(np.mean(x_hat)), float(spread(x_hat))


def _beyond(result: Any, _values: Any, _index: int, m: int) -> float:
    mean, var = map(float, result)
    return max((mean**2 + var) / (m - 1) - 1, 0)


COMPANY_NOISE = Exercise(
    "company-noise",
    CHAPTER,
    "mean and variance of one output over all batches it can be in",
    ("values", "index", "m"),
    oracle=_company,
    cases=_company_cases,
    returns=("mean", "variance"),
    properties=(Property("mean² + variance ≤ m − 1, for |x̂| ≤ √(m − 1)", _beyond),),
    slips={
        "Only batches with this example in them count.": lambda values, index, m: _gathered(
            values, index, m, lambda: itertools.combinations(values, m)
        ),
        "The example is one of the m: it has m − 1 others beside it.": (
            lambda values, index, m: _gathered(
                values,
                index,
                m,
                lambda: (
                    [values[index], *company]
                    for company in itertools.combinations(np.delete(values, index), m)
                ),
            )
        ),
        "The example belongs to its batch, and moves the statistics that it is normalized with.": (
            lambda values, index, m: _gathered(
                values,
                index,
                m,
                lambda: itertools.combinations(np.delete(values, index), m),
            )
        ),
        "Within a batch the variance divides by m: it is the biased one.": (
            lambda values, index, m: _gathered(
                values, index, m, output=lambda x, batch: (x - batch.mean()) / batch.std(ddof=1)
            )
        ),
        **of_no_eps(
            lambda to_var, to_std: (
                lambda values, index, m: _gathered(
                    values,
                    index,
                    m,
                    output=lambda x, batch: (
                        (x - batch.mean()) / (np.sqrt(batch.var() + to_var) + to_std)
                    ),
                )
            )
        ),
        "These are all the batches and no sample of them: divide by their number.": (
            lambda values, index, m: _gathered(
                values, index, m, spread=lambda x_hat: np.var(x_hat, ddof=1)
            )
        ),
        "The second result is the variance, not the standard deviation.": (
            lambda values, index, m: _gathered(values, index, m, spread=np.std)
        ),
    },
)


def _shrinkage_cases() -> Iterator[Case]:
    yield Case("two batches of two", (_tensor([1, 0], [3, 6]),))
    yield Case("one batch: nothing varies", (_tensor([1], [3], [8]),))
    yield Case("two batches of one width, apart", (_tensor([0, 10], [2, 12]),))
    yield Case("three batches of three", (_random(3, 3),))
    yield Case("batches of 8", (_random(8, 200),))
    yield Case("values around 10", (_random(8, 20) + 10,))


def _mean_width(x: Any) -> float:
    """γ*/a is the mean of the batches' standard deviations: no line is fitted here."""
    _, var = reference.moments(x.numpy())
    _, var_of_all = reference.moments(x.numpy().reshape(-1, 1))
    return float(np.sqrt(var).mean() / np.sqrt(var_of_all).item())


def _fitted(
    x: torch.Tensor,
    std: Any = lambda x: x.std(dim=0, unbiased=False),
    std_of_all: Any = lambda x: x.std(unbiased=False),
    slope: Any = lambda x_hat, x: (x_hat * x).mean() / x_hat.square().mean(),
    centre: Any = lambda x: x.mean(dim=0),
) -> float:
    """Least squares with another standard deviation, another slope or another centre."""
    x_hat = (x - centre(x)) / std(x)
    return (slope(x_hat, x) / std_of_all(x)).item()


GAMMA_SHRINKAGE = Exercise(
    "gamma-shrinkage",
    CHAPTER,
    "γ*/(aσ) of a line fitted through batch statistics",
    ("x",),
    oracle=_mean_width,
    cases=_shrinkage_cases,
    properties=(
        Property("Noise shrinks: γ*/(aσ) is at most 1", lambda ratio, _x: max(float(ratio) - 1, 0)),
    ),
    slips={
        "Divide by σ: the ratio is γ*/(aσ).": lambda x: _fitted(
            x, std_of_all=lambda _x: torch.ones(())
        ),
        "Within a batch the variance divides by m: it is the biased one.": lambda x: _fitted(
            x, std=lambda x: x.std(dim=0)
        ),
        **of_no_eps(
            lambda to_var, to_std: (
                lambda x: _fitted(
                    x, std=lambda x: (x.var(dim=0, unbiased=False) + to_var).sqrt() + to_std
                )
            )
        ),
        "x̂ takes the statistics of its own batch; with those of all values nothing shrinks.": (
            lambda x: _fitted(x, std=lambda x: x.std(unbiased=False), centre=lambda x: x.mean())
        ),
        "σ is that of all values, with the biased variance.": lambda x: _fitted(
            x, std_of_all=lambda x: x.std()
        ),
        "Least squares divides by the mean of x̂², not of x².": lambda x: _fitted(
            x, slope=lambda x_hat, x: (x_hat * x).mean() / x.square().mean()
        ),
        "γ* follows E[σ_B], the mean of the roots, not the root of the mean of σ²_B.": (
            lambda x: (x.var(dim=0, unbiased=False).mean() / x.var(unbiased=False)).sqrt().item()
        ),
        "x̂ has mean 0 in every batch: the batch's mean is taken off.": lambda x: _fitted(
            x, centre=torch.zeros_like
        ),
        "A batch is a column: its statistics go over dim 0.": lambda x: _fitted(x.T),
    },
)


def _ghost_cases() -> Iterator[Case]:
    yield Case("two ghosts of two values", (_tensor([1], [3], [0], [10]), 2, NO_EPS))
    yield Case("ε as large as a variance", (_tensor([1], [3], [0], [10]), 2, 1.0))
    yield Case(
        "one ghost: the whole batch",
        (_tensor([0], [0], [6]), 3, 1.0),
        advice="ghost_size is the number of rows in a ghost: three rows are one ghost of size 3.",
    )
    yield Case("two features", (_random(6, 2), 2, 1e-5))
    yield Case("as many ghosts as features and rows in each", (_random(9, 3), 3, 1e-5))
    yield Case("a ghost of equal values", (_tensor([7], [7], [1], [2]), 2, 1e-5))
    yield Case("values around 10⁸", (_random(8, 2) + 1e8, 4, 1e-5), tolerance=1e-6)


def _ghosts(x: Any, size: int, eps: float) -> torch.Tensor:
    parts = [reference.forward(part, eps=eps).y for part in np.split(x.numpy(), len(x) // size)]
    return torch.from_numpy(np.concatenate(parts))


def _folded(
    x: torch.Tensor, size: int, eps: float, unbiased: bool = False, inside: bool = True
) -> torch.Tensor:
    ghosts = x.reshape(-1, size, x.shape[1])
    var = ghosts.var(dim=1, unbiased=unbiased, keepdim=True)
    root = (var + eps).sqrt() if inside else var.sqrt() + eps
    return ((ghosts - ghosts.mean(dim=1, keepdim=True)) / root).reshape(x.shape)


def _left_apart(x: torch.Tensor, size: int, eps: float) -> torch.Tensor:
    """The ghosts as channels, and the rows not brought back to their order."""
    folded = _folded(x, size, eps).reshape(-1, size, x.shape[1])
    return folded.transpose(0, 1).reshape(x.shape)


def _scattered(x: torch.Tensor, size: int, eps: float) -> torch.Tensor:
    """Ghosts of every k-th row."""
    count = len(x) // size
    order = torch.arange(len(x)).reshape(size, count).T.reshape(-1)
    return _folded(x[order], size, eps)[order.argsort()]


def _in_each_ghost(of_a_batch: Property, says: str) -> Property:
    def error(y: Any, x: Any, size: int, eps: float) -> float:
        one, zero = np.ones(x.shape[1]), np.zeros(x.shape[1])
        parts = zip(y.split(size), x.numpy().reshape(-1, size, x.shape[1]), strict=True)
        return max(of_a_batch.error(y_part, part, one, zero, eps) for y_part, part in parts)

    return Property(says, error, 1e-6)


GHOST_BN = Exercise(
    "ghost-bn",
    CHAPTER,
    "batch normalization of each ghost, without a loop",
    ("x", "ghost_size", "eps"),
    oracle=_ghosts,
    cases=_ghost_cases,
    properties=(
        _in_each_ghost(MEAN_IS_BETA, "In every ghost the mean of each feature is 0"),
        _in_each_ghost(VARIANCE, "In every ghost the variance of each feature is σ²/(σ² + ε)"),
    ),
    slips={
        "Each ghost has statistics of its own; these are those of the whole batch.": (
            lambda x, _size, eps: _folded(x, len(x), eps)
        ),
        "A ghost is made of consecutive rows; these are rows that lie apart.": _scattered,
        "The rows have to come back in the order they had.": _left_apart,
        "ghost_size is the number of rows in a ghost, not the number of ghosts.": (
            lambda x, size, eps: _folded(x, len(x) // size, eps)
        ),
        "The variance divides by the ghost's size: it is the biased one.": (
            lambda x, size, eps: _folded(x, size, eps, unbiased=True)
        ),
        "ε stands inside the root: √(σ² + ε), not σ + ε.": (
            lambda x, size, eps: _folded(x, size, eps, inside=False)
        ),
    },
)


def _predict_cases() -> Iterator[Case]:
    one, zero = _tensor([1]), torch.zeros(1, dtype=torch.float64)
    pair = _tensor([0], [2])
    yield Case("one batch of two values", (one, one, zero, _tensor([3], [0]), [pair], NO_EPS))
    yield Case("ε as large as the variance", (one, one, zero, _tensor([3], [0]), [pair], 1.0))
    batches = [pair, _tensor([0], [4], [5])]
    yield Case("two batches of two sizes", (one, one, zero, _tensor([9], [0]), batches, NO_EPS))
    yield Case("the readout's bias", (one, one, zero + 7, _tensor([9], [0]), batches, NO_EPS))
    weights = (_random(4, 3), _random(2, 4, seed=1), _random(2, seed=2))
    batches = list(_random(2, 6, 3, seed=3))
    yield Case("four units, two classes", (*weights, _random(7, 3, seed=4), batches, 1e-5))
    yield Case("one example", (*weights, _random(1, 3, seed=4), batches, 1e-5))


def _predictions(
    weight: Any, readout: Any, bias: Any, x: Any, batches: Any, eps: float
) -> torch.Tensor:
    def of(batch: Any) -> Any:
        mean, var = reference.moments(batch.numpy() @ weight.numpy().T)
        hidden = reference.inference(x.numpy() @ weight.numpy().T, mean, var, eps=eps)
        return np.maximum(hidden, 0) @ readout.numpy().T + bias.numpy()

    return torch.from_numpy(np.stack([*map(of, batches)]))


def _predicted(
    statistics: Any, normalize: Any = None, gather: Any = torch.stack, shifted: bool = True
) -> Any:
    """Predictions with other statistics, another hidden layer, gathering, or without the bias."""
    normalize = normalize or (lambda h, mean, var, eps: ((h - mean) / (var + eps).sqrt()).relu())

    def predict(
        weight: Any, readout: Any, bias: Any, x: Any, batches: Any, eps: float
    ) -> torch.Tensor:
        found = []
        for batch in batches:
            mean, var = statistics(batch @ weight.T, x @ weight.T)
            hidden = normalize(x @ weight.T, mean, var, eps)
            found.append(hidden @ readout.T + (bias if shifted else 0))
        return gather(found)

    return predict


def _biased(batch: torch.Tensor, _x: torch.Tensor) -> Any:
    return batch.mean(dim=0), batch.var(dim=0, unbiased=False)


MC_BN_PREDICT = Exercise(
    "mc-bn-predict",
    CHAPTER,
    "predictions with the statistics of each of several batches",
    ("weight", "readout", "bias", "x", "batches", "eps"),
    oracle=_predictions,
    cases=_predict_cases,
    slips={
        "The statistics come from the batch, not from x.": _predicted(
            lambda _batch, x: _biased(x, x)
        ),
        "x does not belong to the batch: leave it out of the statistics.": _predicted(
            lambda batch, x: _biased(torch.cat([batch, x]), x)
        ),
        "The variance of the batch divides by its size: it is the biased one.": _predicted(
            lambda batch, _x: (batch.mean(dim=0), batch.var(dim=0))
        ),
        "Each hidden unit has a mean and a variance of its own: dim 0 goes over the batch.": (
            _predicted(lambda batch, _x: (batch.mean(), batch.var(unbiased=False)))
        ),
        "Normalize first, and take the ReLU of the result.": _predicted(
            lambda batch, x: _biased(batch.relu(), x),
            lambda hidden, mean, var, eps: (hidden.relu() - mean) / (var + eps).sqrt(),
        ),
        "The ReLU between the normalization and the readout is missing.": _predicted(
            _biased, lambda hidden, mean, var, eps: (hidden - mean) / (var + eps).sqrt()
        ),
        "The readout adds its bias.": _predicted(_biased, shifted=False),
        "Return a prediction for each batch; their mean is taken later.": _predicted(
            _biased, gather=lambda found: torch.stack(found).mean(dim=0)
        ),
    },
)

EXERCISES = (COMPANY_NOISE, GAMMA_SHRINKAGE, GHOST_BN, MC_BN_PREDICT)
