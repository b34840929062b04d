"""One style sheet from several: what stays, what goes, and which glyphs the icon fonts keep."""

import base64
import re
from io import BytesIO
from pathlib import Path

import pydata_sphinx_theme
import pytest
from fontTools.ttLib import TTFont

from tools.lean_styles import bundle, words_of_markup, words_of_script

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
FONTS = THEME / "vendor" / "fontawesome" / "webfonts"


def bundled(tmp_path, css, words):
    path = tmp_path / "given.css"
    path.write_text(css, encoding="utf-8")
    return re.sub(r"\s+", "", bundle([path], set(words.split()), FONTS))


@pytest.mark.parametrize(
    ("css", "words", "kept"),
    [
        ("p{color:red}", "", "p{color:red}"),
        (".a{color:red}", "a", ".a{color:red}"),
        (".a{color:red}", "b", ""),
        (".a .b,.c>.d,.a{top:0}", "a c", ".a{top:0}"),
        ("#i .a{top:0}", "a", ""),
        ("#i .a{top:0}", "a i", "#i.a{top:0}"),
        (".a:not(.b){top:0}", "a", ".a:not(.b){top:0}"),
        ('.a[data-x=".b"]::before{top:0}', "a", '.a[data-x=".b"]::before{top:0}'),
        ("@media print{.a{top:0}.b{top:1px}}", "b", "@mediaprint{.b{top:1px}}"),
        ("@media print{.a{top:0}}", "b", ""),
        ("@keyframes k{from{top:0}}", "", "@keyframesk{from{top:0}}"),
        ("/*! licence */.a{top:0}/* note */", "", "/*!licence*/"),
        # A custom property stays if it is read: by what stays, or by a script.
        (
            "html{--x:1px;--y:2px;--z:3px}p{top:var(--x)}.a{top:var(--y)}",
            "z",
            "html{--x:1px;--z:3px}p{top:var(--x)}",
        ),
        ("html{--x:var(--y);--y:1px}", "", "html{}"),
        ('html{--x:url("data:a;b,{}");top:0}', "", "html{top:0}"),
    ],
)
def test_a_rule_stays_if_the_page_can_meet_it(tmp_path, css, words, kept):
    assert bundled(tmp_path, css, words) == kept


def test_words_come_from_markup_and_from_scripts():
    page = """<p class="a b-2" id="top" title="t" style="color: var(--ink)">prose</p>
        <script>add("made-here")</script>"""
    styled = {"color", "var", "ink"}
    assert words_of_markup(page) == {"a", "b-2", "top", "add", "made-here"} | styled
    assert words_of_script("e.classList.add('is-open', x1)") >= {"is-open", "x1"}


def test_the_icon_font_keeps_the_glyphs_in_use(tmp_path):
    face = "@font-face{font-family:F;src:url(../vendor/fa-%s.woff2),url(../vendor/fa-%s.ttf)}"
    faces = "".join(face % (name, name) for name in ("solid-900", "regular-400", "brands-400"))
    icons = '.fa-bars:before{content:"\\f0c9"}.fa-moon:before{content:"\uf186"}'
    css = bundled(tmp_path, faces + icons, "fa-bars fa-moon")
    assert css.count("@font-face") == 1, "a face without a glyph in use is dropped"
    assert "../" not in css
    encoded = re.search(r"base64,([^)]+)\)", css)[1]
    font = TTFont(BytesIO(base64.b64decode(encoded)))
    assert set(font.getBestCmap()) == {0xF0C9, 0xF186}
    assert len(encoded) < 4000

    with_brands = bundled(
        tmp_path,
        faces + '.fa-brands{top:0}.fa-github:before{content:"\\f09b"}',
        "fa-brands fa-github",
    )
    assert with_brands.count("@font-face") == 1
    assert bundled(tmp_path, faces, "") == ""


def test_the_themes_sheet_becomes_small():
    sheet = THEME / "styles" / "pydata-sphinx-theme.css"
    css = bundle([sheet], {"bd-main"}, FONTS)
    assert ".bd-main" in css
    assert len(css) < sheet.stat().st_size / 4
    assert re.findall(r"url\((?!\"?data:)", css) == []
