"""Images as the experiments' networks take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from companion import data

DATASETS: dict[str, Callable[[], data.Split]] = {
    "digits": data.digits,
    "mnist": data.mnist,
    "fashion-mnist": data.fashion_mnist,
    "cifar10": data.cifar10,
}


@lru_cache(maxsize=2)
def pictures(dataset: str, device: torch.device) -> data.Split:
    """Images ``(m, channels, side, side)``, pixels from 0 to 1.

    Raises
    ------
    ValueError
        there is no such `dataset`
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {dataset!r}")
    split = DATASETS[dataset]()
    return data.Split(
        _square(split.x_train).to(device),
        split.y_train.to(device),
        _square(split.x_test).to(device),
        split.y_test.to(device),
    )


def _square(x: Tensor) -> Tensor:
    """scikit-learn's digits are rows; the others are images already."""
    return x if x.ndim == 4 else x.reshape(len(x), 1, 8, 8)


@lru_cache(maxsize=2)
def rows(dataset: str, device: torch.device, binary: bool = False) -> data.Split:
    """Images as rows of pixels ``(m, features)``; if `binary`, 1 above one half and 0 elsewhere."""
    split = pictures(dataset, device)

    def flat(x: Tensor) -> Tensor:
        return (x.flatten(1) > 0.5).to(x.dtype) if binary else x.flatten(1)

    return data.Split(flat(split.x_train), split.y_train, flat(split.x_test), split.y_test)
