"""What a page says of its checks, and which cells show no code."""

import pytest

from tools.closed_boxes import draws, summary
from tools.search_texts import parts

CHECKED, MEASURED = "✓ a = 1, asserted: 1", "· b ≈ 2 s, measured"


@pytest.mark.parametrize(
    ("source", "lines", "said"),
    [
        ("claim()", [CHECKED], "✓ 1 number checked"),
        ("claim()", [CHECKED] * 4, "✓ 4 numbers checked"),
        ("assert a\nfor b in c:\n    assert b", [], "✓ 2 checks"),
        ("assert a", [CHECKED, MEASURED], "✓ 1 number checked, 1 more check, 1 number measured"),
        ("measurement()", [MEASURED, MEASURED], "· 2 numbers measured"),
    ],
)
def test_a_closed_line_counts_what_is_behind_it(source, lines, said):
    assert summary(source, lines) == said


@pytest.mark.parametrize(
    ("source", "only_draws"),
    [
        ("draw.rates(10, curves)", True),
        ("draw.figure_1(\n    {name: run},\n)\n", True),
        ("explore.descent()", True),
        ("import math", False),
        ("x = draw.rates()", False),
        ("x = 1\ndraw.rates(x)", False),
    ],
)
def test_a_cell_of_one_call_only_draws(source, only_draws):
    assert draws(source) == only_draws


def test_search_quotes_what_a_reader_sees_once():
    page = """<nav>Menu</nav><article><section id="a" s=""><h1>A<a class="headerlink">#</a></h1>
    <p>The <em>mean</em> <span><math>μ<annotation>\\mu</annotation></math></span><span>μ</span></p>
    <section class="s" id="b"><p>1 &lt; 2</p></section></section></article>"""
    assert parts(page) == [("a", "A The mean μ"), ("b", "1 < 2")]
