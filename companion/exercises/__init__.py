"""The book's coding exercises, checked.

A reader's function runs on the smallest inputs first, and is held against the oracle; the report
says what was tried, what came, what was expected, and which slip gives just that.

``check("bn-forward", bn_forward)`` in a notebook, ``python -m companion check FILE`` in a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from . import progress
from .calls import call
from .catalogue import exercise
from .judging import Report, judge

__all__ = ["Report", "check"]


def check(name: str, function: Callable[..., object]) -> Report:
    """Check a function that answers an exercise, and note it as solved if it is right.

    The function runs in this process, with copies of its arguments; a call is stopped after two
    seconds where the system can stop it, in the main thread on Linux and macOS.

    Parameters
    ----------
    name
        the exercise's, such as "bn-forward"; ``python -m companion check --list`` prints all
    function
        the answer, called with positional arguments

    Returns
    -------
    Report
        true if the answer is right; shown as text, it says what is wrong otherwise

    Raises
    ------
    ValueError
        there is no exercise of this name
    TypeError
        `function` cannot be called

    Examples
    --------
    >>> report = check("bn-forward", lambda x, gamma, beta, eps: gamma * x + beta)
    >>> bool(report)
    False
    >>> print(report.complaint.splitlines()[0])
    tried       two values of one feature: bn_forward(x, gamma, beta, eps)
    """
    asked = exercise(name)
    if not callable(function):
        raise TypeError(f"function: expected a function, got {type(function).__name__}")
    report = judge(asked, partial(call, function))
    return replace(report, note=progress.solved_now(name)) if report else report
