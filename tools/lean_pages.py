"""What a page loads, cut to what it uses: a Sphinx extension.

The theme's pages load 2 MB of scripts and style sheets, most of it icons. Here a page loads one
style sheet, which has the rules and the icons that some page of the book uses (lean_styles.py), and
scripts that wait until the text is shown. Pictures say their size, so that nothing moves when they
arrive.
"""

import hashlib
import re
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx.errors import ExtensionError

from tools.lean_styles import bundle, words_of_markup, words_of_script

ROOT = Path(__file__).parents[1]
STYLE_SHEET = "_static/pages.css"
# The theme's own templates name these, not Sphinx.
THEME_STYLES = ["_static/basic.css", "_static/styles/pydata-sphinx-theme.css"]
THEME_SCRIPT = "_static/scripts/pydata-sphinx-theme.js"
LATE_SCRIPT = "_static/scripts/bootstrap.js"  # tooltips, and the menu of downloads
ICONS = "_static/vendor/fontawesome"
CREDITS = """\
/* The rules in use of Sphinx (BSD), PyData and Sphinx Book Theme (BSD), Bootstrap (MIT).
   Icons: Font Awesome Free, Fonticons, SIL Open Font License 1.1. */
"""
# How the theme's script starts to make boxes that scroll tab stops, which has all parts of a page
# laid out several times over: book/_static/scrolling.js does it as they come near.
TAB_STOPS = ',"complete"===document.readyState?I():window.addEventListener("load",I)'
# Never loaded: the icon script, source maps, the theme's translations.
UNUSED = ["scripts/fontawesome.js*", "scripts/*.map", "styles/*.map", "locales"]
IMAGE = re.compile(r'<img (?P<attributes>[^>]*?)src="(?P<src>[^"]+)"')
# Names and punctuation of code, which have the text's colour in both themes.
PLAIN_CODE = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
SVG_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt"[^>]*? height="([\d.]+)pt"')


def style_sources(builder: StandaloneHTMLBuilder) -> list[Path]:
    """The style sheets that every page would load, in order."""
    names = [*THEME_STYLES, *(str(sheet.filename) for sheet in builder._orig_css_files)]
    return [Path(builder.outdir, name) for name in names]


@cache
def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in CSS pixels."""
    if path.suffix != ".svg":
        with Image.open(path) as image:
            return image.size
    found = SVG_SIZE.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path} does not say its width and height in points")
    return round(float(found[1]) * 4 / 3), round(float(found[2]) * 4 / 3)


def with_sizes(body: str, sources: dict[str, Path]) -> str:
    """A page's pictures with their sizes; all but the first are loaded when scrolled to."""
    seen = 0

    def sized(match: re.Match[str]) -> str:
        nonlocal seen
        source = sources.get(unquote(Path(match["src"]).name))
        if source is None:
            return match[0]
        width, height = size(source)
        lazy = 'loading="lazy" ' if seen else ""
        seen += 1
        given = f'width="{width}" height="{height}" {lazy}'
        return f'<img {match["attributes"]}{given}src="{match["src"]}"'

    return IMAGE.sub(sized, body)


def slim(
    app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document
) -> None:
    builder = app.builder
    if not isinstance(builder, StandaloneHTMLBuilder):
        return
    names = {sheet.filename for sheet in builder._orig_css_files}
    context["css_files"] = [css for css in context["css_files"] if css.filename not in names]
    context["style_sheet"] = f"{STYLE_SHEET}?v={app.config.page_shape}"
    context["theme_script"] = THEME_SCRIPT
    context["late_script"] = LATE_SCRIPT
    options = Path(builder.outdir, "_static", "documentation_options.js")
    context["documentation_options"] = options.read_text(encoding="utf-8")
    body = context.get("body", "")
    kept = []
    for script in context["script_files"]:
        name = Path(str(script.filename or "")).name
        if name == "documentation_options.js" or (
            name == "design-tabs.js" and "sd-tab-set" not in body
        ):
            continue
        if name:
            script.attributes["defer"] = "defer"
        kept.append(script)
    context["script_files"] = kept
    if body:
        sources = {name: Path(app.srcdir, source) for source, name in builder.images.items()}
        context["body"] = PLAIN_CODE.sub(r"\1", with_sizes(body, sources))


def without_tab_stops() -> str:
    """The theme's script, less what scrolling.js does in its place."""
    theme = files("pydata_sphinx_theme") / "theme" / "pydata_sphinx_theme" / "static"
    text = (theme / "scripts" / "pydata-sphinx-theme.js").read_text(encoding="utf-8")
    if TAB_STOPS not in text:
        raise ExtensionError("pydata-sphinx-theme.js: where does this version make tab stops?")
    return text.replace(TAB_STOPS, "")


def write_styles(app: Sphinx, exception: Exception | None) -> None:
    builder = app.builder
    if exception or not isinstance(builder, StandaloneHTMLBuilder):
        return
    # Without changes Sphinx writes no page and copies no style sheet.
    if not hasattr(builder, "_orig_css_files"):
        return
    site = Path(builder.outdir)
    for pattern in UNUSED:
        for path in (site / "_static").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    words: set[str] = set()
    for path in site.glob("*.html"):
        words |= words_of_markup(path.read_text(encoding="utf-8"))
    for path in (site / "_static").rglob("*.js"):
        words |= words_of_script(path.read_text(encoding="utf-8"))
    sheet = bundle(style_sources(builder), words, site / ICONS / "webfonts")
    (site / THEME_SCRIPT).write_text(without_tab_stops(), encoding="utf-8")
    (site / STYLE_SHEET).write_text(CREDITS + sheet, encoding="utf-8")
    shutil.rmtree(site / ICONS)  # pages.css has the glyphs in use


def notice_changes(_app: Sphinx, config: Config) -> None:
    """Have Sphinx write every page again when what shapes pages has changed."""
    shaping = [*ROOT.glob("book/_static/*"), *ROOT.glob("tools/*.*"), ROOT / "requirements.lock"]
    contents = b"".join(path.read_bytes() for path in sorted(shaping))
    config.page_shape = hashlib.sha256(contents).hexdigest()[:8]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("page_shape", "", "html", [str])
    app.connect("config-inited", notice_changes)
    app.connect("html-page-context", slim, priority=900)
    app.connect("build-finished", write_styles, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
