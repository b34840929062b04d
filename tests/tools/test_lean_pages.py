"""One style sheet from several, and fonts: what stays, and what goes."""

import re
from pathlib import Path

import pydata_sphinx_theme
import pytest
from fontTools.ttLib import TTFont

from tools.lean_pages import CREDITS, cut

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
ICONS = THEME / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.woff2"


def bundled(tmp_path, css, words):
    static = tmp_path / "_static"
    (static / "styles").mkdir(parents=True, exist_ok=True)
    (static / "styles" / "given.css").write_text(css, encoding="utf-8")
    (tmp_path / "page.html").write_text(f'<p class="{words}">ä</p>', encoding="utf-8")
    cut(static, ["styles/given.css"])
    sheet = (static / "pages.css").read_text(encoding="utf-8")
    return re.sub(r"\s+", "", sheet.removeprefix(CREDITS))


@pytest.mark.parametrize(
    ("css", "words", "kept"),
    [
        ("p{color:red}", "", "p{color:red}"),
        (".a{color:red}", "a", ".a{color:red}"),
        (".a{color:red}", "b", ""),
        (".a .b,.c>.d{top:0}", "a c", ""),
        ("#i .a{top:0}", "a", ""),
        ("#i .a{top:0}", "a i", "#i.a{top:0}"),
        (".a:not(.b){top:0}", "a", ".a:not(.b){top:0}"),
        ('.a[data-x=".b"]::before{top:0}', "a", r".a[data-x=\.b]:before{top:0}"),
        ("@media print{.a{top:0}.b{top:1px}}", "b", "@mediaprint{.b{top:1px}}"),
        ("@media print{.a{top:0}}", "b", ""),
        ("@keyframes k{from{top:0}}", "", "@keyframesk{0%{top:0}}"),
        ("/*! licence */.a{top:0}/* note */", "", "/*!licence*/"),
        ("i{src:url(../x/y.woff2)}", "", "i{src:url(x/y.woff2)}"),
        ("i{src:url(data:a;b)}", "", "i{src:url(data:a;b)}"),
    ],
)
def test_a_rule_stays_if_the_page_can_meet_it(tmp_path, css, words, kept):
    assert bundled(tmp_path, css, words) == kept


def test_words_come_from_scripts_too(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a.js").write_text("e.classList.add('is-open')")
    assert bundled(tmp_path, ".is-open{top:0}", "") == ".is-open{top:0}"


def test_a_font_keeps_the_characters_of_pages_and_of_the_rules_in_use(tmp_path):
    font = tmp_path / "_static" / "icons.woff2"
    font.parent.mkdir()
    font.write_bytes(ICONS.read_bytes())
    bundled(tmp_path, '.a:before{content:"\\f0c9"}.b:before{content:"\uf186"}', "a")
    glyphs = set(TTFont(font).getBestCmap())
    assert 0xF0C9 in glyphs
    assert 0xF186 not in glyphs
    assert font.stat().st_size < 2000


def test_the_themes_sheet_becomes_small(tmp_path):
    sheet = THEME / "styles" / "pydata-sphinx-theme.css"
    css = bundled(tmp_path, sheet.read_text(encoding="utf-8"), "bd-main")
    assert ".bd-main" in css
    assert len(css) < sheet.stat().st_size / 4
