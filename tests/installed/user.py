"""A user's program, of which mypy knows the types by the wheel's `py.typed`: `make dist` asks it.

Where a `type: ignore` stands, the call is wrong, and mypy has to say so: an unused one is an error.
"""

from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import companion
from companion import functional, reference
from companion.conversion import ConversionReport
from companion.diagnosis import Diagnosis
from companion.variants import GhostBatchNorm2d

x = torch.randn(8, 3, 4, 4)
model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())

assert_type(companion.convert(model), nn.Module)
assert_type(companion.convert(model, report=True), tuple[nn.Module, ConversionReport])
assert_type(companion.diagnose(model), Diagnosis)
assert_type(companion.merge_statistics(model, [model, model], counts=[8, 8]), None)
assert_type(functional.batch_norm(x, None, None, training=True), Tensor)
assert_type(companion.BatchNorm2d(16).eps, float)
assert_type(GhostBatchNorm2d(64, ghost_size=32).ghost_size, int)
assert_type(reference.forward(np.ones((4, 3))).y, NDArray[np.float64])
assert_type(companion.__version__, str)

companion.BatchNorm2d("16")  # type: ignore[arg-type]
companion.convert(model, report="yes")  # type: ignore[call-overload]
companion.convert(x)  # type: ignore[call-overload]
companion.update_precise(model, [x], num_samples="all")  # type: ignore[arg-type]
functional.batch_norm(x)  # type: ignore[call-arg]
functional.batch_norm(x, None, None, momentum="0.1")  # type: ignore[arg-type]
reference.forward(x, axis=1)  # type: ignore[call-arg]
companion.BatchNorm4d(16)  # type: ignore[attr-defined]
