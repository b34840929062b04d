"""Numba's undocumented interfaces do what the kernels need; these tests pass with 0.62 to 0.68."""

import ctypes
from functools import partial

import numba
import numpy as np
import pytest

pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
from companion.kernels.cpu import _numba, vectors

# With a way in from Python.
njit = partial(_numba.njit, no_cpython_wrapper=False)


def compiled(function, *arguments):
    """The function, compiled for some arguments, and its LLVM code."""
    function(*arguments)
    (code,) = function.inspect_llvm().values()
    return code


def test_references_are_not_counted():
    """Flag ``_nrt``: with it left alone, an array that is passed on is counted."""

    def pick(array):
        view = array[1:]
        return view[0]

    assert "NRT_" in compiled(numba.njit(pick), np.arange(3.0))
    assert "NRT_" not in compiled(njit(pick), np.arange(3.0))


def test_short_functions_are_pasted_in():
    """Flag ``forceinline``: LLVM's attribute, which does not depend on what it finds worthwhile."""

    def twice(x):
        return 2.0 * x

    assert "alwaysinline" not in compiled(njit(twice), 1.0)
    assert "alwaysinline" in compiled(_numba.inlined(twice, no_cpython_wrapper=False), 1.0)


def test_functions_have_no_ways_in_from_python_or_c():
    """Options ``no_cpython_wrapper`` and ``no_cfunc_wrapper``: LLVM would paste it into each."""

    def wrappers(decorator):
        function = decorator(lambda x: 2.0 * x)
        function.compile((numba.float64,))
        (code,) = function.inspect_llvm().values()
        return ["cfunc." in code, "7cpython" in code]

    assert wrappers(numba.njit) == [True, True]
    assert wrappers(_numba.njit) == [False, False]
    assert wrappers(_numba.inlined) == [False, False]


def test_arrays_by_address():
    """``make_array`` and ``populate_array``."""

    @njit
    def add(address, like):
        array = _numba.array_at(address, 3, like)
        array[2] += array[0]
        return array.size, _numba.address_of(array[1:])

    values = np.array([1.0, 2.0, 4.0])
    address = values.ctypes.data
    assert add(address, values) == (3, address + 8)
    assert values[2] == 5.0
    bits = np.array([1, 2, 4], np.int16)
    assert add(bits.ctypes.data, np.int16(0)) == (3, bits.ctypes.data + 2)
    assert bits[2] == 5


class _Inner(ctypes.Structure):
    _fields_ = [("last", ctypes.c_int64)]


class _Outer(ctypes.Structure):
    _fields_ = [
        ("counters", ctypes.c_int64 * 2),
        ("whole", ctypes.c_int64),
        ("half", ctypes.c_double),
        ("inner", _Inner),
    ]


def test_structures_are_read_by_name():
    """``types.NamedTuple`` and the context's ``make_tuple``."""
    read = _numba.reader(_Outer)

    @njit
    def numbers(address):
        outer = read(address)
        return outer.last, outer.half, outer.whole

    outer = _Outer(whole=2, half=0.5, inner=_Inner(7))
    assert numbers(ctypes.addressof(outer)) == (7, 0.5, 2)


def test_operators_of_own_types():
    """``AbstractTemplate`` and ``infer_global``, which add to what an operator already does."""

    @njit
    def compute(address, values):
        a = vectors.load(address, values, vectors.LANES)
        vectors.store(address, values, (a + a) * a - a / a, vectors.LANES, False)
        return 3 + 4

    values = np.arange(1.0, 17.0)
    assert compute(values.ctypes.data, values) == 7
    n = np.arange(1.0, 17.0)
    np.testing.assert_array_equal(values, 2 * n * n - 1)


def test_operators_of_different_types_are_refused():
    @njit
    def add():
        return vectors.total(vectors.splat(1.0) + vectors.splat(np.float32(1.0)))

    with pytest.raises(numba.TypingError, match="No implementation of function"):
        add()


def test_the_compilers_beginning_is_noticed_once():
    """Events of the kind ``numba:run_pass``; what is there already makes none."""
    noticed = []

    @numba.njit
    def more(x):
        return x + 1

    with _numba.when_compiling(lambda: noticed.append(1)):
        assert more(1) == 2
    assert noticed == [1]
    with _numba.when_compiling(lambda: noticed.append(1)):
        assert more(2) == 3
    assert noticed == [1]


def test_llvm_knows_the_instructions():
    """Their names, which end in ``.p0`` where there are pointers."""

    @njit
    def compute(address, values):
        vectors.prefetch(address)
        a = vectors.load(address, values, 3)
        roots = vectors.root(vectors.multiply_add(a, a, vectors.splat(0.0)))
        vectors.store(address, values, roots + roots, 2, False)
        return vectors.total(a), vectors.all_finite(a)

    values = np.arange(1.0, 17.0)
    assert compute(values.ctypes.data, values) == (6.0, True)
    assert values.tolist() == [2.0, 4.0, *range(3, 17)]
