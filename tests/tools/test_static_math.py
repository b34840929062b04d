"""Formulas typeset by KaTeX while the book is built."""

import re
import sys
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
    static_math.prepare()
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


@pytest.mark.parametrize("tex", [r"\frac{a", r"\undefined"])
def test_tex_that_katex_cannot_read_is_a_warning(said, tex):
    typeset(tex)
    assert len(said) == 1
    assert said[0].startswith(f"cannot read {tex}: KaTeX parse error")
    assert "katex-html" in typeset("x"), "and the next formula is typeset"


def test_the_style_sheet_is_of_the_release_that_typesets():
    assert re.search(r'\.katex-version:after\{content:"([^"]+)"', STYLES.read_text())[1] == (
        katex.katex_version
    )


def test_katex_is_asked_again_while_it_does_not_listen_yet(tmp_path, monkeypatch):
    address = str(tmp_path / "katex.sock")
    late = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
    late += "time.sleep(0.5); s.listen(); s.accept()[0].recv(1)"
    monkeypatch.setattr(
        katex.KaTeXServer, "build_command", lambda socket: [sys.executable, "-c", late, socket]
    )
    process, connection = static_math.connect(tmp_path, 60)
    assert connection.getpeername() == address
    connection.close()
    assert process.wait(60) == 0


def test_a_katex_that_ends_at_once_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(katex.KaTeXServer, "build_command", lambda **_: [sys.executable, "-c", ""])
    with pytest.raises(FileNotFoundError):
        static_math.connect(tmp_path, 60)
