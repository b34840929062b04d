"""Number formats: half precision, which is computed in float32, and parameters of any type.

Numba or NumPy lack the two half-precision types. In the kernels they go by the integer that has
their bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

FLOAT16_BITS, BFLOAT16_BITS = types.int16, types.uint16

# Types of parameters and statistics, told apart while running: 0 stands for an absent tensor.
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = range(1, 5)


class Format(NamedTuple):
    """A type of activations, parameters and statistics."""

    kind: int
    stored: type
    """NumPy's type with its bits."""
    compute: type
    """NumPy's type in which activations are computed."""
    largest: float
    """The largest finite value."""


FORMATS = {
    "float32": Format(FLOAT32, np.float32, np.float32, 3.4028234663852886e38),
    "float64": Format(FLOAT64, np.float64, np.float64, 1.7976931348623157e308),
    "float16": Format(FLOAT16, np.int16, np.float32, 65504.0),
    "bfloat16": Format(BFLOAT16, np.uint16, np.float32, 3.3895313892515355e38),
}
"""By PyTorch's names."""
LARGEST = (0.0, *(each.largest for each in FORMATS.values()))
"""The largest finite value of each kind."""

_INT16, _INT32 = ir.IntType(16), ir.IntType(32)
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()


def computed(stored: Any) -> Any:
    """The Numba type in which values of a stored type are computed."""
    return types.float32 if stored in (FLOAT16_BITS, BFLOAT16_BITS) else stored


def _like(value: Any, element: Any) -> Any:
    """The LLVM type with the shape of `value`, a number or a vector of them, and that element."""
    if isinstance(value.type, ir.VectorType):
        return ir.VectorType(element, value.type.count)
    return element


def _constant(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def emit_widen(builder: Any, value: Any, stored: Any) -> Any:
    """Bring a number or a vector from its stored type to the type of computation."""
    if stored == FLOAT16_BITS:
        halves = builder.bitcast(value, _like(value, _HALF))
        return builder.fpext(halves, _like(value, _FLOAT))
    if stored == BFLOAT16_BITS:
        wide = _like(value, _INT32)
        bits = builder.shl(builder.zext(value, wide), _constant(wide, 16))
        return builder.bitcast(bits, _like(value, _FLOAT))
    return value


def emit_narrow(builder: Any, value: Any, stored: Any) -> Any:
    """Round a number or a vector to the nearest of the stored type."""
    if stored == FLOAT16_BITS:
        halves = builder.fptrunc(value, _like(value, _HALF))
        return builder.bitcast(halves, _like(value, _INT16))
    if stored == BFLOAT16_BITS:
        return _emit_bfloat16(builder, value)
    return value


def _emit_bfloat16(builder: Any, value: Any) -> Any:
    """bfloat16 is the upper half of a float32: add half a unit, and cut."""
    wide = _like(value, _INT32)
    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, _constant(wide, 16)), _constant(wide, 1))
    rounded = builder.add(bits, builder.add(odd, _constant(wide, 0x7FFF)))
    # Rounding could carry a NaN over into infinity.
    is_nan = builder.fcmp_unordered("uno", value, value)
    kept = builder.select(is_nan, _constant(wide, 0x7FC00000), rounded)
    return builder.trunc(builder.lshr(kept, _constant(wide, 16)), _like(value, _INT16))
