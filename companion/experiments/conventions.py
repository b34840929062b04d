"""What layers of other frameworks answered when they were called: the record, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from companion.experiments.recorded import read

Answers = Mapping[str, Any]
Column = Callable[[Answers], str]

MISSING = "–"
CITED = "†"


def recorded() -> dict[str, Any]:
    """Read what ``make conventions`` has recorded.

    Raises
    ------
    FileNotFoundError
        there is no record; the message has the command
    """
    return read("conventions", "make conventions")


def table(record: Mapping[str, Any], columns: Mapping[str, Column]) -> str:
    """A table in Markdown: a row for the layers that give the same answers.

    Parameters
    ----------
    record
        as :func:`recorded` reads it
    columns
        by their titles, what each makes of a layer's answers. What is cited has a dagger behind
        its name, and what nobody answered a dash. Kinds of a layer that share a row, such as
        "Flax (NNX)" and "Flax (Linen)", have one name, and if there is no other kind, no brackets
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, answers in record["layers"].items():
        cells = tuple(column(answers) for column in columns.values())
        if any(cell != MISSING for cell in cells):
            rows.setdefault(cells, []).append(name + CITED * ("source" in answers))
    lines = [["layer", *columns], ["---"] * (len(columns) + 1)]
    lines += [[_together(names, record["layers"]), *cells] for cells, names in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _together(names: Sequence[str], every: Iterable[str]) -> str:
    """Names of one row, with the kinds of a layer in one pair of brackets."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.split(" (")[0], []).append(name)
    labels = []
    for family, kinds in families.items():
        whole = len(kinds) == sum(name.split(" (")[0] == family for name in every)
        inside = ", ".join(kind.split(" (")[1][:-1] for kind in kinds if " (" in kind)
        labels.append(f"{family} ({inside})" if inside and not whole else family)
    return ", ".join(labels)


def _asked(question: str, say: Callable[[Any], str]) -> Column:
    """A column of one question: a dash without an answer, "error" where the layer raised one."""

    def column(answers: Answers) -> str:
        answer = answers.get(question)
        if answer is None:
            return MISSING
        return "error" if isinstance(answer, dict) and "error" in answer else say(answer)

    return column


def weighs_new(answers: Answers) -> bool:
    """Whether ``momentum`` is the weight of the new batch: it was given 0.8."""
    return bool(answers["weight of the new batch at 0.8"] > 0.5)


def alpha(answers: Answers) -> float:
    """The weight of the new batch by default."""
    momentum: float = answers["momentum"]
    return round(momentum if weighs_new(answers) else 1 - momentum, 6)


def _power(value: float) -> str:
    """A power of ten, as 10⁻³."""
    exponent = f"{value:.0e}".split("e-0")[1]
    return "10⁻" + "⁰¹²³⁴⁵⁶⁷⁸⁹"[int(exponent)]


def _factor(value: float) -> str:
    """1, or 4/3, which is m/(m - 1) of four values."""
    for factor, text in ((1.0, "1"), (4 / 3, "4/3")):
        if abs(value - factor) < 1e-4:
            return text
    return f"{value:.4g}"


def _mask(answers: Answers) -> str:
    mask = answers.get("mask", MISSING)
    if mask == MISSING:
        return MISSING
    return "left out" if mask and mask["left out"] else "no mask"


def _half(answer: Any) -> str:
    ratio = answer["found over true"]
    return "overflow" if ratio is None else f"{ratio:.2f}"


MOMENTUM: dict[str, Column] = {
    "`momentum`": lambda answers: f"{answers['momentum']:.3g}",
    "weighs": lambda answers: "new batch" if weighs_new(answers) else "average",
    "α": lambda answers: f"{alpha(answers):g}",
    "ε": _asked("epsilon", lambda found: _power(found["value"])),
}
VARIANCE: dict[str, Column] = {
    "rows": _asked("variance over that of the batch", _factor),
    "images": _asked("variance over that of the batch, images", _factor),
    "after one batch": _asked("after one batch", lambda found: f"{found[0]:.3g}, {found[1]:.3g}"),
}
TRAINING: dict[str, Column] = {
    "a bare call": _asked("call", str),
    "frozen": _asked("training, frozen", str),
    "moves averages": _asked("moves its averages", lambda moved: "yes" if moved else "no"),
    "one value": _asked("one value", lambda value: f"{value:g}"),
}
PRECISION: dict[str, Column] = {
    "masked values": _mask,
    "around 10⁴": _asked("variance at an offset", lambda ratio: f"{ratio:.4f}"),
    "in float16": _asked("half", _half),
}
NAMES: dict[str, Column] = {
    "parameters and statistics": _asked(
        "names", lambda names: " ".join(f"`{name}`" for name in names)
    ),
    "axis": _asked("axis", lambda axis: "1" if axis == 1 else "last"),
}
