"""TensorFlow's old layers: Keras 2, as the package tf_keras has it, and TensorFlow 1."""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

from typing import Any

import numpy as np
import tensorflow
import tf_keras

from ..layers import Array

VERSIONS = {"tensorflow": tensorflow.__version__, "tf_keras": tf_keras.__version__}

v1 = tensorflow.compat.v1


def _options(momentum: float | None, eps: float | None) -> dict[str, Any]:
    given = {"momentum": momentum, "epsilon": eps}
    return {key: value for key, value in given.items() if value is not None}


class Keras2:
    channels_last = True

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        self.channels = channels
        policy = "mixed_float16" if dtype == "half" else dtype
        self.made = lambda: tf_keras.layers.BatchNormalization(
            dtype=policy, **_options(momentum, eps)
        )
        self.layer = self.made()
        self.momentum = self.layer.momentum
        twin = tf_keras.layers.BatchNormalization()
        twin.build((None, channels))
        self.names = [weight.name.split("/")[-1].split(":")[0] for weight in twin.weights]

    def _run(self, x: Array, **options: Any) -> Array:
        return np.asarray(self.layer(tensorflow.constant(x), **options).numpy())

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if x.shape[-1] != self.channels:
            raise ValueError(f"x: expected {self.channels} channels, got {x.shape[-1]}")
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


class Layers1:
    """A graph for each call, with the variables carried from one to the next."""

    channels_last = True

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        del dtype
        self.channels, self.options = channels, _options(momentum, eps)
        self.values: list[Array] | None = None
        self.momentum = 0.99
        self.names: list[str] = []
        self._run(np.zeros((2, channels), np.float32), False)
        self.values = None

    def _run(self, x: Array, update: bool, **options: Any) -> Array:
        with tensorflow.Graph().as_default():
            given = v1.placeholder(x.dtype, x.shape)
            y = v1.layers.batch_normalization(given, **self.options, **options)
            variables = v1.global_variables()
            self.names = [one.op.name.split("/")[-1] for one in variables]
            if variables[0].shape[0] != self.channels:
                raise ValueError(f"x: expected {self.channels} channels, got {x.shape[-1]}")
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                for one, value in zip(variables, self.values or (), strict=False):
                    one.load(value, session)
                result = session.run(y, {given: x})
                if update:
                    session.run(v1.get_collection(v1.GraphKeys.UPDATE_OPS), {given: x})
                self.values = session.run(variables)
        return np.asarray(result)

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            raise TypeError("the function takes no mask")
        return self._run(x, True, training=True)

    def train_alone(self, x: Array) -> None:
        self._run(x, False, training=True)

    def evaluate(self, x: Array) -> Array:
        return self._run(x, False, training=False)

    def call(self, x: Array) -> Array:
        return self._run(x, False)

    def train_frozen(self, x: Array) -> Array:
        return self._run(x, True, training=True, trainable=False)

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        self.values = [weight, bias, mean, var]


LAYERS = {"Keras 2": Keras2, "TensorFlow 1": Layers1}
