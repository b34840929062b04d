"""The page of notation, against the symbols that the chapters use."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
# Signs that are no quantities, and what the page's conventions settle.
CONVENTIONS = set("dijkleO") | {"pi", "chi"}
_GREEK = re.compile(
    r"alpha|beta|[gG]amma|[dD]elta|varepsilon|zeta|eta|[tT]heta|kappa|[lL]ambda|mu|nu|[xX]i|[pP]i|"
    r"rho|[sS]igma|tau|(?:var)?phi|[pP]si|Phi|chi|[oO]mega|ell"
)
_CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.S | re.M)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.S)
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


def formulas(markdown):
    """What stands between dollars, outside of code."""
    text = re.sub(r"`[^`]*`", "", _CELL.sub("", markdown))
    return [display or inline for display, inline in _MATH.findall(text)]


def used(markdown):
    """The letters of all formulas of a chapter."""
    return {letter for formula in formulas(markdown) for letter in letters(formula)}


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


def chapters():
    """Markdown by name, of all pages of the book that have code cells."""
    names = re.findall(r"file: ([\w-]+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    texts = {name: (BOOK / f"{name}.md").read_text(encoding="utf-8") for name in names}
    return {name: text for name, text in texts.items() if "{code-cell}" in text}


def undeclared(name, markdown, table):
    """Letters of a chapter's formulas that no row, in this chapter, accounts for."""
    known = set(CONVENTIONS)
    for row in table:
        if not row.chapters or name in row.chapters:
            known.update(letter for symbol in row.symbols for letter in letters(symbol))
    return used(markdown) - known


def twice(table):
    """Symbols with two meanings in one chapter."""
    for number, row in enumerate(table):
        for other in table[:number]:
            apart = row.chapters and other.chapters and not row.chapters & other.chapters
            if not apart:
                yield from set(row.symbols) & set(other.symbols)


TABLE = list(rows((BOOK / "notation.md").read_text(encoding="utf-8")))


def test_the_tables_are_read():
    everywhere = {symbol for row in TABLE if not row.chapters for symbol in row.symbols}
    assert {"m", r"\hat x", r"\ell_i"} <= everywhere
    assert Row(("M",), frozenset({"mini-batch-algorithm", "many-devices"}), ("m2",)) in TABLE
    assert all(row.symbols for row in TABLE)


@pytest.mark.parametrize("name", chapters())
def test_every_letter_of_a_chapter_is_on_the_page(name):
    found = undeclared(name, chapters()[name], TABLE)
    assert not found, f"{name}: not on the page of notation for this chapter: {sorted(found)}"


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
