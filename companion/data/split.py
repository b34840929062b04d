"""A training and a test set."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Split(NamedTuple):
    """A training and a test set.

    Parameters
    ----------
    x_train, x_test
        inputs, ``(m, ...)``
    y_train, y_test
        classes, ``(m,)``, int64

    Examples
    --------
    >>> import torch
    >>> values = torch.arange(4.0).reshape(4, 1)
    >>> split = Split(values[:3], torch.zeros(3), values[3:], torch.zeros(1))
    >>> split.x_test
    tensor([[3.]])
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
