"""Every kernel module against the oracle: one contract, whatever computes.

The CPU kernels with one thread, and with two, as if the tensors were large; the CUDA kernels on a
GPU if there is one, else in Triton's interpreter, which is slow: there, one thing at a time.
"""

import importlib.util
from itertools import product

import pytest
import torch
from _contract import Case, check, given

from companion.kernels import select

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# On the CPU: planes of one and several tiles, odd maps, single rows, joined rows and a short last
# one, more channels than a panel has columns, and two values.
SHAPES = [
    *((60, 100), (7, 3), (2, 5), (3, 1500), (1031, 2), (4, 6, 1), (5, 7, 49), (2, 40, 100)),
    *((2, 3, 150), (2, 2, 5000), (3, 5, 13, 17), (2, 9, 2, 3, 4)),
]
LAYOUTS = [(shape, last) for shape in SHAPES for last in (False, True)[: 1 + (len(shape) > 3)]]
FUSED = [
    {},
    {"affine": False},
    {"relu": True},
    {"residual": True},
    {"relu": True, "residual": True},
]
STATES = [{}, {"running": True}, {"running": True, "momentum": None}, {"fixed": True}]

# Every third of the product: 3 divides none of the counts, so every pair of choices is there.
ON_CPU = [
    Case(shape, dtype, last, **fused, **state)
    for (shape, last), dtype, fused, state in product(LAYOUTS, TYPES, FUSED, STATES)
][::3]
PLANES, ROWS, LAST = ((4, 3, 5, 7), False), ((37, 5), False), ((3, 10, 3, 2), True)
ON_CUDA = [
    *(Case(shape, torch.float32, last) for shape, last in (PLANES, ROWS, LAST)),
    *(Case(PLANES[0], dtype) for dtype in TYPES[1:]),
    *(Case(shape, torch.float32, last, True, True, fixed=True) for shape, last in (PLANES, LAST)),
    *(Case(ROWS[0], **fused, **STATES[i % 4]) for i, fused in enumerate(FUSED)),
    *(Case(PLANES[0], **state) for state in STATES[1:3]),
]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", ON_CPU, ids=str)
def test_cpu(case):
    check(select.load("cpu"), case, given(case))


@pytest.fixture(scope="module")
def cuda():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    from _cuda_interpreter import DEVICE, cuda_kernels

    with cuda_kernels() as kernels:
        yield kernels, DEVICE


# The interpreter computes with NumPy, which warns of NaN and infinity; and coverage doubles its
# time.
@pytest.mark.no_cover
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", ON_CUDA, ids=str)
def test_cuda(cuda, case):
    kernels, device = cuda
    check(kernels, case, given(case, device))
