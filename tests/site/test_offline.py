"""The zip for the disk, opened as a reader opens it: mathematics, figures and search by file://."""

import re
from zipfile import ZipFile

import pytest

from tools.downloads import ARCHIVE, FOLDER, TOP, archive, pdfs, publish

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("offline")

CHAPTER = "identity.html"


@pytest.fixture(scope="module")
def offline(site, tmp_path_factory):
    """The unzipped book."""
    folder = tmp_path_factory.mktemp("offline")
    archive(site, pdfs(), folder / ARCHIVE)
    with ZipFile(folder / ARCHIVE) as zipped:
        zipped.extractall(folder / "unzipped")
    [top] = (folder / "unzipped").iterdir()
    assert top.name == TOP
    return top


@pytest.fixture
def page(browser):
    """A page that may not reach the network, and that keeps what goes wrong."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda entry: entry.type == "error" and page.faults.append(entry.text))

    def refuse(route):
        page.faults.append(f"asked for {route.request.url}")
        route.abort()

    page.route(re.compile("^(https?|wss?):"), refuse)
    yield page
    page.close()


@pytest.mark.browser
def test_a_chapter_shows_its_mathematics_and_figures(offline, page, read_on):
    page.goto((offline / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    page.goto((offline / CHAPTER).as_uri())
    read_on(page)
    drawings = page.locator("article .math svg").all()
    assert len(drawings) > 20
    assert all(drawing.bounding_box()["width"] > 3 for drawing in drawings)
    images = page.locator("article img:visible:not(.bn-explore img)").all()
    assert len(images) >= 3
    for image in images:
        image.scroll_into_view_if_needed()
        image.evaluate("image => image.decode()")
    page.locator(".bn-explore").scroll_into_view_if_needed()
    page.locator("article figure svg [role=slider]").first.wait_for()
    assert not page.faults, page.faults


@pytest.mark.browser
def test_search_finds_a_word_and_leads_to_it(offline, page):
    page.goto((offline / "search.html").as_uri() + "?q=projector")
    result = page.locator("#search-results li a").first
    result.wait_for(timeout=20_000)
    assert page.locator("#search-results li a[href*='backprop.html']").count()
    result.click()
    page.wait_for_url(re.compile(r"\.html"))
    assert page.locator("article h1").count() == 1
    assert not page.faults, page.faults


@pytest.mark.browser
def test_the_citation_is_copied_whole(offline, browser):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto((offline / CHAPTER).as_uri())
    entry = page.locator("#cite .highlight-bibtex")
    entry.hover()
    entry.locator("button.copybtn").click()
    page.wait_for_function("document.querySelector('#cite .highlight-bibtex .copybtn.success')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("@incollection{batch-normalization-identity,")
    assert copied.strip().endswith("}")
    context.close()


@pytest.mark.browser
def test_a_link_to_a_result_shows_for_mouse_and_keyboard(offline, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.goto((offline / CHAPTER).as_uri())
    opacity = "link => Number(getComputedStyle(link).opacity)"
    for owner in (".theorem", ".exercise", "div.math", "figure", "section"):
        link = page.locator(f"article {owner} a.headerlink").first
        page.mouse.move(0, 0)
        assert link.evaluate(opacity) == 0, f"{owner}: always there"
        link.locator("xpath=..").hover()
        assert link.evaluate(opacity) == 1, f"{owner}: invisible under the mouse"
        page.mouse.move(0, 0)
        page.keyboard.press("Shift")  # from here on, focus is shown
        link.focus()
        assert link.evaluate("link => document.activeElement === link"), f"{owner}: no focus"
        assert link.evaluate(opacity) == 1, f"{owner}: invisible under the focus"
    page.close()


def test_the_zip_holds_the_site_and_not_itself(offline):
    inside = {path.relative_to(offline).as_posix() for path in offline.rglob("*") if path.is_file()}
    assert {
        "index.html",
        "searchindex.js",
        "objects.inv",
        f"notebooks/{CHAPTER[:-5]}.ipynb",
    } <= inside
    assert f"{FOLDER}/{ARCHIVE}" not in inside
    assert not [name for name in inside if name.startswith((".", "reports/"))]
    assert {path.name for path in pdfs()} == {path.name for path in (offline / FOLDER).glob("*")}


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
