"""One operation of batch normalization, as an implementation of it is put to the test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from textwrap import fill, shorten
from typing import Any

import numpy as np

from companion.exercises import properties
from companion.exercises.calls import as_array
from companion.exercises.exercise import Case, Property

NAMES = {
    value.says: name for name, value in vars(properties).items() if isinstance(value, Property)
}


def _call(implementation: Callable[..., Any], *arguments: Any) -> Any:
    return implementation(*arguments)


@dataclass(frozen=True)
class Operation:
    """What is asked of every implementation of an operation, and where mistakes show.

    Parameters
    ----------
    call
        how an implementation is called, and what it returns
    cases
        arguments on which mistakes show
    properties
        what holds of every right result
    own
        this package's implementation
    run
        the result, of an implementation and the arguments; by default it is called with them
    """

    call: str
    cases: Callable[[], Iterable[Case]]
    properties: tuple[Property, ...]
    own: Callable[..., Any]
    run: Callable[..., Any] = _call


@dataclass(frozen=True)
class Broken:
    """A property that an implementation does not have.

    Parameters
    ----------
    name
        the property's, in ``companion.exercises.properties``
    says
        the equation, in words
    on
        the first case that shows it
    """

    name: str
    says: str
    on: str


@dataclass(frozen=True)
class Verdict:
    """What came of an implementation's test: true if it has every property.

    Parameters
    ----------
    operation
        the operation's name
    broken
        what is violated
    excess
        the largest error in any case, as a multiple of the error allowed there; infinite for a
        result that is not finite

    Examples
    --------
    >>> from companion.testing import examine
    >>> bool(examine("forward", lambda x, gamma, beta, eps: x))
    False
    """

    operation: str
    broken: tuple[Broken, ...]
    excess: float

    def __bool__(self) -> bool:
        return not self.broken

    def __repr__(self) -> str:
        if self:
            return f"{self.operation}: every property holds"
        return "\n".join(
            f"{each.name} fails on {each.on}:\n"
            + fill(each.says, 76, initial_indent="    ", subsequent_indent="    ")
            for each in self.broken
        )


def _form(value: Any) -> str:
    """The shape of a result, or those of several."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_form, value))})"
    array = as_array(value)
    known = isinstance(array, (np.ndarray, np.number, int, float))
    return f"shape {np.shape(array)}" if known else type(value).__name__


def _checked_form(operation: Operation, case: Case, result: Any) -> None:
    """See that a result has the form of this package's, where the implementation returns it."""
    if operation.run is not _call:
        return
    expected, came = _form(operation.own(*copy.deepcopy(case.arguments))), _form(result)
    if came != expected:
        raise ValueError(f"implementation: expected {expected}, got {shorten(came, 200)}")


def examined(name: str, operation: Operation, implementation: Callable[..., Any]) -> Verdict:
    """The verdict on `implementation`, which gets copies of every case's arguments."""
    broken: dict[str, Broken] = {}
    excess = 0.0
    for case in operation.cases():
        try:
            with np.errstate(all="ignore"):
                result = operation.run(implementation, *copy.deepcopy(case.arguments))
                _checked_form(operation, case, result)
                errors = [law.error(result, *case.arguments) for law in operation.properties]
        except Exception as raised:
            raised.add_note(f"{name}, {case.what}: called as {operation.call}")
            raise
        for law, error in zip(operation.properties, errors, strict=True):
            allowed = law.at_most if case.tolerance is None else case.tolerance
            if not error <= allowed:
                broken.setdefault(law.says, Broken(NAMES[law.says], law.says, case.what))
            excess = max(excess, error / allowed if np.isfinite(error) else np.inf)
    return Verdict(name, tuple(broken.values()), excess)
