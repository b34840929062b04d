"""The questions that every layer is asked, answered by what it computes.

Running statistics are not read but inferred: in evaluation mode a layer is a line, so the outputs
for 0 and 1 give the mean and the variance that it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .layers import Array, Layer, channels_last, framework_layout

Answers = dict[str, Any]

_OFFSET = 1e4
_SPREAD = 300.0  # whose square half precision does not hold


def answers(make: type[Layer]) -> Answers:
    """Ask a class of layers everything."""
    layer = make(1)
    return {
        "names": layer.names,
        "momentum": layer.momentum,
        "axis": _axis(make),
        "epsilon": _epsilon(make),
        "weight of the new batch at 0.8": _newest(make),
        "variance over that of the batch": _bessel(make, (4,)),
        "variance over that of the batch, images": _bessel(make, (2, 1, 2)),
        "normalized by": _divisor(make),
        "after one batch": _first(make),
        "call": _asked(make, lambda layer, x: layer.call(x)),
        "training, frozen": _asked(make, lambda layer, x: layer.train_frozen(x)),
        "moves its averages": _moves(make, lambda layer, x: layer.train_alone(x)),
        "moves its averages, frozen": _moves(make, lambda layer, x: layer.train_frozen(x)),
        "one value": _single(make),
        "mask": _mask(make),
        "variance at an offset": _offset(make),
        "half": _half(make),
    }


def statistics(layer: Layer, epsilon: float, dtype: Any = np.float32) -> tuple[float, float]:
    """Mean and variance of one channel that evaluation uses; γ = 1 and β = 0."""
    ends = np.array([[0.0], [1.0]], dtype)
    low, high = layer.evaluate(ends).astype(np.float64).ravel()
    slope = high - low
    return -low / slope, 1 / slope**2 - epsilon


def _tried(question: Callable[[], Any]) -> Any:
    """The answer, or the error in one line: an error is an answer too."""
    try:
        return question()
    except NotImplementedError:
        return None
    except Exception as error:  # any that a framework has
        text = str(error).strip().splitlines()
        return {"error": f"{type(error).__name__}: {text[0][:120] if text else ''}"}


def _axis(make: type[Layer]) -> Any:
    """Which axis of a batch of shape (2, 3, 4) has the channels."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 3, 4)).astype(np.float32)

    def found() -> int:
        for axis in (1, 2):
            try:
                y = make(x.shape[axis]).train(x)
            except Exception:  # not this axis, however the framework says it
                continue
            others = tuple(other for other in range(3) if other != axis)
            if np.abs(y.mean(others)).max() < 1e-3:
                return axis
        raise LookupError("neither axis 1 nor axis 2")

    return _tried(found)


def _epsilon(make: type[Layer]) -> Any:
    """What is added to the variance of a batch that is ±1e-3, and whether inside of the root."""

    def found() -> Answers:
        at = {}
        for spread in (1e-3, 1e-2):
            x = np.array([[-spread], [spread]], np.float32)
            y = float(np.abs(make(1).train(x)).max())
            at[spread] = spread**2 * (1 / y**2 - 1)
        inside = abs(at[1e-3] - at[1e-2]) < 0.05 * at[1e-3] + 1e-7
        return {"value": at[1e-3], "inside": bool(inside)}

    return _tried(found)


def _settled(make: type[Layer], shape: tuple[int, ...]) -> tuple[Layer, float]:
    """A layer that has seen 100 batches of mean 0 and variance 1, and its ε."""
    layer = make(1, momentum=0.8)
    x = np.resize(np.array([-1.0, 1.0], np.float32), (*shape, 1))
    for _ in range(100):
        layer.train(framework_layout(layer, x))
    found = _epsilon(make)
    return layer, found["value"]


def _newest(make: type[Layer]) -> Any:
    def found() -> float:
        layer, epsilon = _settled(make, (4,))
        layer.train(np.array([[9.0], [11.0], [9.0], [11.0]], np.float32))
        return statistics(layer, epsilon)[0] / 10

    return _tried(found)


def _bessel(make: type[Layer], shape: tuple[int, ...]) -> Any:
    """The running variance after many batches of four values whose mean square is 1."""

    def found() -> float:
        layer, epsilon = _settled(make, shape)
        ends = np.zeros((2, *shape[1:], 1), np.float32)
        ends[1] = 1
        y = channels_last(layer, layer.evaluate(framework_layout(layer, ends)))
        slope = float(y[1].ravel()[0]) - float(y[0].ravel()[0])
        return 1 / slope**2 - epsilon

    return _tried(found)


def _divisor(make: type[Layer]) -> Any:
    """Sum of squares over variance that training divides by, for m = 4: m or m - 1."""

    def found() -> float:
        x = np.array([[-100.0], [100.0], [-100.0], [100.0]], np.float32)
        return float(np.square(make(1).train(x).astype(np.float64)).sum())

    return _tried(found)


def _first(make: type[Layer]) -> Any:
    """What evaluation uses after one batch of mean 4 and variance 9, of four values."""

    def found() -> list[float]:
        epsilon = _epsilon(make)["value"]
        layer = make(1)
        layer.train(np.array([[1.0], [7.0], [1.0], [7.0]], np.float32))
        return list(statistics(layer, epsilon))

    return _tried(found)


def _asked(make: type[Layer], call: Callable[[Layer, Array], Array]) -> Any:
    """Whether a call normalizes by its batch or by the running statistics, 0 and 1."""

    def found() -> str:
        x = np.array([[1.0], [7.0], [1.0], [7.0]], np.float32)
        mean = float(call(make(1), x).mean())
        return {0: "batch", 4: "running"}.get(round(mean), f"mean {mean:.3g}")

    return _tried(found)


def _moves(make: type[Layer], call: Callable[[Layer, Array], Any]) -> Any:
    """Whether a call in training changes what evaluation uses."""

    def found() -> bool:
        layer, ends = make(1), np.array([[0.0], [1.0]], np.float32)
        before = make(1).evaluate(ends)
        call(layer, np.array([[1.0], [7.0], [1.0], [7.0]], np.float32))
        return not np.allclose(layer.evaluate(ends), before, atol=1e-3, equal_nan=True)

    return _tried(found)


def _single(make: type[Layer]) -> Any:
    """The output for a batch of one value, 5, in training."""
    return _tried(lambda: float(make(1).train(np.array([[5.0]], np.float32)).ravel()[0]))


def _mask(make: type[Layer]) -> Any:
    """Two sequences of two steps, of which the second's last is 1000 and masked."""

    def found() -> Answers:
        layer = make(2)  # with one channel, Keras' statistics of a mask lose their axis
        x = np.array([[[1.0], [7.0]], [[4.0], [1000.0]]], np.float32).repeat(2, 2)
        kept = np.array([[True, True], [True, False]])
        y = channels_last(layer, layer.train(framework_layout(layer, x), kept))
        left_out = abs(float(y[kept].mean())) < 1e-3
        return {"left out": left_out, "output there": float(y[1, 1, 0])}

    try:
        return found()
    except (TypeError, NotImplementedError):
        return None


def _found_variance(make: type[Layer], x: Array, dtype: str) -> tuple[float | None, Array]:
    """The variance by which training divides over the true one, None if infinite; the output."""
    epsilon = _epsilon(make)["value"]
    y = make(1, dtype=dtype).train(x)
    exact, given = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    centred = exact - exact.mean()
    slope = float(centred @ given / (centred @ centred)) if np.isfinite(given).all() else 0.0
    return (1 / slope**2 - epsilon) / float(exact.var()) if slope else None, y


def _offset(make: type[Layer]) -> Any:
    """Found over true variance of 4,096 values of variance 1 around 10⁴, in float32."""
    x = (_OFFSET + np.random.default_rng(0).normal(size=(4096, 1))).astype(np.float32)
    return _tried(lambda: _found_variance(make, x, "float32")[0])


def _half(make: type[Layer]) -> Any:
    """The same of float16 values of standard deviation 300, and the output's type."""
    x = np.random.default_rng(0).normal(0, _SPREAD, (4096, 1)).astype(np.float16)

    def found() -> Answers:
        with np.errstate(over="ignore"):
            ratio, y = _found_variance(make, x, "half")
        return {"found over true": ratio, "output": str(y.dtype)}

    return _tried(found)
