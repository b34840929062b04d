"""Whether a function is a right answer; and if not, what to tell its author."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calls import SECONDS, Outcome, Unknown, as_array
from .exercise import Case, Exercise

Call = Callable[[Sequence[object]], Outcome]

SHOWN = 12  # values of an array that are shown whole
INDENT = 12  # columns
SINGLE = 1e-6  # a relative error that the rounding of float32 explains


@dataclass(frozen=True)
class Report:
    """What a check found. A notebook shows it as text; it is true if the answer is right.

    Parameters
    ----------
    name
        the exercise's
    checks
        how many cases it has
    complaint
        what is wrong with the answer; nothing if it is right
    note
        what else there is to say

    Examples
    --------
    >>> Report("bn-forward", checks=9)
    ✓ bn-forward: right, 9 checks of 9
    """

    name: str
    checks: int
    complaint: str = ""
    note: str = ""

    def __bool__(self) -> bool:
        return not self.complaint

    def __repr__(self) -> str:
        if self.complaint:
            return f"✗ {self.name}: not right yet\n{textwrap.indent(self.complaint, '  ')}"
        return f"✓ {self.name}: right, {self.checks} checks of {self.checks}{self.note}"


def judge(exercise: Exercise, call: Call) -> Report:
    """Check an answer, the smallest case first, up to the first that is wrong.

    Parameters
    ----------
    exercise
        what is asked
    call
        calls the answer with a case's arguments
    """
    cases = list(exercise.cases())
    for case in cases:
        complaint = complain(exercise, case, call(case.arguments), call)
        if complaint:
            return Report(exercise.name, len(cases), complaint)
    return Report(exercise.name, len(cases))


def complain(exercise: Exercise, case: Case, outcome: Outcome, call: Call) -> str:
    """What is wrong with the outcome of a case; nothing if it is right."""
    expected = exercise.oracle(*case.arguments)
    advice = [("look at", case.advice)] if case.advice else []
    if outcome.late:
        wrong = f"{exercise.function} was stopped after {SECONDS:g} seconds"
        lines = [("came", wrong), *advice]
    elif outcome.raised:
        lines = [("came", outcome.raised), *advice]
    elif outcome.changed:
        changed = " and ".join(exercise.parameters[place] for place in outcome.changed)
        lines = [
            ("came", f"{exercise.function} changed its argument {changed} in place"),
            ("look at", "An operation in place, such as -=, changes the caller's array."),
        ]
    elif outcome.value is None and expected is not None:
        lines = [("came", f"{exercise.function} returns nothing"), ("expected", form(expected))]
    else:
        tolerance = tolerance_of(exercise, case)
        wrong = difference(outcome.value, expected, tolerance, exercise.returns)
        if not wrong:
            return ""
        lines = [("came", told(outcome.value)), ("expected", told(expected)), ("so", wrong)]
        if form(outcome.value) == form(expected):
            lines += [("also", each) for each in violated(exercise, case, outcome.value)]
        told_of = to_look_at(exercise, case, outcome.value, expected, call)
        lines += [("look at", each) for each in told_of]
    head = [("tried", f"{case.what}: {exercise.signature}")]
    given = zip(exercise.parameters, case.arguments, strict=False)
    head += [("", f"{name} = {hang(told(value), len(name) + 3)}") for name, value in given]
    return "\n".join(f"{title:<{INDENT}}{hang(text)}" for title, text in [*head, *lines])


def hang(text: str, indent: int = INDENT) -> str:
    return text.replace("\n", "\n" + " " * indent)


def violated(exercise: Exercise, case: Case, value: object) -> Iterator[str]:
    """The properties that a result does not have."""
    for each in exercise.properties:
        with np.errstate(all="ignore"):
            try:
                error = float(each.error(value, *case.arguments))
            except Exception:
                continue  # of another form inside than the property speaks of, which has been said
        if not error <= each.at_most:
            yield f"{each.says}; it is off by {error:.2g}"


def to_look_at(
    exercise: Exercise, case: Case, value: object, expected: object, call: Call
) -> list[str]:
    """Where a wrong result may come from: a mistake, the rounding of float32, or the case."""
    if named := slips(exercise, case, value, call, 0.0):
        return named
    if not difference(value, expected, max(tolerance_of(exercise, case), SINGLE)):
        return ["It is right to six digits, as in float32; compute in float64."]
    if named := slips(exercise, case, value, call, SINGLE):
        return named
    first = next(iter(exercise.cases()))
    if case.what == first.what and not alike(value, expected):
        return []  # no case has had the form that is asked for: this one does not show why
    return [case.advice] if case.advice else []


def slips(exercise: Exercise, case: Case, value: object, call: Call, tolerance: float) -> list[str]:
    """The mistakes that give the same result: of several, those that do so in most other cases.

    One that others would show, and none of them does, gives it by chance. Results are the same
    within `tolerance`, or the case's own where that is larger.
    """

    def is_slip(advice: str, case: Case, value: object) -> bool | None:
        allowed = max(tolerance_of(exercise, case), tolerance)
        return gives(exercise.slips[advice], case, value, allowed)

    score = {each: 0 for each in exercise.slips if is_slip(each, case, value)}
    shown: dict[str, list[bool]] = {each: [] for each in score}
    for other in exercise.cases() if score else ():
        if other.what == case.what:
            continue
        outcome = call(other.arguments)
        if outcome.late:
            return list(score)
        right = exercise.oracle(*other.arguments)
        for each in score:
            same = is_slip(each, other, outcome.value)
            score[each] += same is True
            if is_slip(each, other, right) is False:
                shown[each].append(same is True)
    named = [each for each in score if any(shown[each]) or not shown[each]]
    return [each for each in named if score[each] == max(score[other] for other in named)]


def gives(
    mistaken: Callable[..., object], case: Case, value: object, tolerance: float
) -> bool | None:
    """Whether a function with a mistake gives this result; None where it gives none."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        try:
            result = mistaken(*case.arguments)
        except Exception:
            return None
    return not difference(value, result, tolerance)


def tolerance_of(exercise: Exercise, case: Case) -> float:
    return exercise.tolerance if case.tolerance is None else case.tolerance


def array_of(value: object) -> np.ndarray[Any, Any] | None:
    """An array or a tensor as an array; nothing of anything else."""
    value = as_array(value)
    return value if isinstance(value, np.ndarray) else None


def number_of(value: object) -> float | None:
    """A number, an array or a tensor of one value, as a number; nothing of anything else."""
    array = array_of(value)
    if array is not None:
        return float(array.item()) if array.ndim == 0 and array.dtype.kind in "fiub" else None
    return float(value) if isinstance(value, (int, float, np.number)) else None


def form(value: object) -> str:
    """What kind of thing a value is, with its shape and type."""
    array = array_of(value)
    if number_of(value) is not None and not isinstance(value, bool):
        return "a number"
    if isinstance(value, np.ndarray):
        return f"an array of shape {array.shape}, {array.dtype}" if array is not None else ""
    if array is not None:
        return f"a tensor of shape {array.shape}, {array.dtype}"
    if isinstance(value, Unknown):
        return f"a {value.type_name}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, bool) or value is None:
        return str(value)
    return f"a {type(value).__name__}"


def alike(came: object, expected: object) -> bool:
    """Whether a result has the form that is asked for, part for part."""
    if isinstance(expected, (tuple, list)) and isinstance(came, (tuple, list)):
        return len(came) == len(expected) and all(map(alike, came, expected))
    if isinstance(expected, bool):
        return isinstance(came, bool)
    return form(came) == form(expected)


def told(value: object) -> str:
    """A value as a reader is shown it: in full if it is small."""
    array = array_of(value)
    number = number_of(value)
    if array is not None and number is None:
        if array.size <= SHOWN:
            return np.array2string(array, precision=4, separator=", ")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            return form(value)
        return f"{form(value)}, from {array.min():.6g} to {array.max():.6g}"
    if isinstance(value, (tuple, list)) and len(value) > SHOWN:
        return f"{form(value)}, {told(value[0])}, {told(value[1])}, …"
    if isinstance(value, (tuple, list)):
        items = [hang(told(item), 1) for item in value]
        inner = (",\n " if any("\n" in item for item in items) else ", ").join(items)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if number is not None and not isinstance(value, (bool, int)):
        return f"{number:.6g}"
    return form(value) if isinstance(value, Unknown) else repr(value)


def difference(came: object, expected: object, tolerance: float, names: Sequence[str] = ()) -> str:
    """How two values differ, in words; nothing if they agree within the tolerance.

    If they are several results, `names` are theirs.
    """
    if isinstance(expected, (tuple, list)):
        if not isinstance(came, (tuple, list)) or len(came) != len(expected):
            called = f" ({', '.join(names)})" if names else ""
            return f"expected {form(expected)}{called}, came {form(came)}"
        for place, (a, b) in enumerate(zip(came, expected, strict=True)):
            if wrong := difference(a, b, tolerance):
                name = names[place] if names else f"result {place + 1} of {len(expected)}"
                return f"{name}: {wrong}"
        return ""
    number = number_of(expected)
    if number is not None and not isinstance(expected, bool):
        other = number_of(came)
        if other is None or isinstance(came, bool):
            return f"expected a number, came {form(came)}"
        return apart(np.float64(other), np.float64(number), tolerance)
    array = array_of(expected)
    if array is None:
        same = came == expected and type(came) is type(expected)
        return "" if same else f"expected {told(expected)}, came {told(came)}"
    other_array = array_of(came)
    if other_array is None or isinstance(came, np.ndarray) is not isinstance(expected, np.ndarray):
        return f"expected {form(expected)}, came {form(came)}"
    if other_array.shape != array.shape or other_array.dtype != array.dtype:
        return f"expected {form(expected)}, came {form(came)}"
    return apart(other_array, array, tolerance)


def apart(came: Any, expected: Any, tolerance: float) -> str:
    """Where numbers differ by more than `tolerance` of the largest expected one, or of 1 for 0."""
    scale = (
        np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
        if np.ndim(expected)
        else (abs(expected) if math.isfinite(expected) else 0.0)
    ) or 1.0
    with np.errstate(invalid="ignore"):
        off = np.abs(np.asarray(came, float) - np.asarray(expected, float))
    same = (came == expected) | (np.isnan(came) & np.isnan(expected)) | (off <= tolerance * scale)
    if np.all(same):
        return ""
    off = np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))
    place = np.unravel_index(int(np.argmax(off)), np.shape(off))
    where = f" at {[int(index) for index in place]}" if place else ""
    if np.isnan(np.asarray(came)[place]):
        return f"it is nan{where}, not a number"
    return f"they differ by {float(off[place]):.4g}{where}"
