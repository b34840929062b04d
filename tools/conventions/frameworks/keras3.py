"""Keras 3, on the backend that the environment names."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..layers import Array

BACKEND = keras.backend.backend()
VERSIONS = {"keras": keras.__version__}


class Keras:
    channels_last = True

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        given = {"momentum": momentum, "epsilon": eps}
        options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        policy = "mixed_float16" if dtype == "half" else dtype
        self.dtype = dtype
        self.layer = keras.layers.BatchNormalization(dtype=policy, **options)
        self.channels = channels
        self.momentum = self.layer.momentum
        twin = keras.layers.BatchNormalization()
        twin.build((None, channels))
        self.names = [weight.name for weight in twin.weights]

    def _run(self, x: Array, **options: Any) -> Array:
        if x.shape[-1] != self.channels:
            raise ValueError(f"x: expected {self.channels} channels, got {x.shape[-1]}")
        if not self.layer.built:
            self.layer.build(x.shape)
        self.layer.input_spec = None  # inputs of both ranks
        self.layer._reduction_axes = list(range(x.ndim - 1))
        return np.asarray(keras.ops.convert_to_numpy(self.layer(x, **options)))

    def train(self, x: Array, mask: Array | None = None) -> Array:
        return self._run(x, training=True, **({} if mask is None else {"mask": mask}))

    def train_alone(self, x: Array) -> None:
        self.train(x)

    def evaluate(self, x: Array) -> Array:
        return self._run(x, training=False)

    def call(self, x: Array) -> Array:
        return self._run(x)

    def train_frozen(self, x: Array) -> Array:
        self.layer.trainable = False
        return self._run(x, training=True)

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        self.layer.build((None, self.channels))
        self.layer.set_weights([weight, bias, mean, var])


BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow"}
LAYERS = {f"Keras 3 ({BACKENDS[BACKEND]})": Keras}
