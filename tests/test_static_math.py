"""Formulas typeset by MathJax while the book is built."""

import re
from xml.etree import ElementTree

import pytest

from tools.static_math import Typesetter


@pytest.fixture(scope="module")
def mathjax():
    typesetter = Typesetter()
    yield typesetter
    typesetter.process.terminate()
    typesetter.process.wait()


def drawing(html):
    """The box that a formula is drawn in, in thousandths of an em, and its one path."""
    svg = ElementTree.fromstring(html.replace("&nbsp;", " ")).find("svg")
    (path,) = svg
    assert path.tag == "path"
    return [float(value) for value in svg.get("viewBox").split()], path.get("d")


def extent(outline):
    """The box around a path's points, from its steps."""
    x = y = 0.0
    start, points = (0.0, 0.0), []
    for kind, values in re.findall(r"([A-Za-z])([^A-Za-z]*)", outline):
        at = [float(value) for value in re.findall(r"-?[\d.]+", values)]
        if kind in "Zz":
            x, y = start
            continue
        if kind == "h":
            x += at[0]
        elif kind == "v":
            y += at[0]
        elif kind == "M":
            x, y = at
        else:
            assert kind in "mlqtc", kind
            x, y = x + at[-2], y + at[-1]
        if kind in "Mm":
            start = (x, y)
        points.append((x, y))
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@pytest.mark.parametrize(
    "tex",
    [
        "x",
        r"\hat x_i",
        r"\frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}}",
        r"\sum_{i=1}^m \Bigl(x_i - \bar x\Bigr)^2",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"\begin{pmatrix} 1 & a \\ a & 1 \end{pmatrix}",
    ],
)
def test_a_formula_is_one_path_inside_its_box(mathjax, tex):
    (left, top, width, height), outline = drawing(mathjax.html(tex, display=True))
    x0, y0, x1, y1 = (2 * value for value in extent(outline))
    slack = 60
    assert left - slack <= x0 < x1 <= left + width + slack
    # The path's y points up, the box's down.
    assert top - slack <= -y1 < -y0 <= top + height + slack
    assert x1 - x0 > 0.7 * width


def test_an_index_is_drawn_small_low_and_to_the_right(mathjax):
    _, alone = drawing(mathjax.html("x", display=False))
    _, indexed = drawing(mathjax.html("x_x", display=False))
    glyph, index = re.findall(r"M[^M]*", indexed)
    assert glyph == alone
    big, small = extent(glyph), extent(index)
    assert small[0] > big[2] - 20
    assert small[1] < big[1]
    assert (small[2] - small[0]) / (big[2] - big[0]) == pytest.approx(0.707, abs=0.02)


def test_a_glyph_is_the_same_data_wherever_it_stands(mathjax):
    _, outline = drawing(mathjax.html("x+y+x", display=False))
    first, *_, last = re.findall(r"M-?\d+ -?\d+([^M]*)", outline)
    assert first == last


def test_what_is_more_than_glyphs_and_bars_stays_as_mathjax_draws_it(mathjax):
    html = mathjax.html(r"\boxed{\underbrace{a+b+c+d+e+f}_{n}}", display=True)
    svg = ElementTree.fromstring(html).find("svg")
    assert svg.find("g") is not None
    assert len(svg.findall(".//path")) > 5


def test_screen_readers_get_mathml(mathjax):
    html = mathjax.html(r"\frac{a}{b}", display=False)
    math = ElementTree.fromstring(html).find("mjx-assistive-mml/math")
    assert [node.text for node in math.find("mfrac")] == ["a", "b"]
    assert ElementTree.fromstring(html).find("svg").get("aria-hidden") == "true"


@pytest.mark.parametrize(
    ("tex", "message"),
    [(r"\frac{a", "Missing close brace"), (r"\undefined", "Undefined control sequence")],
)
def test_tex_that_mathjax_cannot_read_is_an_error(mathjax, tex, message):
    with pytest.raises(ValueError, match=message):
        mathjax.html(tex, display=False)
    assert "<path" in mathjax.html("x", display=False), "and the next formula is typeset"
