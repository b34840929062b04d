"""The words of the pages, which search quotes: a Sphinx extension.

Sphinx's search fetches the pages that it has found, which browsers refuse for files, and quotes
also their menus, and each formula twice. Here it has a file of what a reader sees.
"""

import json
import re
from html import unescape
from pathlib import Path

from sphinx.application import Sphinx

UNSAID = re.compile(
    r'<(math|nav|script|summary|svg)\b.*?</\1>|<a class="headerlink".*?</a>'
    r'|<details class="(?:admonition hide|claims).*?</details>|<[^>]*>|\u200b',
    re.DOTALL,
)
PART = re.compile(r'<section [^>]*\bid="([^"]+)"[^>]*>')


def parts(page: str) -> list[tuple[str, str]]:
    """The anchors of a page's sections, in order, and the words of each up to the next."""
    article = page.partition("<article")[2].partition("</article>")[0]
    _, *pieces = PART.split(article)
    words = [" ".join(unescape(UNSAID.sub("", text)).split()) for text in pieces[1::2]]
    return list(zip(pieces[::2], words, strict=True))


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir)
        pages = {name: folder / f"{name}.html" for name in sorted(app.env.found_docs)}
        texts = {name: parts(path.read_text(encoding="utf-8")) for name, path in pages.items()}
        script = f"const TEXTS = {json.dumps(texts, ensure_ascii=False)};"
        (folder / "_static" / "search_texts.js").write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
