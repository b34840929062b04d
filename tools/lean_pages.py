"""Pages that load what they use, and show text first: a Sphinx extension.

The theme's pages load 2 MB of scripts and style sheets, most of it icons. Here a page loads one
style sheet, of the rules that some page can use, fonts with the characters that some page has, and
scripts that wait until the text is shown; the icon script and the search index are left out by
`book/_templates`. Pictures say their size, so that nothing moves when they arrive.
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import imagesize
import lightningcss
from docutils import nodes
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config

# It reports every table of every font.
logging.getLogger(subset.__name__).setLevel(logging.WARNING)

ROOT = Path(__file__).parents[1]
# The theme's own templates name these, not Sphinx.
THEME_SHEETS = ["basic.css", "styles/pydata-sphinx-theme.css"]
CREDITS = """\
/* The rules in use of Sphinx (BSD), PyData and Sphinx Book Theme (BSD), Bootstrap and KaTeX (MIT).
   Icons: Font Awesome Free, Fonticons, SIL Open Font License 1.1. */
"""
# Never loaded: the icon script, source maps, fonts for old browsers, the theme's translations and
# its templates.
UNUSED = ["scripts/fontawesome.js*", "**/*.map", "vendor/**/*.ttf", "locales", "*macros.html"]
FIGURE = re.compile(r"(<figure[^>]*>\s*)(<img [^>]*>)")
# A role that the standard has withdrawn, and that a list may not hold.
SOURCE = ('role="doc-biblioentry"', 'role="listitem"')
# A name in place of the one that is read there: who speaks to a computer says what stands there.
UNREAD = ' aria-label="Toggle hidden content"'
WORD = re.compile(r"[A-Za-z_][\w-]*")
NAME = re.compile(rf"[.#]({WORD.pattern})")
LOCAL = re.compile(r"""url\((?!["']?(?:data:|#))["']?([^)"']+)["']?\)""")
IMAGE = re.compile(r'<img (?P<attributes>[^>]*?)src="(?P<src>[^"]+)"')


def with_sizes(body: str, sources: dict[str, Path]) -> str:
    """A page's pictures with their sizes in pixels; all but the first wait until they are near.

    That of a figure is in a box of its own, in which it scrolls: its caption does not.
    """
    waits = ""

    def sized(match: re.Match[str]) -> str:
        nonlocal waits
        source = sources.get(unquote(Path(match["src"]).name))
        if source is None:
            return match[0]
        width, height = imagesize.get(source)
        given = f'width="{round(width)}" height="{round(height)}" {waits}'
        waits = 'loading="lazy" '
        return f'<img {match["attributes"]}{given}src="{match["src"]}"'

    return FIGURE.sub(r'\1<div class="picture">\2</div>', IMAGE.sub(sized, body))


def slim(
    app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    context["css_files"] = []
    context["page_shape"] = app.config.page_shape
    # Scripts inside the page refer to these; the ones of the search page to a function of the last.
    at_once = ["", "documentation_options.js", *(["doctools.js"] if page == "search" else [])]
    for script in context["script_files"]:  # the same objects on every page
        script.attributes.pop("defer", None)
        if Path(str(script.filename or "")).name not in at_once:
            script.attributes["defer"] = "defer"
    if "body" in context:
        sources = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
        context["body"] = with_sizes(context["body"], sources).replace(*SOURCE).replace(UNREAD, "")


def moved(path: Path, folder: Path) -> str:
    """A style sheet, with addresses as seen from `folder`."""

    def address(match: re.Match[str]) -> str:
        return f"url({os.path.relpath(path.parent / match[1], folder)})"

    return LOCAL.sub(address, path.read_text(encoding="utf-8"))


def cut(static: Path, sheets: list[str]) -> None:
    """Write `pages.css`, of what these sheets in the folder `static` have for the pages above it.

    A rule goes when it asks for a class or an id that is no word of any page or script. Fonts keep
    the characters of pages and rules.
    """
    pages = [path.read_text(encoding="utf-8") for path in static.parent.glob("*.html")]
    scripts = [path.read_text(encoding="utf-8") for path in static.rglob("*.js")]
    given = "".join(moved(static / name, static) for name in sheets)
    unused = set(NAME.findall(given)) - set(WORD.findall("\n".join([*pages, *scripts])))
    rules = lightningcss.process_stylesheet(given, unused_symbols=unused)
    (static / "pages.css").write_text(CREDITS + rules, encoding="utf-8")
    text = f"--text={''.join(sorted(set().union(rules, *pages)))}"
    for font in static.rglob("*.woff2"):
        subset.main([str(font), text, "--flavor=woff2", "--no-hinting", f"--output-file={font}"])


def finish(app: Sphinx, exception: Exception | None) -> None:
    builder = app.builder
    if exception or not isinstance(builder, StandaloneHTMLBuilder):
        return
    static = Path(builder.outdir, "_static")
    for pattern in UNUSED:
        for path in static.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Without changes Sphinx writes no page and copies no style sheet.
    if hasattr(builder, "_orig_css_files"):
        sheets = [str(sheet.filename).removeprefix("_static/") for sheet in builder._orig_css_files]
        cut(static, list(dict.fromkeys([*THEME_SHEETS, *sheets])))


def notice_changes(_app: Sphinx, config: Config) -> None:
    """Have Sphinx write every page again when what shapes pages has changed."""
    shaping = [*ROOT.glob("book/_static/*.*"), *ROOT.glob("tools/*.*"), ROOT / "requirements.lock"]
    shaping += ROOT.glob("book/glossary.md")  # its terms are links on every page
    contents = b"".join(path.read_bytes() for path in sorted(shaping))
    config.page_shape = hashlib.sha256(contents).hexdigest()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("page_shape", "", "html", [str])
    app.connect("config-inited", notice_changes)
    app.connect("html-page-context", slim, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
