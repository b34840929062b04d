"""What a page says about itself, in a book of two pages, published and not."""

import json
import os
import subprocess
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup, Comment
from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import fetch_inventory
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tools import thebe
from tools.downloads import publish
from tools.publication import ROOT

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("run-and-cite")

PAGES = {
    "intro": "# The book\n\n```{toctree}\nchapter\nappendix\n```\n",
    "chapter": (
        "# A chapter: γ\n\nText.\n\n$$\nx = 1\n$$ (an-equation)\n\n"
        ":::{prf:theorem} A name\n:label: thm-here\n\nIt is.\n:::\n\n"
        ":::{prf:remark}\nWithout a label.\n:::\n\n"
        ":::{exercise-start}\n:label: ex-here\n:::\nDo.\n:::{exercise-end}\n:::\n\n"
        "## Going further\n\nThe end.\n"
    ),
    "appendix": "# An appendix\n\nNo code here.\n",
}
CITATION = (
    "title: A Book\nauthors: [{name: Its Maintainers}]\nversion: 1.2.0\ndate-released: 2027-03-01\n"
)
REPOSITORY = "https://github.com/owner/name"
HOME = "https://owner.github.io/name/"
SITE = f"{HOME}dev/"
FOOTER = {"footer_content_items": ["author.html", "version.html"]}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the book with some settings; its pages, parsed, and the folder they are in."""

    def build(folder=None, **settings):
        folder = folder or tmp_path_factory.mktemp("book")
        source = folder / "source"
        source.mkdir(parents=True, exist_ok=True)
        for name, text in PAGES.items():
            if not (source / f"{name}.md").exists():
                (source / f"{name}.md").write_text(text, encoding="utf-8")
        for name in ("intro", "chapter"):
            for kind in ("notebooks", "notebooks/solutions"):
                (source / kind).mkdir(parents=True, exist_ok=True)
                (source / kind / f"{name}.ipynb").write_text("{}")
        citation = folder / "CITATION.cff"
        if not citation.exists():
            citation.write_text(CITATION)
        extensions = ["myst_parser", "sphinx_copybutton", "sphinx_exercise", "sphinx_proof"]
        ours = ["tools.permanent_labels", "tools.run_and_cite", "tools.last_changed"]
        config = {
            "extensions": [*extensions, *ours, "sphinx_reredirects"],
            "templates_path": [str(ROOT / "book" / "_templates")],
            "myst_enable_extensions": ["dollarmath", "colon_fence"],
            "root_doc": "intro",
            "html_theme": "sphinx_book_theme",
            "html_title": "A Book",
            "numfig": True,
            "exclude_patterns": ["notebooks"],
            "citation_file": str(citation),
            "redirects": {"old-name": "chapter.html"},
            **settings,
            "html_theme_options": {**FOOTER, **settings.get("html_theme_options", {})},
        }
        with patch_docutils(None), docutils_namespace():
            app = Sphinx(
                source,
                None,
                folder / "html",
                folder / "doctrees",
                "html",
                config,
                status=None,
                warningiserror=True,
            )
            app.build()
        pages = {
            name: BeautifulSoup((folder / "html" / f"{name}.html").read_text(), "html.parser")
            for name in PAGES
        }
        return SimpleNamespace(folder=folder, site=folder / "html", **pages)

    return build


@pytest.fixture(scope="module")
def unpublished(build):
    return build(html_theme_options={"repository_url": ""})


@pytest.fixture(scope="module")
def edited(build, tmp_path_factory):
    """The published book with an editor and a DOI."""
    folder = tmp_path_factory.mktemp("edited")
    more = "contact: [{family-names: Noether, given-names: Emmy}]\ndoi: 10.5281/zenodo.1234567\n"
    (folder / "CITATION.cff").write_text(CITATION + more)
    return build(folder, html_baseurl=HOME)


@pytest.fixture(scope="module")
def published(build):
    theme = {"repository_url": REPOSITORY, "repository_branch": "trunk"}
    return build(html_theme_options=theme, html_baseurl=HOME)


def run_links(page):
    return {link.text: link["href"] for link in page.select("nav.run-page a")}


def test_the_published_book_runs_in_colab_and_binder(published):
    links = run_links(published.chapter)
    assert list(links) == ["Open in Colab", "Open in Binder", "Download notebook", "Solutions"]
    assert links["Open in Colab"] == (
        "https://colab.research.google.com/github/owner/name/blob/trunk/book/notebooks/chapter.ipynb"
    )
    assert links["Open in Binder"].startswith("https://mybinder.org/v2/gh/owner/name/trunk?")
    assert run_links(published.intro)["Open in Colab"].endswith("/intro.ipynb")


def test_cells_run_in_the_page_where_thebe_was_fetched(build, tmp_path, monkeypatch):
    monkeypatch.setattr(thebe, "FOLDER", tmp_path / "thebe")
    theme = {"repository_url": REPOSITORY, "repository_branch": "trunk"}
    published = {"html_theme_options": theme, "binder": "https://binder.example"}
    without = build(**published)
    nav = without.chapter.select_one("nav.run-page")
    assert not {"data-live", "data-binder"} & set(nav.attrs)
    assert not (without.site / "live").exists()

    thebe.FOLDER.mkdir()
    (thebe.FOLDER / "index.js").touch()
    nav = build(without.folder, **published).chapter.select_one("nav.run-page")
    assert "data-live" in nav.attrs
    asked = {"repoProvider": "github", "repo": "owner/name", "ref": "trunk"}
    assert json.loads(nav["data-binder"]) == {"binderUrl": "https://binder.example", **asked}
    names = {path.name for path in (without.site / "live").rglob("*")}
    assert names == {"LICENSE", "cells.css", "cells.js", "thebe", "index.js"}


@pytest.mark.parametrize(
    "missing", [{"binder": ""}, {"html_theme_options": {"repository_url": ""}}]
)
def test_no_binder_is_asked_that_no_one_configured(build, tmp_path, monkeypatch, missing):
    monkeypatch.setattr(thebe, "FOLDER", tmp_path)
    theme = {"repository_url": REPOSITORY, "repository_branch": "trunk"}
    settings = {"html_theme_options": theme, "binder": "https://binder.example"} | missing
    nav = build(**settings).chapter.select_one("nav.run-page")
    assert "data-live" in nav.attrs
    assert "data-binder" not in nav.attrs


def test_the_addresses_in_the_settings_of_the_book_reach_sphinx():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    settings["repository"]["url"], settings["html"]["baseurl"] = REPOSITORY, HOME
    # What `jupyter-book build` asks for.
    options = {"latex_individualpages": False}
    config, _ = get_final_config(
        user_yaml=settings, cli_config=options, sourcedir=ROOT / "book", raise_on_invalid=True
    )
    assert config["html_theme_options"]["repository_url"] == REPOSITORY
    assert config["html_theme_options"]["repository_branch"] == settings["repository"]["branch"]
    assert config["html_baseurl"] == HOME


def test_without_a_repository_only_the_download_is_offered(unpublished):
    assert run_links(unpublished.chapter) == {
        "Download notebook": "notebooks/chapter.ipynb",
        "Solutions": "notebooks/solutions/chapter.ipynb",
    }
    assert list(run_links(unpublished.intro)) == ["Download notebook"], "it has no exercise"


def test_a_release_keeps_what_is_cited_and_is_found_where_the_newest_will_be(build, monkeypatch):
    monkeypatch.setenv("EDITION", "release")
    theme = {"repository_url": REPOSITORY, "repository_branch": "trunk"}
    released = build(html_theme_options=theme, html_baseurl=HOME)
    page = released.chapter
    assert f"(Version 1.2.0). {HOME}v1.2/chapter.html" in page.select_one("#cite").text
    assert "/blob/v1.2.0/book/" in run_links(page)["Open in Colab"]
    found = {f"{HOME}stable/{name}.html" for name in PAGES}
    assert page.select_one("link[rel=canonical]")["href"] in found
    assert set(sitemap(released)) == found


def test_the_twins_come_with_the_site(unpublished):
    names = {path.name for path in (unpublished.site / "notebooks").iterdir()}
    assert names == {"intro.ipynb", "chapter.ipynb", "solutions"}


def test_the_links_have_a_name_and_load_nothing(published):
    nav = published.chapter.select_one("nav.run-page")
    assert nav["aria-label"]
    assert not nav.select("img, script, iframe")
    assert nav.find_previous_sibling().name == "h1"


def test_a_page_without_a_twin_says_nothing_about_itself(published):
    assert not published.appendix.select("nav.run-page, #cite")


@pytest.mark.parametrize(
    ("edition", "ending"),
    [("published", f"(Version 1.2.0). {SITE}chapter.html"), ("unpublished", "page chapter.html).")],
)
def test_a_chapter_ends_with_its_citation(request, edition, ending):
    article = request.getfixturevalue(edition).chapter.select_one("article")
    sections = article.select_one("section").find_all(recursive=False)
    box = article.select_one("#cite")
    assert sections[-1] is box
    reference, *files = [block.text.strip() for block in box.select("div.highlight pre")]
    assert reference.startswith("Its Maintainers. (2027, March 1). A chapter: γ. In A Book")
    assert reference.endswith(ending)
    assert [each.summary.text for each in box.select("details:not([open])")] == ["BibTeX", "CFF"]
    assert files == [each.pre.text.strip() for each in box.select("details")]
    assert files[0].startswith("@incollection{batch-normalization-chapter,")
    assert yaml.safe_load(files[1])["preferred-citation"]["title"] == "A chapter: γ"


def test_the_root_cites_the_book(published):
    text = published.intro.select_one("#cite").text
    assert "Cite the book" in text
    assert "@book{batch-normalization," in text


def footer(page):
    """What is said below the text, in one line."""
    return " ".join(page.select_one(".bd-footer-content").text.split())


def test_a_new_version_reaches_pages_that_did_not_change(build):
    book = build()
    assert "Version 1.2.0" in book.chapter.select_one("#cite").text
    said = "By Its Maintainers Version {} of {}, 2027. What has changed"
    assert footer(book.appendix) == said.format("1.2.0", "March 1")
    (book.folder / "CITATION.cff").write_text(
        CITATION.replace("1.2.0", "1.3.0").replace("03-01", "04-12")
    )
    book = build(book.folder)
    assert "Version 1.3.0" in book.chapter.select_one("#cite").text
    assert footer(book.appendix) == said.format("1.3.0", "April 12")


def head(page):
    return {meta["name"]: meta["content"] for meta in page.select("meta[name^=citation_]")}


def test_the_head_of_a_chapter_says_how_to_cite_it(published, unpublished):
    said = head(unpublished.chapter)
    assert said == {
        "citation_title": "A chapter: γ",
        "citation_author": "Its Maintainers",
        "citation_publication_date": "2027/03/01",
        "citation_language": "en",
        "citation_inbook_title": "A Book",
    }
    address = f"{SITE}chapter.html"
    urls = {"citation_fulltext_html_url": address, "citation_public_url": address}
    assert head(published.chapter) == said | urls
    assert head(published.intro)["citation_title"] == "A Book"
    assert head(published.appendix) == {}


def test_an_editor_and_a_doi_are_said_everywhere(edited):
    doi, cited = "10.5281/zenodo.1234567", edited.chapter.select_one("#cite").text
    for words in (f"doi.org/{doi}", f'doi = "{doi}"', f"collection-doi: {doi}"):
        assert words in cited
    for words in ("In E. Noether (Ed.), A Book", 'editor = "Noether, Emmy"', "editors:"):
        assert words in cited
    assert head(edited.intro)["citation_doi"] == doi
    assert head(edited.chapter)["citation_editor"] == "Noether, Emmy"
    for page in (edited.intro, edited.chapter, edited.appendix):
        assert "Edited by Emmy Noether" in footer(page)


def test_a_head_names_a_pdf_once_there_is_one(edited, unpublished, tmp_path):
    def named():
        page = (edited.site / "chapter.html").read_text()
        return head(BeautifulSoup(page, "html.parser")).get("citation_pdf_url")

    (pdf := tmp_path / "chapter.pdf").write_bytes(b"%PDF")
    before = (edited.site / "chapter.html").read_text()
    assert named() is None
    publish(edited.site, [pdf])
    assert named() == f"{SITE}downloads/chapter.pdf"
    assert (edited.site / "downloads" / "chapter.pdf").exists()
    publish(edited.site, [])
    assert (edited.site / "chapter.html").read_text() == before
    comments = unpublished.chapter.head.find_all(string=lambda text: isinstance(text, Comment))
    assert not [each for each in comments if ".pdf" in each], "it would have no address"


def test_every_page_says_where_to_report_an_error(published, unpublished, edited):
    for name in PAGES:
        link = getattr(published, name).select_one(".component-report a")
        assert link.text == "Report an error on this page"
        assert link["href"].startswith(f"{REPOSITORY}/issues/new?template=error.yml&title=")
        assert f"%2F{name}.html&version=1.2.0" in link["href"]
        for book in (unpublished, edited):
            assert not getattr(book, name).select(".component-report"), "to no repository"
    search = BeautifulSoup((published.site / "search.html").read_text(), "html.parser")
    assert not search.select(".component-report")


def sitemap(book):
    space = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    urls = ElementTree.parse(book.site / "sitemap.xml").getroot()
    assert urls.tag == f"{space}urlset"
    return {url.findtext(f"{space}loc"): url.findtext(f"{space}lastmod") for url in urls}


def test_the_sitemap_has_the_pages_of_a_published_book(published, unpublished):
    assert sitemap(published) == {f"{SITE}{name}.html": None for name in PAGES}
    assert not (unpublished.site / "sitemap.xml").exists()


def test_a_commit_reaches_pages_that_did_not_change(build, tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
        days = {"GIT_COMMITTER_DATE": "2027-02-03T23:59:59-11:00"}
        subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | days)

    git("init", "--quiet")
    book = build(tmp_path, html_baseurl=HOME)
    assert "last changed" not in footer(book.chapter)

    git("add", "source/chapter.md", "source/appendix.md")
    git("commit", "--quiet", "--message=Pages")
    with (tmp_path / "source" / "appendix.md").open("a") as text:
        text.write("More.\n")
    book = build(tmp_path, html_baseurl=HOME)
    assert footer(book.chapter).endswith("This page last changed on February 3, 2027.")
    for page in (book.intro, book.appendix):
        assert "last changed" not in footer(page), "it is not as committed"
    day = {f"{SITE}chapter.html": "2027-02-03"}
    assert sitemap(book) == {f"{SITE}{name}.html": None for name in PAGES} | day


def test_what_has_a_number_links_to_itself(unpublished):
    article = unpublished.chapter.select_one("article")
    links = {link["href"] for link in article.select(".admonition-title a.headerlink")}
    assert links == {"#thm-here", "#ex-here"}, "a label that its author did not give"
    assert article.select_one(".eqno a.headerlink")["href"] == "#equation-an-equation"
    for link in article.select("a.headerlink"):
        assert article.find(id=link["href"].lstrip("#")), link
        assert link["title"].startswith("Link to this")


def test_other_books_find_labels_by_name(unpublished):
    app = SimpleNamespace(srcdir=unpublished.site, config=SimpleNamespace(intersphinx_timeout=1))
    inventory = fetch_inventory(app, SITE, str(unpublished.site / "objects.inv"))
    project, version, address, name = inventory["std:label"]["an-equation"]
    assert (project, version, name) == ("A Book", "1.2.0", "(1)")
    assert address == f"{SITE}chapter.html#equation-an-equation"
    assert inventory["std:label"]["thm-here"][2:] == (f"{SITE}chapter.html#thm-here", "Theorem 1")
    assert inventory["std:label"]["ex-here"][2] == f"{SITE}chapter.html#ex-here"
    assert inventory["std:doc"]["chapter"][2:] == (f"{SITE}chapter.html", "A chapter: γ")
