"""PyTorch's layers and the package's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import companion

from ..layers import Array

VERSIONS = {"torch": torch.__version__.split("+")[0]}


class _Torch:
    channels_last = False
    classes: tuple[type[nn.Module], type[nn.Module]]

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        given = {"momentum": momentum, "eps": eps}
        options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        # One state for inputs of both ranks.
        self.dense, self.images = (made(channels, **options) for made in self.classes)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self.images, name, getattr(self.dense, name))
        if dtype == "float64":
            self.dense.double()
            self.images.double()
        self.names = list(self.dense.state_dict())
        self.momentum = float(self.dense.momentum)  # type: ignore[arg-type]

    def _run(self, x: Array) -> Array:
        layer = self.images if x.ndim == 4 else self.dense
        result: Array = layer(torch.from_numpy(np.ascontiguousarray(x))).detach().numpy()
        return result

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            raise TypeError("forward takes no mask")
        self.dense.train()
        self.images.train()
        return self._run(x)

    def train_alone(self, x: Array) -> None:
        self.train(x)

    def evaluate(self, x: Array) -> Array:
        self.dense.eval()
        self.images.eval()
        return self._run(x)

    def call(self, x: Array) -> Array:
        return self._run(x)

    def train_frozen(self, x: Array) -> Array:
        self.dense.requires_grad_(False)
        return self.train(x)

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        values = (weight, bias, mean, var)
        with torch.no_grad():
            for name, value in zip(self.names, values, strict=False):
                self.dense.state_dict()[name].copy_(torch.from_numpy(value))


class Torch(_Torch):
    classes = (nn.BatchNorm1d, nn.BatchNorm2d)


class Companion(_Torch):
    classes = (companion.BatchNorm1d, companion.BatchNorm2d)


LAYERS = {"PyTorch": Torch, "companion": Companion}
