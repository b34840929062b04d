"""A Sphinx extension for sites that show the interactive figures, as this book does.

A figure's output carries its picture and its whole script, for a notebook has nothing else to load
them from. In a site both become files, which the browser caches and loads where and when a figure
is seen. To use it, put ``"companion.explore.sphinx"`` into ``extensions``, after MyST-NB.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import imagesize
from sphinx.application import Sphinx

from companion.explore import bundle

_NAME = re.compile(r'<div class="bn-explore" data-name="(\w+)"')
_SCRIPT = re.compile(r"<script data-bn-script>.*?</script>", re.DOTALL)
_PICTURE = re.compile(r'(data-name="(\w+)"[^>]*>)<img src="data:image/svg\+xml;base64,([^"]+)"')


def _write(app: Sphinx, name: str, text: str) -> str:
    """Write a script among the static files of the site; its name there."""
    path = Path(app.outdir) / "_static" / "explore" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"explore/{name}"


def _share(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Replace what the figures of one page carry by files."""
    body = context.get("body", "")
    names = list(dict.fromkeys(_NAME.findall(body)))
    if not names:
        return

    def picture(match: re.Match[str]) -> str:
        name = f"explore-{page.replace('/', '-')}-{match[2]}.svg"
        path = Path(app.outdir) / "_images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(match[3]))
        width, height = map(round, imagesize.get(path))
        source = context["pathto"](f"_images/{name}", 1)
        return f'{match[1]}<img width="{width}" height="{height}" loading="lazy" src="{source}"'

    context["body"] = _PICTURE.sub(picture, _SCRIPT.sub("", body))
    scripts = {"core.js": bundle.core(), **{f"{name}.js": bundle.figure(name) for name in names}}
    for name, text in scripts.items():
        _write(app, name, text)
    loader = bundle.loader()
    app.add_js_file(_write(app, "loader.js", loader), loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to `app`; Sphinx calls this."""
    app.connect("html-page-context", _share)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
