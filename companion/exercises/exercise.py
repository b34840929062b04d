"""What an exercise asks of a function: cases, the oracle, and the slips that people make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SMALL = {"10⁻⁵": 1e-5, "10⁻⁶": 1e-6, "10⁻⁷": 1e-7, "10⁻⁸": 1e-8}  # usual values of ε


@dataclass(frozen=True)
class Case:
    """One call that a right answer has to get right.

    Parameters
    ----------
    what
        the input, in words: "two values of one feature"
    arguments
        by position: numbers, text, arrays, tensors, and lists and tuples of these
    tolerance
        largest error allowed, as a fraction of the largest value expected, or of 1 where that is 0;
        by default the exercise's
    advice
        what to look at if this case is the first that fails, and no slip gives what came; of an
        exercise's first case it is not told of a result of another form
    """

    what: str
    arguments: tuple[Any, ...]
    tolerance: float | None = None
    advice: str = ""


@dataclass(frozen=True)
class Property:
    """An equation that every right answer meets, whoever computed it.

    Parameters
    ----------
    says
        the equation, in words
    error
        of a result and the arguments that gave it: how far the equation is off, relative to what
        it compares; about 1e-16 for a right answer
    at_most
        the error of a right answer's rounding
    """

    says: str
    error: Callable[..., float]
    at_most: float = 1e-9

    def of(self, place: int) -> Property:
        """The same equation, of one of several results."""
        return replace(self, error=lambda results, *given: self.error(results[place], *given))


@dataclass(frozen=True)
class Exercise:
    """A function that a reader writes, and how it is checked.

    Parameters
    ----------
    name
        such as "bn-forward"; its label in the book is `ex-bn-forward`
    chapter
        where it stands
    summary
        what the function computes, in a line
    parameters
        names of its arguments
    oracle
        a right answer, from the package's float64 oracle wherever it has one
    cases
        the smallest first; the first that fails is shown
    slips
        likely mistakes: what to look at, and the function with that mistake. A mistake that gives
        what the reader's function gave is named
    properties
        told when a wrong answer violates them
    returns
        names of the results, if there are several
    tolerance
        of :class:`Case`
    called
        the function, where it is not the name with underscores, such as `bn_forward`
    """

    name: str
    chapter: str
    summary: str
    parameters: tuple[str, ...]
    oracle: Callable[..., Any]
    cases: Callable[[], Iterable[Case]]
    slips: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    properties: tuple[Property, ...] = ()
    returns: tuple[str, ...] = ()
    tolerance: float = 1e-9
    called: str = ""

    @property
    def function(self) -> str:
        """The name that the reader's function has."""
        return self.called or self.name.replace("-", "_")

    @property
    def signature(self) -> str:
        """Such as "bn_forward(x, gamma, beta, eps)"."""
        return f"{self.function}({', '.join(self.parameters)})"


def of_no_eps(mistaken: Callable[[float, float], Callable[..., Any]]) -> dict[str, Any]:
    """Slips of an exercise with ε = 0: its function, with an ε.

    Parameters
    ----------
    mistaken
        of what is added to the variance, and of what is added to the standard deviation
    """
    slips = {}
    for small, eps in SMALL.items():
        slips[f"ε is 0 here: nothing is added to the variance, not even {small}."] = mistaken(
            eps, 0.0
        )
        slips[f"ε is 0 here: nothing is added to the standard deviation, not even {small}."] = (
            mistaken(0.0, eps)
        )
    return slips
