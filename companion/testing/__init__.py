"""An implementation of batch normalization, put to the test that this package's own has to pass.

Every test has inputs on which mistakes show, such as values far from 0, and equations that hold of
every right result, whoever computed it. The appendix `bug-gallery` runs them on bugs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import formulas, models, processes, state
from .operation import Operation, Verdict, examined

__all__ = ["Verdict", "examine"]

OPERATIONS: dict[str, Operation] = {
    "forward": formulas.FORWARD,
    "training-step": formulas.TRAINING_STEP,
    "masked": formulas.MASKED,
    "backward": formulas.BACKWARD,
    "second-derivatives": formulas.SECOND_DERIVATIVES,
    "inference": formulas.INFERENCE,
    "inference-backward": formulas.INFERENCE_BACKWARD,
    "running": state.RUNNING,
    "overflow": state.OVERFLOW,
    "recalibration": state.RECALIBRATION,
    "freezing": state.FREEZING,
    "dry-run": state.DRY_RUN,
    "recomputation": state.RECOMPUTATION,
    "merging": processes.MERGING,
    "shared-backward": processes.SHARED_BACKWARD,
    "conversion": models.CONVERSION,
    "folding": models.FOLDING,
}


def examine(operation: str, implementation: Callable[..., Any] | None = None) -> Verdict:
    """Say which properties an implementation violates, and on what.

    Parameters
    ----------
    operation
        what it computes, such as "forward"; ``companion.testing.OPERATIONS`` has all, and how each
        calls an implementation
    implementation
        called with copies of PyTorch's tensors, of modules, or, to merge statistics, of arrays; by
        default this package's. They are on the CPU, and in float64 unless a case says otherwise:
        results rounded to float32 are wrong

    Returns
    -------
    Verdict
        true if every property holds; shown as text, it says what is violated otherwise

    Raises
    ------
    ValueError
        there is no operation of this name, or a result has another shape than it should
    TypeError
        `implementation` cannot be called
    Exception
        whatever `implementation` raises, with a note that names the case and the call

    Examples
    --------
    >>> def without_eps(x, gamma, beta, eps):
    ...     shape = (1, -1) + (1,) * (x.ndim - 2)
    ...     axes = [axis for axis in range(x.ndim) if axis != 1]
    ...     mean, std = x.mean(axes, keepdim=True), x.std(axes, correction=0, keepdim=True)
    ...     return gamma.view(shape) * (x - mean) / std + beta.view(shape)
    >>> examine("forward", without_eps)
    VARIANCE fails on eight rows of three channels:
        The variance of each channel of y is γ²σ²/(σ² + ε)
    LINE fails on eight rows of three channels:
        All values of a channel are shifted and scaled alike, by γ/√(σ² + ε)
    >>> examine("forward")
    forward: every property holds
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation: expected one of {', '.join(OPERATIONS)}, got {operation!r}")
    chosen = OPERATIONS[operation]
    implementation = chosen.own if implementation is None else implementation
    if not callable(implementation):
        raise TypeError(f"implementation: expected a function, got {type(implementation).__name__}")
    return examined(operation, chosen, implementation)
