"""Flax: the layer of NNX and that of Linen."""

from __future__ import annotations

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from ..layers import Array

VERSIONS = {"flax": flax.__version__, "jax": jax.__version__}

_NAMES = ("scale", "bias", "mean", "var")


def _options(momentum: float | None, eps: float | None, dtype: str) -> dict[str, Any]:
    given = {"momentum": momentum, "epsilon": eps}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if dtype == "half":
        options["dtype"] = jnp.float16
    return options


class NNX:
    channels_last = True

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        options = _options(momentum, eps, dtype)
        self.layer = nnx.BatchNorm(channels, rngs=nnx.Rngs(0), **options)
        self.momentum = self.layer.momentum
        self.names = [str(name) for name in nnx.state(self.layer)]

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            mask = mask[..., None]
        return np.asarray(self.layer(jnp.asarray(x), use_running_average=False, mask=mask))

    def train_alone(self, x: Array) -> None:
        self.train(x)

    def evaluate(self, x: Array) -> Array:
        return np.asarray(self.layer(jnp.asarray(x), use_running_average=True))

    def call(self, x: Array) -> Array:
        return np.asarray(self.layer(jnp.asarray(x)))

    def train_frozen(self, x: Array) -> Array:
        raise NotImplementedError

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        for name, value in zip(_NAMES, (weight, bias, mean, var), strict=True):
            setattr(self.layer, name, type(getattr(self.layer, name))(jnp.asarray(value)))


class Linen:
    channels_last = True

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        self.layer = linen.BatchNorm(**_options(momentum, eps, dtype))
        start = np.zeros((2, channels), np.float32)
        self.variables = self.layer.init(jax.random.key(0), start, use_running_average=True)
        self.momentum = self.layer.momentum
        tree = jax.tree_util.tree_flatten_with_path(dict(self.variables))[0]
        self.names = ["/".join(step.key for step in path) for path, _ in tree]

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            mask = mask[..., None]
        y, moved = self.layer.apply(
            self.variables, x, use_running_average=False, mask=mask, mutable=["batch_stats"]
        )
        self.variables = {**self.variables, **moved}
        return np.asarray(y)

    def train_alone(self, x: Array) -> None:
        self.layer.apply(self.variables, x, use_running_average=False)

    def evaluate(self, x: Array) -> Array:
        return np.asarray(self.layer.apply(self.variables, x, use_running_average=True))

    def call(self, x: Array) -> Array:
        return np.asarray(self.layer.apply(self.variables, x))

    def train_frozen(self, x: Array) -> Array:
        raise NotImplementedError

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        self.variables = {
            "params": {"scale": jnp.asarray(weight), "bias": jnp.asarray(bias)},
            "batch_stats": {"mean": jnp.asarray(mean), "var": jnp.asarray(var)},
        }


LAYERS = {"Flax (NNX)": NNX, "Flax (Linen)": Linen}
