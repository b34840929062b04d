"""Vectors: sixteen neighbouring activations in registers, and what kernels do with them.

Numba has no word for vector instructions and leaves them to the compiler, which finds some. Here
they are said: a kernel loads a vector, computes with it, and stores it, and looks like the formula
of one value. A vector is in the type of computation, float32 for half precision, and converted on
the way from and to memory. The processor may have shorter registers; the compiler then uses
several.

Places in memory are addresses, and `like` is an array of the type that is stored there. Loads and
stores take a number of values, and leave memory beyond it alone; the constant `LANES` makes
them one instruction.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from ._numba import array_at, define, inlined
from .formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, computed, emit_narrow, emit_widen

LANES = 16

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """`LANES` values of one type."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, LANES))


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    define(_operation, Vector, _instruction)


def _intrinsic_function(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _splat(builder: Any, value: Any) -> Any:
    empty = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, empty, zeros)


def _first(builder: Any, count: Any) -> Any:
    """A mask: true for the first `count` lanes."""
    numbers = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))
    return builder.icmp_signed("<", numbers, _splat(builder, builder.trunc(count, _INT32)))


def _memory(context: Any, builder: Any, address: Any, stored: Any) -> tuple[Any, Any, str, int]:
    """Type of a stored vector, where it is, how LLVM calls it, and the alignment of a value."""
    element = context.get_value_type(stored)
    vector = ir.VectorType(element, LANES)
    letter = {"float": "f32", "double": "f64"}.get(str(element), str(element))
    place = builder.inttoptr(address, vector.as_pointer())
    return vector, place, f"v{LANES}{letter}", stored.bitwidth // 8


@intrinsic
def load(_typing: Any, address: Any, like: Any, count: Any) -> Any:
    """The `count` values at an address, and zeros, as a vector in the type of computation."""
    stored = like.dtype

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector, place, letters, align = _memory(context, builder, args[0], stored)
        whole = builder.icmp_signed("==", args[2], ir.Constant(_INT64, LANES))
        with builder.if_else(whole) as (all_of_it, a_part):
            with all_of_it:
                loaded = builder.load(place, align=align)
                after_load = builder.block
            with a_part:
                mask = _first(builder, args[2])
                function = _intrinsic_function(
                    builder,
                    f"llvm.masked.load.{letters}.p0",
                    vector,
                    [place.type, _INT32, mask.type, vector],
                )
                zeros = ir.Constant(vector, None)
                part = builder.call(function, [place, ir.Constant(_INT32, align), mask, zeros])
                after_part = builder.block
        both = builder.phi(vector)
        both.add_incoming(loaded, after_load)
        both.add_incoming(part, after_part)
        return emit_widen(builder, both, stored)

    return Vector(computed(stored))(address, like, count), emit


@intrinsic
def store(_typing: Any, address: Any, like: Any, value: Any, _count: Any, _past_cache: Any) -> Any:
    """Round a vector to the stored type and write its first values.

    A whole vector goes past the cache where `past_cache` says so; its address must then be a
    multiple of its size, or of 64 bytes.
    """
    stored = like.dtype

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector, place, letters, align = _memory(context, builder, args[0], stored)
        rounded = emit_narrow(builder, args[2], stored)
        whole = builder.icmp_signed("==", args[3], ir.Constant(_INT64, LANES))
        with builder.if_else(whole) as (all_of_it, a_part):
            with all_of_it, builder.if_else(args[4]) as (past, through):
                with past:
                    aligned = min(LANES * align, 64)
                    written = builder.store(rounded, place, align=aligned)
                    flag = builder.module.add_metadata([ir.Constant(_INT32, 1)])
                    written.set_metadata("nontemporal", flag)
                with through:
                    builder.store(rounded, place, align=align)
            with a_part:
                mask = _first(builder, args[3])
                function = _intrinsic_function(
                    builder,
                    f"llvm.masked.store.{letters}.p0",
                    ir.VoidType(),
                    [vector, place.type, _INT32, mask.type],
                )
                builder.call(function, [rounded, place, ir.Constant(_INT32, align), mask])
        return context.get_dummy_value()

    return types.void(address, like, value, types.int64, types.boolean), emit


@inlined
def until_aligned(address, like, count):
    """How many values to write before those at which :func:`store` may pass the cache."""
    return min(-address % min(64, LANES * like.itemsize) // like.itemsize, count)


@intrinsic
def splat(_typing: Any, value: Any) -> Any:
    """A vector of one value."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return Vector(value)(value), emit


@intrinsic
def convert(_typing: Any, value: Any, like: Any) -> Any:
    """The same values, rounded if need be, in the type of another vector.

    If `like` is an array, it is the type in which values like those of the array are computed.
    """
    to = like.element if isinstance(like, Vector) else computed(like.dtype)

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if to == value.element:
            return args[0]
        kind = ir.VectorType(context.get_value_type(to), LANES)
        return (builder.fptrunc if to == types.float32 else builder.fpext)(args[0], kind)

    return Vector(to)(value, like), emit


@inlined
def wide(value):
    """The same values in float64."""
    return convert(value, splat(0.0))


@inlined
def read(address, kind, first, count, default):
    """Parameters or statistics of any type, from number `first` on, in float64.

    `default` stands for those that are absent.
    """
    if kind == FLOAT32:
        return wide(load(address + 4 * first, array_at(address, 1, np.float32(0)), count))
    if kind == FLOAT64:
        return load(address + 8 * first, array_at(address, 1, 0.0), count)
    if kind == FLOAT16:
        return wide(load(address + 2 * first, array_at(address, 1, np.int16(0)), count))
    if kind == BFLOAT16:
        return wide(load(address + 2 * first, array_at(address, 1, np.uint16(0)), count))
    return splat(default)


@inlined
def write(address, kind, first, count, value):
    """Round float64 values to the type at `address`, and put them there from `first` on."""
    if kind == FLOAT32:
        like = array_at(address, 1, np.float32(0))
        store(address + 4 * first, like, convert(value, like), count, False)
    elif kind == FLOAT64:
        store(address + 8 * first, array_at(address, 1, 0.0), value, count, False)
    elif kind == FLOAT16:
        bits = array_at(address, 1, np.int16(0))
        store(address + 2 * first, bits, convert(value, bits), count, False)
    elif kind == BFLOAT16:
        bfloats = array_at(address, 1, np.uint16(0))
        store(address + 2 * first, bfloats, convert(value, bfloats), count, False)


@intrinsic
def only_first(_typing: Any, value: Any, _count: Any) -> Any:
    """The first values, and zeros."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        zeros = ir.Constant(args[0].type, None)
        return builder.select(_first(builder, args[1]), args[0], zeros)

    return value(value, types.int64), emit


@intrinsic
def blend(_typing: Any, _count: Any, first: Any, others: Any) -> Any:
    """The first `count` lanes of one vector, and the other lanes of another."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(_first(builder, args[0]), args[1], args[2])

    return first(types.int64, first, others), emit


@intrinsic
def multiply_add(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once where the processor can."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = args[0].type
        letters = "f32" if a.element == types.float32 else "f64"
        name = f"llvm.fmuladd.v{LANES}{letters}"
        return builder.call(_intrinsic_function(builder, name, kind, [kind] * 3), args)

    return a(a, b, c), emit


@intrinsic
def total(_typing: Any, value: Any) -> Any:
    """The sum of a vector's values, added up in pairs."""

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = context.get_value_type(value.element)
        letters = "f32" if value.element == types.float32 else "f64"
        name = f"llvm.vector.reduce.fadd.v{LANES}{letters}"
        function = _intrinsic_function(builder, name, kind, [kind, args[0].type])
        return builder.call(function, [ir.Constant(kind, 0.0), args[0]], fastmath=("reassoc",))

    return value.element(value), emit


@intrinsic
def not_below(_typing: Any, floor: Any, value: Any) -> Any:
    """The larger of two values, each lane for itself; a NaN stays one."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[1], args[0]), args[0], args[1])

    return value(floor, value), emit


@intrinsic
def not_above(_typing: Any, ceiling: Any, value: Any) -> Any:
    """The smaller of two values, each lane for itself; a NaN stays one."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[0], args[1])

    return value(ceiling, value), emit


@intrinsic
def only_finite(_typing: Any, value: Any) -> Any:
    """The finite values, and zeros."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        zeros = ir.Constant(args[0].type, None)
        return builder.select(_finite(builder, args[0]), args[0], zeros)

    return value(value), emit


@intrinsic
def within(_typing: Any, bound: Any, value: Any) -> Any:
    """`value` between -`bound` and `bound`; a NaN or an infinity stays one."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        largest, given = args
        least = builder.fneg(largest)
        kept = builder.select(builder.fcmp_ordered(">", given, largest), largest, given)
        kept = builder.select(builder.fcmp_ordered("<", given, least), least, kept)
        return builder.select(_finite(builder, given), kept, given)

    return value(bound, value), emit


@intrinsic
def zero_where_within(_typing: Any, bound: Any, value: Any) -> Any:
    """0 where `value` is between -`bound` and `bound`, and `value` elsewhere."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        largest, given = args
        small = builder.and_(
            builder.fcmp_ordered("<=", given, largest),
            builder.fcmp_ordered(">=", given, builder.fneg(largest)),
        )
        return builder.select(small, ir.Constant(given.type, None), given)

    return value(bound, value), emit


@intrinsic
def all_finite(_typing: Any, value: Any) -> Any:
    """Whether no lane is infinite or not a number."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _all(builder, _finite(builder, args[0]))

    return types.boolean(value), emit


@intrinsic
def all_within(_typing: Any, value: Any, bound: Any) -> Any:
    """Whether no lane is larger than its bound, or not a number."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _all(builder, builder.fcmp_ordered("<=", *args))

    return types.boolean(value, bound), emit


def _all(builder: Any, mask: Any) -> Any:
    name = f"llvm.vector.reduce.and.v{LANES}i1"
    return builder.call(_intrinsic_function(builder, name, ir.IntType(1), [mask.type]), [mask])


def _finite(builder: Any, value: Any) -> Any:
    """A mask: x - x is 0 for finite x only."""
    difference = builder.fsub(value, value)
    return builder.fcmp_ordered("==", difference, ir.Constant(value.type, None))


@intrinsic
def root(_typing: Any, value: Any) -> Any:
    """The square root."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.sqrt.v{LANES}f64"
        return builder.call(_intrinsic_function(builder, name, kind, [kind]), args)

    return value(value), emit


@intrinsic
def where_positive(_typing: Any, value: Any, gradient: Any) -> Any:
    """`gradient` where `value` is positive, or NaN, and 0 elsewhere."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        zeros = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<=", args[0], zeros), zeros, args[1])

    return gradient(value, gradient), emit


@intrinsic
def prefetch(_typing: Any, _address: Any) -> Any:
    """Ask for the cache line of an address, which need not exist."""

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        function = _intrinsic_function(
            builder, "llvm.prefetch.p0", ir.VoidType(), [place.type, _INT32, _INT32, _INT32]
        )
        builder.call(function, [place, *(ir.Constant(_INT32, n) for n in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), emit
