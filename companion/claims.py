"""State a number that the text quotes, assert that it holds, and pass it to the page.

A chapter's prose quotes a number by its name. The cell that computes the number calls
:func:`claim`, which fails when the number leaves its range, prints it for the reader, and records
it in the notebook where Jupyter Book's ``glue`` role finds it. A number with no bound worth
asserting, such as a time on the reader's machine, is stated by :func:`measurement`.
"""

from __future__ import annotations

import math
import re
import sys
from typing import Protocol, runtime_checkable

GLUE_PREFIX = "application/papermill.record/"
# A relative error, or a number that should be 0, of at most this is the rounding of an equality.
ROUNDING = 1e-8
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@runtime_checkable
class HasItem(Protocol):
    """A tensor or array of one element."""

    def item(self) -> float: ...


def typeset(number: str) -> str:
    """A formatted number as in print: ``-8`` as −8, ``2.4e+12`` as 2.4 · 10¹².

    Parameters
    ----------
    number
        what :func:`format` makes of a number
    """
    mantissa, power, exponent = number.replace("-", "−").partition("e")
    if not power:
        return mantissa
    raised = "10" + str(int(exponent.replace("−", "-"))).translate(RAISED)
    return re.sub(r"^(−?)1 · ", r"\1", f"{mantissa} · {raised}")


def in_print(number: float) -> str:
    """`number` to four digits, or a whole one to its last: 0.0321, −8, 20,000, 2.4 · 10¹²."""
    rounded = float(number if float(number).is_integer() else f"{number:.4g}")
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e7:
        digits = f"{rounded:{',' if abs(rounded) >= 1e4 else ''}.7f}"
        return typeset(digits.rstrip("0").rstrip("."))
    return typeset(f"{rounded:.4g}")


def claim(
    name: str,
    value: float | HasItem,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    about: float | None = None,
    within: float = 0.0,
    varies: bool = False,
) -> None:
    """Assert `value`, print it, and record it under `name` for ``{glue:text}`` in the page.

    Parameters
    ----------
    name
        the name the text uses, unique in its chapter
    value
        the number, or a tensor or array of one element
    at_least, at_most
        bounds, both included
    about, within
        ``about`` ± the fraction ``within`` of it, instead of bounds
    varies
        the number differs between machines (rounding errors, training runs): it is printed after
        ``≈``, which the notebooks' tests do not compare; the bounds are asserted all the same

    Raises
    ------
    AssertionError
        the number is outside its bounds, or not a number
    ValueError
        neither a bound nor a value to compare with is given; or the only bound is an `at_least`
        that is not positive, as which says nothing of a number that cannot be negative
    """
    number = _number(value)
    if about is not None:
        at_least, at_most = sorted((about * (1 - within), about * (1 + within)))
        expected = in_print(about)
        if within > ROUNDING:
            expected += f" ± {in_print(100 * within)} %"
        elif within:
            expected += ", exact to rounding"
    elif math.isfinite(at_least) and math.isfinite(at_most):
        expected = f"between {in_print(at_least)} and {in_print(at_most)}"
    elif math.isfinite(at_least):
        expected = f"at least {in_print(at_least)}"
    elif math.isfinite(at_most):
        expected = f"at most {in_print(at_most)}"
        if 0 < at_most <= ROUNDING:
            expected = f"0, exact to rounding ({expected})"
    else:
        raise ValueError(f"claim {name!r}: expected at_least, at_most or about, got none of them")
    if about is None and at_least <= 0 and at_most == math.inf:
        raise ValueError(
            f"claim {name!r}: expected a bound that a wrong number could leave, got only "
            f"at_least={at_least:g}; a number without such a bound is a measurement"
        )
    if not at_least <= number <= at_most:
        raise AssertionError(f"{name}: expected {expected}, got {number!r}")
    sign = "≈" if varies else "="
    print(f"✓ {name} {sign} {in_print(number)}, asserted: {expected}")
    _record(name, number)


def measurement(name: str, value: float | HasItem, *, unit: str = "") -> None:
    """Print a number that no bound is asserted of, and record it as :func:`claim` does.

    Parameters
    ----------
    name
        the name the text uses, unique in its chapter
    value
        the number, or a tensor or array of one element
    unit
        printed after the number; the text's ``{glue:text}`` gives the number alone
    """
    number = _number(value)
    print(f"· {name} ≈ {in_print(number)}{' ' * bool(unit)}{unit}, measured")
    _record(name, number)


def _number(value: float | HasItem) -> float:
    # Not float(tensor): PyTorch warns when the tensor requires a gradient.
    return float(value.item() if isinstance(value, HasItem) else value)


def _record(name: str, number: float) -> None:
    """Leave the number in the cell's output, unseen, in the form that ``glue`` reads."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is not None:
        display(
            {f"{GLUE_PREFIX}text/plain": repr(number)},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": GLUE_PREFIX}},
        )
