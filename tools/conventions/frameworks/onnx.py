"""The operator of ONNX: its definition's own evaluator, and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ..layers import Array

VERSIONS = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}

_OPSET = 23
_KINDS = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


class _Operator:
    channels_last = False

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = None,
        eps: float | None = None,
        dtype: str = "float32",
    ) -> None:
        given = {"momentum": momentum, "epsilon": eps}
        self.options: dict[str, Any] = {
            key: value for key, value in given.items() if value is not None
        }
        schema = onnx.defs.get_schema("BatchNormalization", _OPSET)
        self.momentum = schema.attributes["momentum"].default_value.f
        self.names = [one.name for one in schema.inputs[1:]]
        kept = np.float64 if dtype == "float64" else np.float32
        ones, zeros = np.ones(channels, kept), np.zeros(channels, kept)
        self.state = [ones, zeros, zeros, ones]

    def _model(self, x: Array, **options: Any) -> onnx.ModelProto:
        outputs = ["y", "mean", "var"] if options.get("training_mode") else ["y"]
        kinds = [_KINDS[str(x.dtype)]] + [_KINDS[str(value.dtype)] for value in self.state]
        node = helper.make_node(
            "BatchNormalization", ["x", *self.names], outputs, **self.options, **options
        )
        shapes = [x.shape, *(value.shape for value in self.state)]
        inputs = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in zip(["x", *self.names], kinds, shapes, strict=True)
        ]
        given = [helper.make_tensor_value_info(outputs[0], kinds[0], x.shape)]
        given += [
            helper.make_tensor_value_info(name, kinds[-1], self.state[0].shape)
            for name in outputs[1:]
        ]
        graph = helper.make_graph([node], "one", inputs, given)
        version = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[version], ir_version=10)

    def _outputs(self, model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
        raise NotImplementedError

    def _run(self, x: Array, **options: Any) -> Array:
        feed = dict(zip(["x", *self.names], [x, *self.state], strict=True))
        y, *moved = self._outputs(self._model(x, **options), feed)
        if moved:
            self.state[2:] = [np.asarray(value) for value in moved]
        return y

    def train(self, x: Array, mask: Array | None = None) -> Array:
        if mask is not None:
            raise TypeError("the operator takes no mask")
        return self._run(x, training_mode=1)

    def train_alone(self, x: Array) -> None:
        before = list(self.state)
        self._run(x, training_mode=1)
        self.state = before  # what came back is for the caller to keep

    def evaluate(self, x: Array) -> Array:
        return self._run(x, training_mode=0)

    def call(self, x: Array) -> Array:
        return self._run(x)

    def train_frozen(self, x: Array) -> Array:
        raise NotImplementedError

    def load(self, weight: Array, bias: Array, mean: Array, var: Array) -> None:
        self.state = [weight, bias, mean, var]


class Reference(_Operator):
    def _outputs(self, model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
        return ReferenceEvaluator(model).run(None, feed)  # type: ignore[return-value]


class Runtime(_Operator):
    def _outputs(self, model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs: list[Array] = session.run(None, feed)
        return outputs


LAYERS = {"ONNX": Reference, "ONNX Runtime": Runtime}
