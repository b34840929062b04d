"""Formulas typeset by KaTeX while the book is built."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from sphinxcontrib import katex

from tools import static_math

STYLES = Path(static_math.__file__).parents[1] / "book" / "_static" / "katex" / "katex.min.css"


@pytest.fixture
def said(monkeypatch):
    """What is said of formulas that cannot be read."""
    said = []
    monkeypatch.setattr(
        static_math.logger, "warning", lambda text, *arguments, **_: said.append(text % arguments)
    )
    monkeypatch.setattr(katex, "render_latex", static_math.render)
    return said


def typeset(tex):
    body = []
    translator = SimpleNamespace(
        body=body,
        starttag=lambda *_, **__: "<span>",
        builder=SimpleNamespace(config=SimpleNamespace(katex_prerender=True)),
    )
    with pytest.raises(nodes.SkipNode):
        static_math.checked(katex.html_visit_math)(translator, nodes.math(tex, tex))
    return "".join(body)


def test_a_formula_is_drawn_and_spoken(said):
    html = typeset(r"\frac{a}{b}")
    assert '<span class="katex-html" aria-hidden="true">' in html
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in html
    assert said == []


@pytest.mark.parametrize("tex", [r"\frac{a", r"\undefined", r"\text{é}^ü"])
def test_tex_that_katex_cannot_read_is_a_warning(said, tex):
    typeset(tex)
    assert len(said) == 1
    assert said[0].startswith(f"cannot read {tex}: KaTeX parse error")
    assert "katex-html" in typeset("x"), "and the next formula is typeset"


def test_the_style_sheet_is_of_the_release_that_typesets():
    assert re.search(r'\.katex-version:after\{content:"([^"]+)"', STYLES.read_text())[1] == (
        katex.katex_version
    )
