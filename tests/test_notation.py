"""The page of notation, against the symbols that the chapters use."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.contents import BOOK, parts

ROOT = Path(__file__).parents[1]
# Signs that are no quantities, and what the page's conventions settle.
CONVENTIONS = set("dijkleO") | {"pi", "chi"}
_GREEK = re.compile(
    r"alpha|beta|[gG]amma|[dD]elta|varepsilon|zeta|eta|[tT]heta|kappa|[lL]ambda|mu|nu|[xX]i|[pP]i|"
    r"rho|[sS]igma|tau|(?:var)?phi|[pP]si|Phi|chi|[oO]mega|ell"
)
_CELL = re.compile(r"^(`{3,})\{code-cell\}[^\n]*\n(?:---\n(?P<head>.*?)^---$)?.*?^\1$", re.S | re.M)
_CODE = re.compile(r"^`{3,}(?:\{[\w:-]+\})?|`[^`\n]*`", re.M)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.S)
# Letters that stand in the text as they are; Σ is a sum there, too.
_PLAIN = dict(
    zip(
        "αβγδεζηθκλμνξπρστφχψωΓΔΘΛΞΠΦΨΩ",
        re.findall(
            r"\w+",
            "alpha beta gamma delta varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma "
            "tau varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Phi Psi Omega",
        ),
        strict=True,
    )
)
# Signs from school, and what only sets a formula.
_SCHOOL = re.compile(
    r"\\(?:[dt]?frac|sqrt|sum|prod|int|min|max|ln|log|exp|(?:arc)?(?:cos|sin|tan)|(?:cos|sin|tan)h|"
    r"le|ge|ne|pm|mp|Longrightarrow|times|c?dots?|infty|in|[lr]vert|[{}])"
)
_LAYOUT = re.compile(
    r"\\(?:[,; \\]|q?quad|[bB]ig[lr]|begin|end|text|textstyle|boxed|under(?:brace|set)|mathcal)"
)
# One sign, written in two ways.
_SAME = {r"\|": r"\lVert", r"\rVert": r"\lVert", r"\mathrm": r"\operatorname"}
_SIGN = re.compile(r"\\operatorname\{\w+\}|\\mathrm\{[A-Z]\w+\}|\\[A-Za-z]+|\\.", re.S)
_WORDS = re.compile(r"\\(?:operatorname|text|mathrm|begin|end)\*?\{[^}]*\}|\\mathbb\s*\{?[A-Z]\}?")
_LETTER = re.compile(r"\\mathcal\s*\{?([A-Z])\}?|\\([A-Za-z]+)|([A-Za-z])")


class Row(NamedTuple):
    """A row of one of the page's tables."""

    symbols: tuple[str, ...]
    chapters: frozenset[str]
    """Empty: all of them."""
    names: tuple[str, ...]
    """In code."""


def letters(formula):
    """The letters of a formula, without words, operators, and accents."""
    for calligraphic, command, letter in _LETTER.findall(_WORDS.sub(" ", formula)):
        if calligraphic:
            yield f"mathcal {calligraphic}"
        elif letter or _GREEK.fullmatch(command):
            yield letter or command


def text(markdown):
    """A page without code, but with the captions of what cells draw."""
    return _CODE.sub("", _CELL.sub(lambda cell: cell["head"] or "", markdown))


def formulas(markdown):
    """What stands between dollars, outside of code."""
    return [display or inline for display, inline in _MATH.findall(text(markdown))]


def used(markdown):
    """The letters of all formulas of a page, and the Greek ones of its text."""
    plain = {_PLAIN[sign] for sign in text(markdown) if sign in _PLAIN}
    return plain | {letter for formula in formulas(markdown) for letter in letters(formula)}


def signs(markdown):
    """What formulas of a page have besides letters."""
    found = {sign for formula in formulas(markdown) for sign in _SIGN.findall(formula)}
    for way, other in _SAME.items():
        found = {sign.replace(way, other) for sign in found}
    known = (_SCHOOL, _LAYOUT, re.compile(rf"\\(?:{_GREEK.pattern}|operatorname)"))
    return {sign for sign in found if not any(each.fullmatch(sign) for each in known)}


def rows(markdown):
    """The rows of both tables of symbols."""
    for line in markdown.splitlines():
        if line.startswith("| $"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield Row(
                tuple(re.findall(r"\$([^$]+)\$", cells[0])),
                frozenset(re.findall(r"\(([\w-]+)\.md\)", cells[1]))
                if len(cells) == 4
                else frozenset(),
                tuple(re.findall(r"`(\w+)`", cells[-1])),
            )


def pages():
    """Markdown by name, of all pages of the book but this one."""
    names = ["intro", *(name for names in parts().values() for name in names)]
    return {
        name: (BOOK / f"{name}.md").read_text(encoding="utf-8")
        for name in names
        if name != "notation"
    }


def chapters():
    return {name: text for name, text in pages().items() if name not in parts()["Appendices"]}


def undeclared(name, markdown, table):
    """Letters of a page that no row accounts for.

    An appendix gathers from the chapters, and says from which: there, any row will do.
    """
    known = set(CONVENTIONS)
    for row in table:
        if not row.chapters or name in row.chapters or name in parts()["Appendices"]:
            known.update(letter for symbol in row.symbols for letter in letters(symbol))
    return used(markdown) - known


def twice(table):
    """Symbols with two meanings in one chapter."""
    for number, row in enumerate(table):
        for other in table[:number]:
            apart = row.chapters and other.chapters and not row.chapters & other.chapters
            if not apart:
                yield from set(row.symbols) & set(other.symbols)


LETTERS, SIGNS = (BOOK / "notation.md").read_text(encoding="utf-8").split("\n## Signs\n")
TABLE = list(rows(LETTERS))


def test_the_tables_are_read():
    everywhere = {symbol for row in TABLE if not row.chapters for symbol in row.symbols}
    assert {"m", r"\hat x", r"\ell_i"} <= everywhere
    assert Row(("M",), frozenset({"mini-batch-algorithm", "many-devices"}), ("m2",)) in TABLE
    assert all(row.symbols for row in TABLE)


@pytest.mark.parametrize("name", pages())
def test_every_letter_and_sign_of_a_page_is_on_this_one(name):
    found = undeclared(name, pages()[name], TABLE)
    assert not found, f"{name}: not on the page of notation for this chapter: {sorted(found)}"
    found = signs(pages()[name]) - signs(SIGNS)
    assert not found, f"{name}: not among the signs of the page of notation: {sorted(found)}"


def test_a_sign_is_used():
    unused = signs(SIGNS) - {sign for markdown in pages().values() for sign in signs(markdown)}
    assert not unused


def test_no_symbol_has_two_meanings_in_a_chapter():
    assert not list(twice(TABLE))


def test_a_chapter_uses_what_the_page_says_it_uses():
    texts = chapters()
    unused = []
    for row in TABLE:
        for name in row.chapters:
            known = used(texts[name])
            for symbol in row.symbols:
                plain = (
                    re.search(rf"\b{re.escape(symbol)}\b", texts[name])
                    if len(symbol) == 1
                    else None
                )
                if not set(letters(symbol)) <= known and not plain:
                    unused.append((name, symbol))
    assert not unused


def test_names_of_the_code_are_there():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "companion").rglob("*.py")]
    everything = "\n".join([*sources, *chapters().values()])
    words = set(re.findall(r"\w+", everything))
    assert not {name for row in TABLE for name in row.names} - words


def test_faults_are_found():
    page = (
        "| $M$ | [a](a.md), [b](b.md) | one | |\n| $M$ | [b](b.md) | another | |\n| $x$ | input | |"
    )
    table = list(rows(page))
    assert list(twice(table)) == ["M"]
    assert undeclared("a", "$M = x$", table) == set()
    assert undeclared("c", r"$$\hat x\, M + \operatorname{Var}_{\mathcal B}$$", table) == {
        "M",
        "mathcal B",
    }
    assert not list(twice(table[1:]))
    box = "```{exercise} $u$\nLet $p$ be `$q$`, for γ.\n```\n"
    cell = "```{code-cell} ipython3\n---\ncaption: $w$\n---\nz\n```"
    assert used(box + cell) == {"u", "p", "gamma", "w"}
    assert signs(r"$\frac12\rho\, a \otimes \operatorname{vec}(b)$") == {
        r"\otimes",
        r"\operatorname{vec}",
    }
