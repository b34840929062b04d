"""What pages tell search engines and sites that link to them; the cover: a Sphinx extension.

A page's description comes from its text. Its picture is drawn by `companion.plots.cover`, and named
only if the book's address is set (`html.baseurl` in _config.yml), for other sites need the whole
address.
"""

import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx_external_toc.parsing import parse_toc_yaml

from companion.plots import cover

LENGTH = 200  # characters of a description that search engines show
CARDS = "_static/cards"
COVER = "_static/cover.svg"
COVER_SAYS = (
    "The cover: six bell curves, each with its own mean and width, and beside them the same six "
    "normalized, all of one shape."
)
FORMULA = re.compile(r"[\\{}]")


def plain(node: nodes.Node) -> str:
    return " ".join(node.astext().split())


def description(doctree: nodes.document) -> str:
    """What a reader will be able to do, from the learning objectives; else the first paragraph."""
    for box in doctree.findall(nodes.admonition):
        items = [plain(item) for item in box.findall(nodes.list_item)]
        if "objectives" in box["classes"] and items:
            lead = plain(next(box.findall(nodes.paragraph)))
            kept = [item.rstrip(".;,") for item in items if not FORMULA.search(item)]
            return textwrap.shorten(f"{lead} {'; '.join(kept)}.", LENGTH, placeholder=" …")
    paragraphs = (plain(paragraph) for paragraph in doctree.findall(nodes.paragraph))
    text = next((text for text in paragraphs if text and not FORMULA.search(text)), "")
    return textwrap.shorten(text, LENGTH, placeholder=" …")


def part_of(app: Sphinx, page: str) -> str:
    """The caption of the part that a page belongs to; empty for the first page."""
    toc = parse_toc_yaml(app.config.external_toc_path)
    parts = {str(entry): tree.caption for tree in toc.root.subtrees for entry in tree.items}
    return parts.get(page) or ""


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def describe(
    app: Sphinx, page: str, _template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is None:
        return
    context["description"] = description(doctree)
    if page == app.config.root_doc:
        # Not loaded where it is not shown: on a phone.
        source = context["pathto"](COVER, 1)
        image = f'<img class="cover" width="1200" height="1600" loading="lazy" src="{source}"'
        title, end, rest = context["body"].partition("</h1>")
        context["body"] = f'{title}{end}\n{image} alt="{COVER_SAYS}">{rest}'
    if app.config.html_baseurl:
        name = f"{CARDS}/{page}.png"
        title = app.env.titles[page].astext()
        save(cover.card(title, part_of(app, page)), Path(app.outdir, name))
        context["card"] = urljoin(app.config.html_baseurl, name)


def set_root(_app: Sphinx, config: Config) -> None:
    """The 404 page is shown at any address, so its links start at the server's root."""
    if config.html_baseurl and not config.html_baseurl.endswith("/"):
        config.html_baseurl += "/"
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path or "/"


def draw(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and isinstance(app.builder, StandaloneHTMLBuilder):
        static = Path(app.outdir, "_static")
        save(cover.icon(), static / "icon.svg")
        save(cover.cover(), Path(app.outdir, COVER))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_root)
    app.connect("html-page-context", describe)
    app.connect("build-finished", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
