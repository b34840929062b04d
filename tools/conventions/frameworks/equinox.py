"""Equinox, whose layer takes one example and has two modes."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np

from ..layers import Array

VERSIONS = {"equinox": equinox.__version__, "jax": jax.__version__}


class _Equinox:
    channels_last = False
    mode: str

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
        state = jnp.float64 if dtype == "float64" else jnp.float32
        self.layer, self.state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
            channels, axis_name="batch", mode=self.mode, dtype=state, **options
        )
        self.momentum = self.layer.momentum
        fields = [one.name for one in dataclasses.fields(self.layer)]
        self.names = [name for name in fields if isinstance(getattr(self.layer, name), jax.Array)]
        self.names.append(f"{self.mode}_state_index")

    def _index(self) -> Any:
        return getattr(self.layer, self.names[-1])

    def _run(self, x: Array, inference: bool | None) -> Array:
        over = jax.vmap(
            lambda one, state: self.layer(one, state, inference=inference),
            axis_name="batch",
            in_axes=(0, None),
            out_axes=(0, None),
        )
        y, self.state = over(jnp.asarray(x), self.state)  # which it returns, and leaves the old
        return np.asarray(y)

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            raise TypeError("the call takes no mask")
        return self._run(x, False)

    def train_alone(self, x: Array) -> None:
        before = self.state
        self._run(x, False)
        self.state = before

    def evaluate(self, x: Array) -> Array:
        return self._run(x, True)

    def call(self, x: Array) -> Array:
        return self._run(x, None)

    def train_frozen(self, x: Array) -> Array:
        raise NotImplementedError

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        self.layer = equinox.tree_at(
            lambda layer: (layer.weight, layer.bias),
            self.layer,
            tuple(map(jnp.asarray, (weight, bias))),
        )
        self.state = self.state.set(self._index(), (jnp.asarray(mean), jnp.asarray(var)))


class Batch(_Equinox):
    mode = "batch"


class EMA(_Equinox):
    mode = "ema"


LAYERS = {"Equinox (batch)": Batch, "Equinox (ema)": EMA}
