"""Questions with an answer at once, for the end of a chapter.

A chapter writes them as :class:`Choice` and :class:`Number` in one cell, whose value is
:class:`Questions`. Every option has its reason, which is what a reader who chooses it is told.
JupyterQuiz shows the questions and judges; ``page.js`` gives what it shows names and roles for
screen readers, and a button.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol, runtime_checkable

__all__ = ["Choice", "Number", "Questions", "Right", "Wrong"]

_SOURCES = files("companion.questions")
_MARKS = {  # in texts: `code`, *stress*, x_{i}, x^{2}
    r"`([^`]+)`": r"<code>\1</code>",
    r"\*([^*]+)\*": r"<em>\1</em>",
    r"_\{([^}]*)\}": r"<sub>\1</sub>",
    r"\^\{([^}]*)\}": r"<sup>\1</sup>",
}
_SEVERAL = "Choose all that hold."


@runtime_checkable
class _HasItem(Protocol):
    def item(self) -> float: ...


def _number(value: float | _HasItem, what: str) -> float:
    number = float(value.item() if isinstance(value, _HasItem) else value)
    if not math.isfinite(number):
        raise ValueError(f"{what}: expected a finite number, got {number!r}")
    return number


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{what}: expected some words, got {text!r}")
    if "$" in text:
        raise ValueError(f"{what}: expected mathematics in Unicode, such as σ², got $ in {text!r}")


def _marked(text: str) -> str:
    """Text as HTML, in which a line does not end beside a sign such as =."""
    bound = re.sub(r" ([-=≈≠<>≤≥+−±·/]) ", "\u00a0\\1\u00a0", text)
    marked = html.escape(bound, quote=False)
    for pattern, replacement in _MARKS.items():
        marked = re.sub(pattern, replacement, marked)
    return marked


def _judged(why: str, right: bool) -> str:
    return f"<strong>{'Right.' if right else 'No.'}</strong> {_marked(why)}"


@dataclass(frozen=True)
class _Option:
    text: str
    why: str


class Right(_Option):
    """An option of a :class:`Choice` that holds.

    Parameters
    ----------
    text
        what the reader may choose
    why
        why it holds: what the reader is told who chooses it

    Examples
    --------
    >>> Right("A mean.", "x̂ has mean 0, so y has mean β.")
    Right(text='A mean.', why='x̂ has mean 0, so y has mean β.')
    """


class Wrong(_Option):
    """An option of a :class:`Choice` that states a misreading.

    Parameters
    ----------
    text
        what the reader may choose
    why
        which mistake leads there: what the reader is told who chooses it

    Examples
    --------
    >>> Wrong("A variance.", "That is what γ changes.")
    Wrong(text='A variance.', why='That is what γ changes.')
    """


@dataclass(frozen=True, init=False)
class Choice:
    """A question with options, of which one or several are right.

    Parameters
    ----------
    text
        the question; where several options are right, the page adds that all are to be chosen
    options
        two or more of :class:`Right` and :class:`Wrong`, in the order in which they are shown

    Raises
    ------
    ValueError
        no option is right, or none wrong; an option stands twice; words or a reason are missing

    Examples
    --------
    >>> question = Choice(
    ...     "What does β add?",
    ...     Wrong("A variance.", "That is what γ changes."),
    ...     Right("A mean.", "x̂ has mean 0, so y has mean β."),
    ... )
    >>> question.several
    False
    """

    text: str
    options: tuple[Right | Wrong, ...]

    def __init__(self, text: str, *options: Right | Wrong) -> None:
        _check_text(text, "the question's text")
        for option in options:
            _check_text(option.text, f"an option of {text!r}")
            _check_text(option.why, f"the reason of {option.text!r} in {text!r}")
        texts = [option.text for option in options]
        if twice := [each for each in dict.fromkeys(texts) if texts.count(each) > 1]:
            raise ValueError(f"{text!r}: expected each option once, got {twice[0]!r} twice")
        for kind in (Right, Wrong):
            if not any(isinstance(option, kind) for option in options):
                raise ValueError(f"{text!r}: expected an option that is {kind.__name__}, got none")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "options", options)

    @property
    def several(self) -> bool:
        """Whether more than one option is right."""
        return sum(isinstance(option, Right) for option in self.options) > 1

    def _asked(self) -> str:
        return f"{self.text} {_SEVERAL}" if self.several else self.text

    def _as_json(self) -> dict[str, Any]:
        return {
            "type": "many_choice" if self.several else "multiple_choice",
            "answers": [
                {
                    "answer": _marked(option.text),
                    "correct": isinstance(option, Right),
                    "feedback": _judged(option.why, isinstance(option, Right)),
                }
                for option in self.options
            ],
        }

    def _shown(self) -> list[str]:
        return [option.text for option in self.options]


@dataclass(frozen=True)
class Number:
    """A question that a number answers.

    Parameters
    ----------
    text
        the question, with the unit and the digits that are asked for
    answer
        the number, or a tensor or array of one element: what a cell of the chapter computed and
        a claim holds
    why
        what a right number is answered with
    within
        how far from `answer` a right number may lie, as a fraction of it, both ends included
    otherwise
        what any other number is answered with: where to begin
    slips
        numbers that a known mistake gives, each with the reason; `within` holds for them too

    Raises
    ------
    ValueError
        a number is not finite, `within` not in [0, 1), a slip would be taken for the answer, words
        are missing

    Examples
    --------
    >>> m = 8
    >>> question = Number(
    ...     "What is the largest |x̂| in a batch of 8, to two digits?",
    ...     answer=(m - 1) ** 0.5,
    ...     within=0.01,
    ...     why="√(m − 1): one value far from seven equal ones.",
    ...     otherwise="Begin with Σx̂ = 0 and Σx̂² = m.",
    ...     slips={3: "Three widths bound most Gaussian values, but not these."},
    ... )
    >>> f"{question.answer:.3f}"
    '2.646'
    """

    text: str
    answer: float | _HasItem
    why: str
    within: float
    otherwise: str
    slips: Mapping[float, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_text(self.text, "the question's text")
        _check_text(self.why, f"`why` of {self.text!r}")
        _check_text(self.otherwise, f"`otherwise` of {self.text!r}")
        if not 0 <= self.within < 1:
            raise ValueError(
                f"`within` of {self.text!r}: expected 0 ≤ within < 1, got {self.within}"
            )
        least, most = self._range(_number(self.answer, f"`answer` of {self.text!r}"))
        for slip, why in self.slips.items():
            _check_text(why, f"the reason of the slip {slip} in {self.text!r}")
            low, high = self._range(_number(slip, f"a slip of {self.text!r}"))
            if low < most and least < high:
                raise ValueError(
                    f"{self.text!r}: expected slips away from {least:g} to {most:g}, the right "
                    f"numbers, got {slip:g} ± {self.within:g} of it"
                )

    def _range(self, number: float) -> tuple[float, float]:
        """From the least to before the most that counts as `number`."""
        low, high = sorted((number * (1 - self.within), number * (1 + self.within)))
        # A reader's decimal may be rounded to the other side of a bound.
        return low - 1e-9 * abs(low), math.nextafter(high + 1e-9 * abs(high), math.inf)

    def _asked(self) -> str:
        return self.text

    def _as_json(self) -> dict[str, Any]:
        judged = [(_number(self.answer, "answer"), True, self.why)]
        judged += [(_number(slip, "slip"), False, why) for slip, why in self.slips.items()]
        answers: list[dict[str, Any]] = [
            {
                "type": "range",
                "range": self._range(number),
                "correct": right,
                "feedback": _judged(why, right),
            }
            for number, right, why in judged
        ]
        answers.append({"type": "default", "feedback": _judged(self.otherwise, False)})
        return {"type": "numeric", "answers": answers}

    def _shown(self) -> list[str]:
        return []


class Questions:
    """The questions of a chapter; show them by making them the value of a cell.

    Parameters
    ----------
    questions
        one or more, in their order

    Raises
    ------
    ValueError
        there is none, or one stands twice

    Examples
    --------
    >>> Questions(
    ...     Choice(
    ...         "What does β add?",
    ...         Wrong("A variance.", "That is what γ changes."),
    ...         Right("A mean.", "x̂ has mean 0, so y has mean β."),
    ...     )
    ... )
    1. What does β add?
       ○ A variance.
       ○ A mean.
    Run this cell to answer.
    """

    def __init__(self, *questions: Choice | Number) -> None:
        texts = [question.text for question in questions]
        if not questions:
            raise ValueError("expected one question or more, got none")
        if twice := [each for each in dict.fromkeys(texts) if texts.count(each) > 1]:
            raise ValueError(f"expected each question once, got {twice[0]!r} twice")
        self.questions = questions

    def __repr__(self) -> str:
        lines = []
        for count, question in enumerate(self.questions, start=1):
            first = textwrap.fill(f"{count}. {question._asked()}", 76, subsequent_indent="   ")
            options = (
                textwrap.fill(option, 76, initial_indent="   ○ ", subsequent_indent="     ")
                for option in question._shown()
            )
            lines += [first, *options]
        return "\n".join([*lines, "Run this cell to answer."])

    def _on_paper(self) -> str:
        """The questions as HTML without answers: for print, and for where no script runs."""
        items = []
        for question in self.questions:
            options = "".join(f"<li>{_marked(option)}</li>" for option in question._shown())
            items.append(
                f"<li>{_marked(question._asked())}{options and f'<ul>{options}</ul>'}</li>"
            )
        return f"<ol>{''.join(items)}</ol>"

    def _html(self) -> str:
        """The questions as HTML that needs nothing else: texts, and the whole script."""
        from jupyterquiz.dynamic.loader import load_questions_script
        from jupyterquiz.dynamic.renderer import build_script, render_div

        asked = [
            {"question": f"<b>{count}.</b> {_marked(each._asked())}", **each._as_json()}
            for count, each in enumerate(self.questions, start=1)
        ]
        name = "questions" + hashlib.sha256(repr(asked).encode()).hexdigest()[:12]
        texts, static, url = load_questions_script(asked, name)
        style, mend = (
            _SOURCES.joinpath(each).read_text(encoding="utf-8") for each in ("page.css", "page.js")
        )
        place = render_div(name, False, False, False, len(asked), 720, 0, "left") + "</div>"
        # Without a MathJax it asks no server for one; it would log every answer.
        script = (
            "((MathJax, console) => {\n"
            # The same output may be shown again: in a second view of it, for example.
            f"document.querySelector('#{name}:has(.Quiz)')?.removeAttribute('id');\n"
            f"{build_script(texts, static, url, name, load_js=True)}\n{mend}\n"
            f"mend({name!r}, {json.dumps(style)});\n"
            "})(undefined, { log() {}, error() {} });"
        )
        return (
            f'<div class="bn-questions">{self._on_paper()}{place}</div>'
            f"<script data-questions>{script}</script>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        shown = {"text/plain": repr(self)}
        try:
            shown["text/html"] = self._html()
        except ModuleNotFoundError:
            shown["text/plain"] += " It needs `pip install jupyterquiz`."
        return shown
