"""The CUDA kernels for a test: on a GPU if there is one, else in Triton's interpreter.

Triton decides on import whether it interprets. So it is imported anew here, with the environment
variable set, and afterwards everything is put back: other tests see another Triton, or none.
"""

import importlib
import os
import sys
from contextlib import contextmanager

import torch

import companion.kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_OWN = "companion.kernels.cuda"


def _is_concerned(name):
    # Triton's compiled library cannot be loaded twice, and does not know of the interpreter.
    is_triton = name.split(".")[0] == "triton" and not name.startswith("triton._C")
    return is_triton or name.startswith(_OWN)


def _take_modules():
    for name in list(vars(companion.kernels)):
        if name == "cuda":
            delattr(companion.kernels, name)
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _is_concerned(name)}


@contextmanager
def cuda_kernels():
    """Import ``companion.kernels.cuda`` such that it runs here."""
    if DEVICE == "cuda":
        yield importlib.import_module(_OWN)
        return
    before, variable = _take_modules(), os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        yield importlib.import_module(_OWN)
    finally:
        _take_modules()
        sys.modules.update(before)
        if _OWN in before:
            companion.kernels.cuda = before[_OWN]
        if variable is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = variable
