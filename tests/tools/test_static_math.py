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


def pieces(mathjax, tex, *, display=False):
    """Of each drawing of a formula: where it begins and ends, in thousandths of an em."""
    html = mathjax.html(tex, display=display)
    boxes = [
        [float(value) for value in svg.get("viewBox").split()]
        for svg in ElementTree.fromstring(html.replace("&nbsp;", " ")).findall("svg")
    ]
    return [(left, left + width) for left, _, width, _ in boxes]


LONG = r"\rho = 1 - 2\lambda_{\min}/(\lambda_{\min}+\lambda_{\max}) = (\kappa-1)/(\kappa+1)"


def test_a_long_formula_in_text_may_be_broken_after_relations(mathjax):
    found = pieces(mathjax, LONG)
    [whole] = pieces(mathjax, LONG, display=True)
    assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]], "a gap"
    assert (found[0][0], found[-1][1]) == pytest.approx(whole)
    alone = [pieces(mathjax, tex)[0] for tex in (r"\rho =", "(\\kappa-1)/(\\kappa+1)")]
    assert found[0][1] - found[0][0] == pytest.approx(alone[0][1], abs=300)
    assert found[-1][1] - found[-1][0] == pytest.approx(alone[1][1], abs=1)


def test_the_pieces_of_a_formula_are_the_whole(mathjax):
    html = mathjax.html(LONG, display=False)
    _, whole = drawing(mathjax.html(LONG, display=True))
    parts = [svg.find("path").get("d") for svg in ElementTree.fromstring(html).findall("svg")]
    assert len(parts) > 2
    assert "".join(parts) == whole


@pytest.mark.parametrize(
    ("tex", "count"),
    [
        (r"a = b", 1),  # short
        (r"f(aaaaaaaaaaaa, bbbbbbbbbbbbb, ccccccccccc)", 1),  # inside brackets
        (r"\bigl(aaaaaaaaaaaa, bbbbbbbbbbbbb, ccccccccccc\bigr)", 1),
        (r"(aaaaaaaaaaaa)^2 + (bbbbbbbbbbbb)^2 + (ccccccccccc)^2", 3),  # a bracket with an exponent
        (r"aaaaaaaaaaaaa = -bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", 2),  # a sign of one term
        (r"aaaaaaaaaaaaa, bbbbbbbbbbbbb, ccccccccccc", 3),
    ],
)
def test_a_line_does_not_end_anywhere(mathjax, tex, count):
    assert len(pieces(mathjax, tex)) == count
    assert len(pieces(mathjax, tex, display=True)) == 1
