"""What a page says about the book: a Sphinx extension.

Every page ends with the version and its date. A line under a chapter's title says where to run it
and what to take along; a box at its end, how to cite it. A chapter is a page that has a twin in
`notebooks`; the twins are published with the site. Colab and Binder read from the repository:
without its address they are not offered. What runs cells in the page (`book/live`, and thebe) comes
along where thebe was fetched.
"""

import json
import shutil
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from tools import thebe
from tools.downloads import LIVE, place
from tools.publication import ROOT, Addresses, Release, apa, bibtex, in_words

NOTEBOOKS = "notebooks"
SOLUTIONS = "solutions"
ICON = "_static/icon.png"


def configured(config: Config) -> tuple[Release, Addresses]:
    theme = config.html_theme_options
    repository = theme.get("repository_url") or ""
    branch = theme.get("repository_branch") or "main"
    site = config.html_baseurl or ""
    return Release.read(Path(config.citation_file)), Addresses(repository, branch, site)


def name_project(_app: Sphinx, config: Config) -> None:
    """Every page is written anew when what it says about itself has changed.

    Other sites show a card beside a link to a page; it has an address as soon as the book has one.
    The 404 page is shown at any address, so its links start at the server's root.
    """
    release, addresses = configured(config)
    site = addresses.site and f"{addresses.site.rstrip('/')}/"
    config.ogp_site_url = config.html_baseurl = site
    config.ogp_social_cards = {"enable": bool(site), "image_mini": ICON}
    config.notfound_urls_prefix = urlsplit(site).path or "/"
    config.project = config.html_title or config.project
    config.version = config.release = release.version
    config.html_context = {**config.html_context, "released": in_words(release.released)}
    config.run_and_cite = repr((release, addresses, thebe.FOLDER.is_dir()))


def has_twin(app: Sphinx, name: str) -> bool:
    return Path(app.srcdir, NOTEBOOKS, f"{name}.ipynb").exists()


def citation(app: Sphinx, name: str) -> nodes.container:
    """The box at the end of chapter `name`; at the end of the first page, for the whole book."""
    whole = name == app.config.root_doc
    title = None if whole else app.env.titles[name].astext()
    arguments = (*configured(app.config), name, title)
    heading = "Cite the book" if whole else "Cite this chapter"
    box = nodes.container("", nodes.rubric("", heading), ids=["cite"], classes=["cite-page"])
    for language, text in [("text", apa(*arguments)), ("bibtex", bibtex(*arguments))]:
        box += nodes.literal_block(text, text, language=language)
    return box


def runs_in_the_page(config: Config) -> str:
    """What the page says to run.js: whether the site has thebe, and which Binder runs its cells."""
    if not thebe.FOLDER.is_dir():
        return ""
    _, addresses = configured(config)
    source = addresses.binder_source()
    if not (config.binder and source):
        return " data-live"
    options = {"binderUrl": config.binder, **source, "ref": addresses.branch}
    return f' data-live data-binder="{escape(json.dumps(options))}"'


def links(app: Sphinx, name: str) -> str:
    """The line under the title of chapter `name`, in HTML."""
    _, addresses = configured(app.config)
    targets = {"Open in Colab": addresses.colab(name), "Open in Binder": addresses.binder(name)}
    files = {"Download notebook": name}
    whole = name == app.config.root_doc
    if not whole and has_twin(app, solved := f"{SOLUTIONS}/{name}"):
        files["Solutions"] = solved
    items = [
        *(f'<li><a href="{escape(to)}">{label}</a></li>' for label, to in targets.items() if to),
        *(
            f'<li><a href="{NOTEBOOKS}/{file}.ipynb" download>{label}</a></li>'
            for label, file in files.items()
        ),
        place(name, whole=whole),
    ]
    listed = "\n".join(items)
    opening = f'<nav class="run-page" aria-label="Run or download"{runs_in_the_page(app.config)}>'
    return f"{opening}\n<ul>\n{listed}\n</ul>\n</nav>"


def insert(app: Sphinx, doctree: nodes.document, name: str) -> None:
    if app.builder.format == "html" and has_twin(app, name):
        title = next(doctree.findall(nodes.title))
        title.parent.insert(1, nodes.raw("", links(app, name), format="html"))
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
    app.add_config_value("binder", "", "html")
    app.add_config_value("citation_file", str(ROOT / "CITATION.cff"), "")
    app.add_config_value("run_and_cite", "", "html")
    app.connect("config-inited", name_project)
    app.connect("doctree-resolved", insert)
    app.connect("build-finished", publish_twins)
    app.connect("build-finished", publish_live)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
