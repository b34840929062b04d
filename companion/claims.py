"""State a number that the text quotes, assert that it holds, and pass it to the page.

A chapter's prose quotes a number by its name. The cell that computes the number calls
:func:`claim`, which fails when the number leaves its range, prints it for the reader, and records
it in the notebook where Jupyter Book's ``glue`` role finds it.
"""

from __future__ import annotations

import math
import sys
from typing import Protocol, runtime_checkable

GLUE_PREFIX = "application/papermill.record/"


@runtime_checkable
class HasItem(Protocol):
    """A tensor or array of one element."""

    def item(self) -> float: ...


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
        neither a bound nor a value to compare with is given
    """
    # Not float(tensor): PyTorch warns when the tensor requires a gradient.
    number = float(value.item() if isinstance(value, HasItem) else value)
    if about is not None:
        at_least, at_most = sorted((about * (1 - within), about * (1 + within)))
        expected = f"{about:.4g} ± {100 * within:g} %" if within else f"{about:.4g}"
    elif math.isfinite(at_least) and math.isfinite(at_most):
        expected = f"between {at_least:.4g} and {at_most:.4g}"
    elif math.isfinite(at_least):
        expected = f"at least {at_least:.4g}"
    elif math.isfinite(at_most):
        expected = f"at most {at_most:.4g}"
    else:
        raise ValueError(f"claim {name!r}: expected at_least, at_most or about, got none of them")
    if not at_least <= number <= at_most:
        raise AssertionError(f"{name}: expected {expected}, got {number!r}")
    sign = "≈" if varies else "="
    print(f"✓ {name} {sign} {number:.4g}, asserted: {expected}")
    _record(name, number)


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
