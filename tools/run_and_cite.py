"""What a page says about the book: a Sphinx extension.

Every page ends with the version and its date, the editor if there is one, and where to report an
error. A line under a chapter's title says where to run it and what to take along; a box at its end,
how to cite it, which its head says to programs. A chapter is a page that has a twin in `notebooks`;
the twins are published with the site. Colab and Binder read from the repository:
without its address they are not offered. What runs cells in the page (`book/live`, and thebe) comes
along where thebe was fetched.
"""

import json
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node

from tools import thebe
from tools.citation import apa, bibtex, cff, named, tags
from tools.downloads import LIVE, pdf_tag, place
from tools.publication import (
    DEV,
    NOTEBOOKS,
    ROOT,
    STABLE,
    Addresses,
    Release,
    in_words,
    of_edition,
)

SOLUTIONS = "solutions"
EXERCISES = (exercise_node, exercise_enumerable_node)
ICON = "_static/icon.png"


def configured(config: Config) -> tuple[Release, Addresses]:
    return Release.read(Path(config.citation_file)), config.addresses


def name_project(_app: Sphinx, config: Config) -> None:
    """Every page is written anew when what it says about itself has changed.

    Other sites show a card beside a link to a page; it has an address as soon as the book has one.
    Search engines are to find a page of a release in `stable`, where the newest will be. The 404
    page is shown at any address, so its links start at the server's root.
    """
    theme = config.html_theme_options
    repository = theme.get("repository_url") or ""
    branch = theme.get("repository_branch") or "main"
    given = Addresses(repository, branch, config.html_baseurl or "")
    release = Release.read(Path(config.citation_file))
    addresses = config.addresses = of_edition(given, release)
    found = addresses if addresses.folder == DEV else replace(given, folder=STABLE)
    config.ogp_site_url = config.html_baseurl = found.file("")
    config.ogp_social_cards = {"enable": bool(given.site), "image_mini": ICON}
    config.notfound_urls_prefix = urlsplit(addresses.file("")).path or "/"
    config.project = config.html_title or config.project
    config.version = config.release = release.version
    config.author = named(release.authors)
    said = {"released": in_words(release.released), "editors": named(release.editors)}
    config.html_context = {**config.html_context, **said}
    config.run_and_cite = repr((release, addresses, thebe.FOLDER.is_dir()))


def has_twin(app: Sphinx, name: str) -> bool:
    return Path(app.srcdir, NOTEBOOKS, f"{name}.ipynb").exists()


def title_of(app: Sphinx, name: str) -> str | None:
    """What a chapter is cited by; nothing for the first page, which stands for the whole book."""
    return None if name == app.config.root_doc else app.env.titles[name].astext()


def citation(app: Sphinx, name: str) -> nodes.container:
    """The box at the end of chapter `name`; at the end of the first page, for the whole book."""
    title = title_of(app, name)
    arguments = (*configured(app.config), name, title)
    heading = f"Cite {'this chapter' if title else 'the book'}"
    box = nodes.container("", nodes.rubric("", heading), ids=["cite"], classes=["cite-page"])
    reference = apa(*arguments)
    box += nodes.literal_block(reference, reference, language="text")
    files = {"BibTeX": ("bibtex", bibtex(*arguments)), "CFF": ("yaml", cff(*arguments))}
    for label, (language, text) in files.items():
        opening = f'<details class="cite-file {label.lower()}"><summary>{label}</summary>'
        box += nodes.raw("", opening, format="html")
        box += nodes.literal_block(text, text, language=language)
        box += nodes.raw("", "</details>", format="html")
    return box


def tell(
    app: Sphinx, name: str, _template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Fill in what the head and the foot of a page say; `doctree` is that of a page of the book."""
    release, addresses = configured(app.config)
    if doctree:
        context["report"] = addresses.report(name, release.version)
    if doctree and has_twin(app, name):
        title = title_of(app, name)
        context["metatags"] += "".join(
            f'\n<meta name="{key}" content="{escape(value)}" />'
            for key, value in tags(release, addresses, name, title)
        )
        if addresses.site:
            context["metatags"] += pdf_tag(addresses, name, whole=title is None)


def runs_in_the_page(config: Config) -> str:
    """What the page says to run.js: whether the site has thebe, and which Binder runs its cells."""
    if not thebe.FOLDER.is_dir():
        return ""
    _, addresses = configured(config)
    source = addresses.binder_source()
    if not (config.binder and source):
        return " data-live"
    options = {"binderUrl": config.binder, **source, "ref": addresses.ref}
    return f' data-live data-binder="{escape(json.dumps(options))}"'


def links(app: Sphinx, name: str, *, exercises: bool) -> str:
    """The line under the title of chapter `name`, in HTML."""
    _, addresses = configured(app.config)
    targets = {"Open in Colab": addresses.colab(name), "Open in Binder": addresses.binder(name)}
    files = {"Download notebook": name}
    if exercises and has_twin(app, solved := f"{SOLUTIONS}/{name}"):
        files["Solutions"] = solved
    items = [
        *(f'<li><a href="{escape(to)}">{label}</a></li>' for label, to in targets.items() if to),
        *(
            f'<li><a href="{NOTEBOOKS}/{file}.ipynb" download>{label}</a></li>'
            for label, file in files.items()
        ),
        place(name, whole=name == app.config.root_doc),
    ]
    listed = "\n".join(items)
    opening = f'<nav class="run-page" aria-label="Run or download"{runs_in_the_page(app.config)}>'
    return f"{opening}\n<ul>\n{listed}\n</ul>\n</nav>"


def insert(app: Sphinx, doctree: nodes.document, name: str) -> None:
    if app.builder.format == "html" and has_twin(app, name):
        title = next(doctree.findall(nodes.title))
        exercises = any(isinstance(node, EXERCISES) for node in doctree.findall())
        line = links(app, name, exercises=exercises)
        title.parent.insert(1, nodes.raw("", line, format="html"))
        title.parent += citation(app, name)


def publish_twins(app: Sphinx, error: Exception | None) -> None:
    twins, published = Path(app.srcdir, NOTEBOOKS), Path(app.outdir, NOTEBOOKS)
    if error is None and app.builder.format == "html" and twins.is_dir():
        others = shutil.ignore_patterns("*.py", "__pycache__", ".*")
        shutil.rmtree(published, ignore_errors=True)
        shutil.copytree(twins, published, ignore=others)


def publish_live(app: Sphinx, error: Exception | None) -> None:
    """Ship what runs cells in the page; run.js loads it when it is asked for."""
    if error is None and app.builder.format == "html":
        published = Path(app.outdir, LIVE)
        shutil.rmtree(published, ignore_errors=True)
        if thebe.FOLDER.is_dir():
            shutil.copytree(ROOT / "book" / LIVE, published)
            shutil.copytree(thebe.FOLDER, published / "thebe")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("addresses", Addresses(), "")
    app.add_config_value("binder", "", "html")
    app.add_config_value("citation_file", str(ROOT / "CITATION.cff"), "")
    app.add_config_value("run_and_cite", "", "html")
    app.connect("config-inited", name_project)
    app.connect("doctree-resolved", insert)
    app.connect("html-page-context", tell)
    app.connect("build-finished", publish_twins)
    app.connect("build-finished", publish_live)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
