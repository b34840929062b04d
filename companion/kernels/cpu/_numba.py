"""What the kernels use of Numba beyond its documented interface, all in one place.

``tests/kernels/test_cpu_numba.py`` has a test of each. A new release of Numba is to pass them
before the bound in ``pyproject.toml`` is raised.
"""

from __future__ import annotations

import ctypes
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import event
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin
from numba.np.arrayobj import make_array, populate_array

# The kernels allocate nothing, so they need not count references to arrays: counting takes longer
# than many a short loop. In exchange a function must not return an array, only an address. Python
# calls none of them, so they need no way in from Python or C either: each would be one more copy.
njit = partial(numba.njit, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
# Short functions of the inner loops are pasted in: passing them arrays takes longer than they do.
inlined = partial(njit, forceinline=True)

_INT64 = ir.IntType(64)


@intrinsic
def array_at(_typing: Any, address: Any, _count: Any, like: Any) -> Any:
    """The `count` values at an address as an array, of the type `like` is, or has, or is one of."""
    dtype = like.dtype if isinstance(like, (types.Array, types.DType)) else like
    array = types.Array(dtype, 1, "C")

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(dtype))
        result = make_array(array)(context, builder)
        populate_array(
            result,
            data=builder.inttoptr(args[0], result.data.type),
            shape=[args[1]],
            strides=[ir.Constant(_INT64, size)],
            itemsize=ir.Constant(_INT64, size),
            meminfo=None,
        )
        return result._getvalue()

    return array(address, types.intp, like), emit


@intrinsic
def address_of(_typing: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(value.data, _INT64)

    return types.int64(array), emit


def reader(structure: type[ctypes.Structure]) -> Any:
    """A compiled function from the address of a structure to its numbers, as a named tuple.

    As a tuple the numbers stay in registers. Those of a structure within it come as if they were
    its own; arrays are left out.
    """
    places = dict(_numbers(structure, 0))
    kinds = [kind for kind, _ in places.values()]
    result = types.NamedTuple(kinds, namedtuple(structure.__name__, places))

    @intrinsic
    def read(_typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            numbers = []
            for kind, offset in places.values():
                address = builder.add(args[0], ir.Constant(_INT64, offset))
                pointer = context.get_value_type(kind).as_pointer()
                numbers.append(builder.load(builder.inttoptr(address, pointer)))
            return context.make_tuple(builder, result, numbers)

        return result(address), emit

    return read


_KINDS = {ctypes.c_double: types.float64, ctypes.c_int64: types.int64}


def _numbers(structure: Any, start: int) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Name of each number of a structure, with its type and its distance from the beginning."""
    for name, kind in structure._fields_:
        offset = start + getattr(structure, name).offset
        if kind in _KINDS:
            yield name, (_KINDS[kind], offset)
        elif issubclass(kind, ctypes.Structure):
            yield from _numbers(kind, offset)


def define(operation: Callable[..., Any], kind: type[types.Type], instruction: str) -> None:
    """Let an operator, between two values of one of our own types, stand for an instruction."""

    class Typing(AbstractTemplate):
        key = operation

        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], kind) and args[0] == args[1] and not kws:
                return signature(args[0], *args)
            return None

    infer_global(operation)(Typing)

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    lower_builtin(operation, kind, kind)(emit)


class _Once(event.Listener):
    def __init__(self, report: Callable[[], None]) -> None:
        self._report, self._reported = report, False

    def on_start(self, event: Any) -> None:
        del event
        if not self._reported:
            self._reported = True
            self._report()

    def on_end(self, event: Any) -> None:
        """Only the beginning counts."""


@contextmanager
def when_compiling(report: Callable[[], None]) -> Iterator[None]:
    """Call `report` when Numba's compiler begins its first pass over something within the block."""
    with event.install_listener("numba:run_pass", _Once(report)):
        yield
