"""The zip for the disk, opened as a reader opens it: mathematics, figures and search by file://."""

import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from _checks import LOAD_IMAGES, lay_out
from playwright.sync_api import expect

from tools.downloads import ARCHIVE, FOLDER, TOP, archive, pdfs, publish
from tools.publication import release

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("offline")

CHAPTER = "identity.html"


@pytest.fixture(scope="module")
def offline(site, tmp_path_factory):
    """The unzipped book."""
    folder = tmp_path_factory.mktemp("offline")
    published = shutil.copytree(site, folder / "site")
    publish(published, pdfs())
    archive(published, folder / ARCHIVE)
    with ZipFile(folder / ARCHIVE) as zipped:
        zipped.extractall(folder / "unzipped")
    [top] = (folder / "unzipped").iterdir()
    assert top.name == TOP
    return top


@pytest.mark.browser
def test_a_chapter_shows_its_mathematics_and_figures(offline, visit):
    page = visit((offline / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    page.goto((offline / CHAPTER).as_uri())
    lay_out(page)
    widths = page.locator("article .math .katex-html .base").evaluate_all(
        "all => all.map((drawing) => drawing.getBoundingClientRect().width)"
    )
    assert len(widths) > 20
    assert min(widths) > 3
    assert page.locator("article img:visible:not(.bn-explore img)").count() >= 3
    assert page.evaluate(LOAD_IMAGES) == []
    page.locator(".bn-explore").scroll_into_view_if_needed()
    page.locator("article figure svg [role=slider]").first.wait_for()


@pytest.mark.browser
def test_search_finds_a_word_and_leads_to_it(offline, visit):
    page = visit((offline / "search.html").as_uri() + "?q=projector")
    page.get_by_text(re.compile(r"found \d+ page")).wait_for()
    assert page.locator("#search-results li a[href*='backprop.html']").count()
    assert page.locator("#search-results .context", has_text="projector").count()
    page.locator("#search-results li a").first.click()
    page.wait_for_url(re.compile(r"/(?!search)[\w-]+\.html"))
    assert page.locator("article h1").count() == 1


@pytest.mark.browser
def test_the_citation_is_copied_whole(offline, visit):
    page = visit((offline / CHAPTER).as_uri(), permissions=["clipboard-read", "clipboard-write"])
    entry = page.locator("#cite .highlight-bibtex")
    page.locator("#cite summary", has_text="BibTeX").click()
    entry.hover()
    entry.locator("button.copybtn").click()
    entry.locator(".copybtn.success").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("@incollection{batch-normalization-identity,")
    assert copied.strip().endswith("}")


@pytest.mark.browser
def test_a_link_to_a_result_shows_for_mouse_and_keyboard(offline, visit):
    page = visit((offline / CHAPTER).as_uri(), reduced_motion="reduce")
    for owner in (".theorem", ".exercise", "div.math", "figure", "section"):
        link = page.locator(f"article {owner} a.headerlink").first
        page.mouse.move(0, 0)
        expect(link).to_have_css("opacity", "0")
        link.locator("xpath=..").hover()
        expect(link).to_have_css("opacity", "1")
        page.mouse.move(0, 0)
        expect(link).to_have_css("opacity", "0")
        page.keyboard.press("Shift")  # from here on, focus is shown
        link.focus()
        expect(link).to_be_focused()
        expect(link).to_have_css("opacity", "1")


def test_the_zip_holds_the_site_and_not_itself(offline):
    inside = {path.relative_to(offline).as_posix() for path in offline.rglob("*") if path.is_file()}
    assert {
        "index.html",
        "searchindex.js",
        "objects.inv",
        f"notebooks/{CHAPTER[:-5]}.ipynb",
        f"notebooks/{release().wheel}",
    } <= inside
    assert f"{FOLDER}/{ARCHIVE}" not in inside
    assert not [name for name in inside if name.startswith((".", "reports/", "live/"))]
    assert {path.name for path in pdfs()} == {path.name for path in (offline / FOLDER).glob("*")}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The Python of an environment that has what is here, but not the package."""
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder)
    base = {"base": str(folder), "platbase": str(folder)}
    site_packages, scripts = (sysconfig.get_path(of, "venv", base) for of in ("purelib", "scripts"))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("batchnorm_companion", "__editable__")):
            Path(site_packages, path.name).symlink_to(path)
    return Path(scripts, "python")


@pytest.mark.slow(reason="executes a notebook in an environment made for it")
def test_a_notebook_of_the_zip_brings_its_package(offline, reader):
    missing = {"PYTHONPATH": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    options = {"env": os.environ | missing, "capture_output": True, "text": True}
    notebook = offline / "notebooks/solutions" / CHAPTER.replace(".html", ".ipynb")
    execute = "from nbclient.cli import main; main()"
    done = subprocess.run([reader, "-c", execute, notebook], **options)
    assert done.returncode == 0, done.stderr
    uninstall = [reader, "-m", "pip", "uninstall", "--yes", "batchnorm-companion"]
    removed = subprocess.run(uninstall, **options)
    assert removed.stdout.startswith("Found existing"), "the package came from elsewhere"


def test_a_page_links_to_what_was_made_and_to_nothing_else(tmp_path):
    site, pdf = tmp_path / "site", tmp_path / "a.pdf"
    site.mkdir()
    pdf.write_bytes(b"%PDF")
    page = site / "a.html"
    places = "<ul>\n<!-- download a.pdf: PDF -->\n<!-- download b.zip: Zip -->\n</ul>"
    page.write_text(places)
    publish(site, [pdf])
    link = f'<!-- download a.pdf: PDF --><li><a href="{FOLDER}/a.pdf" download>PDF</a></li>'
    assert page.read_text() == places.replace("<!-- download a.pdf: PDF -->", link)
    assert (site / FOLDER / "a.pdf").exists()
    publish(site, [pdf])
    assert page.read_text().count("<a ") == 1, "linked twice"
    publish(site, [])
    assert page.read_text() == places
    assert not (site / FOLDER).exists()
