"""When each page last changed, from git, and the sitemap, which says so too: a Sphinx extension.

A page changes with its text, and with the files that it is made from, if they are no pages: the
bibliography with its sources, the page of the package with its docstrings. What is not committed
has no date; nor has anything in a clone without its history, or without git. The sitemap has the
pages of the book, as soon as the book has an address.
"""

import subprocess
from datetime import date
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from tools.publication import in_words

LOGGER = logging.getLogger(__name__)
SITEMAP = "sitemap.xml"
URLS = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{}
</urlset>
"""


def git(folder: Path, *arguments: str) -> list[str]:
    """The lines that git says in `folder`, with names of files as they are."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, encoding="utf-8")
    return done.stdout.splitlines()


def committed(folder: Path) -> dict[Path, date | None]:
    """The files of the repository around `folder`, with the day of the last commit to change each.

    One that differs from what was committed has no day. Without git, or without its whole history,
    there are no files.
    """
    try:
        top, shallow = git(folder, "rev-parse", "--show-toplevel", "--is-shallow-repository")
        if shallow == "true":
            raise ValueError("this clone lacks a part of the history")
        # Of a merge, the files that none of its parents has so.
        log = git(Path(top), "log", "-c", "--name-only", "--format=:%cs")
        differing = git(Path(top), "diff", "--name-only", "HEAD")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        LOGGER.info("No page says when it last changed: %s", reason)
        return {}
    days: dict[Path, date | None] = {}
    for line in log:  # from the newest commit on: its day, then its files
        if line.startswith(":"):
            day = date.fromisoformat(line[1:])
        elif line:
            days.setdefault(Path(top, line), day)
    return days | dict.fromkeys(Path(top, name) for name in differing)


def last_changed(env: BuildEnvironment) -> dict[str, date]:
    """The pages that have a date, with it."""
    days = committed(Path(env.srcdir))
    texts = {name: Path(env.doc2path(name)).resolve() for name in env.found_docs}
    pages = {}
    for name, text in texts.items():
        parts = {Path(env.srcdir, part).resolve() for part in env.dependencies[name]}
        found = [days[path] for path in {text, *parts.difference(texts.values())} if path in days]
        known = [day for day in found if day]
        if days.get(text) and len(known) == len(found):
            pages[name] = max(known)
    return pages


def note(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Find the dates; Sphinx writes the pages anew that had another when it last wrote them."""
    before, now = getattr(env, "last_changed", {}), last_changed(env)
    env.last_changed = now  # type: ignore[attr-defined]
    return [name for name in env.found_docs if now.get(name) != before.get(name)]


def tell(
    app: Sphinx, name: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    if day := app.env.last_changed.get(name):  # type: ignore[attr-defined]
        context["last_changed"] = in_words(day)


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    path = Path(app.outdir, SITEMAP)
    path.unlink(missing_ok=True)
    if app.config.html_baseurl:
        days = app.env.last_changed  # type: ignore[attr-defined]
        urls = [
            f"<url><loc>{escape(f'{app.config.html_baseurl}{name}.html')}</loc>"
            + (f"<lastmod>{days[name].isoformat()}</lastmod>" if name in days else "")
            + "</url>"
            for name in sorted(app.env.found_docs)
        ]
        path.write_text(URLS.format("\n".join(urls)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-updated", note)
    app.connect("html-page-context", tell)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
