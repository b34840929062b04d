"""Numbers that the text quotes: each leads to its check, which is closed, and could fail."""

import ast
import math
import re
from copy import copy

import pytest
from _pages import PAGES, ROOT

from tools.notebooks import chapters, from_text

QUOTED = re.compile(r"\{glue:text\}`")
LINE = re.compile(r"^[✓·] \S+ [=≈] .*, (?:asserted: |measured)", re.MULTILINE)
SUMMARY = re.compile(
    r"(?P<mark>[✓·]) (?:(?P<numbers>\d+) numbers? checked)?"
    r"(?:(?:, )?(?P<checks>\d+) (?:more )?checks?)?(?:(?:, )?(?P<measured>\d+) numbers? measured)?"
)


def value(node):
    """What a bound is, if it is written out; else something that bounds."""
    try:
        return eval(compile(ast.Expression(node), "bound", "eval"), {"math": math})
    except NameError:
        return 1.0


def is_empty(call):
    """Whether no wrong number could leave a claim's bounds."""
    bounds = {keyword.arg: value(keyword.value) for keyword in call.keywords}
    least, most = bounds.get("at_least", -math.inf), bounds.get("at_most", math.inf)
    unpacked = None in bounds  # **bounds
    return not unpacked and "about" not in bounds and least <= 0 and most == math.inf


@pytest.mark.parametrize(
    ("bounds", "empty"),
    [
        ("at_least=0", True),
        ("at_least=-1e-9, varies=True", True),
        ("at_least=0.0, at_most=math.inf", True),
        ("varies=True", True),
        ("at_least=-1, at_most=1", False),
        ("at_least=least", False),
        ("at_most=0", False),
        ("**bounds", False),
        ("about=0", False),
    ],
)
def test_an_empty_bound_is_told_from_one_that_bounds(bounds, empty):
    assert is_empty(ast.parse(f"claim('name', x, {bounds})", mode="eval").body) == empty


@pytest.mark.parametrize("name", chapters())
def test_every_claim_could_fail(name):
    cells = [cell.source for cell in from_text(name).cells if cell.cell_type == "code"]
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    claims = [
        each for each in calls if isinstance(each, ast.Call) and ast.unparse(each.func) == "claim"
    ]
    assert claims
    assert [ast.unparse(claim) for claim in claims if is_empty(claim)] == []


@pytest.mark.parametrize("name", chapters())
def test_checks_are_one_closed_line_that_counts_them(pages, name):
    article = copy(pages[f"{name}.html"].article)
    boxes = article.select("details.claims")
    assert boxes
    for box in boxes:
        assert not box.has_attr("open")
        said = SUMMARY.fullmatch(box.summary.text.strip())
        assert said, box.summary.text
        lines = [line.text for line in box.select(".output .checked")]
        numbers = sum(line.startswith("✓") for line in lines)
        assert int(said["numbers"] or 0) == numbers
        assert int(said["measured"] or 0) == len(lines) - numbers
        code = box.select_one(".cell_input")
        asserted = len(re.findall(r"^ *assert ", code.text, re.MULTILINE)) if code else 0
        assert int(said["checks"] or 0) == asserted
        assert said["mark"] == "✓" or not numbers + asserted
        box.extract()
    assert LINE.findall(article.text) == [], "open on the page"


@pytest.mark.parametrize("name", PAGES)
def test_a_number_in_the_text_leads_to_its_check(pages, name):
    text = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
    links = pages[f"{name}.html"].select("article a.check")
    assert len(links) == len(QUOTED.findall(text))
    checks = {tag["id"]: tag.text for tag in pages[f"{name}.html"].select(".checked")}
    for link in links:
        line = checks[link["href"].removeprefix("#")]
        assert ("measured" in link["class"]) == line.startswith("·")
        assert not re.search(r"-|\de", link.text), "not as in print"


@pytest.mark.parametrize("name", chapters())
def test_a_cell_that_only_draws_shows_no_code(pages, name):
    bars = pages[f"{name}.html"].select("article details.hide .cell_input")
    short = [bar.text for bar in bars if bar.text.strip().startswith(("draw.", "explore."))]
    assert short == []
