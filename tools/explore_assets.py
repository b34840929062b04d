"""Load the scripts of the interactive figures once, from files, where and when a figure is seen.

A figure's output carries its picture and its whole script, for a notebook has nothing else to load
them from. In the site both become files that the browser caches. They are not in the book's
`_static` folder, whose scripts Sphinx loads on every page.
"""

import base64
import re
from pathlib import Path
from typing import Any

import imagesize
from sphinx.application import Sphinx

from companion.explore import bundle

LOADER = Path(__file__).with_name("explore_loader.js")
NAME = re.compile(r'<div class="bn-explore" data-name="(\w+)"')
SCRIPT = re.compile(r"<script data-bn-script>.*?</script>", re.DOTALL)
PICTURE = re.compile(r'(data-name="(\w+)"[^>]*>)<img src="data:image/svg\+xml;base64,([^"]+)"')


def write(app: Sphinx, name: str, text: str) -> str:
    """Write a script among the static files of the site; its name there."""
    path = Path(app.outdir) / "_static" / "explore" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"explore/{name}"


def share(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Replace what the figures of one page carry by files."""
    body = context.get("body", "")
    names = list(dict.fromkeys(NAME.findall(body)))
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

    context["body"] = PICTURE.sub(picture, SCRIPT.sub("", body))
    scripts = {"core.js": bundle.core(), **{f"{name}.js": bundle.figure(name) for name in names}}
    for name, text in scripts.items():
        write(app, name, text)
    loader = LOADER.read_text(encoding="utf-8").replace("VERSION", bundle.version(), 1)
    app.add_js_file(write(app, "loader.js", loader), loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", share)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
