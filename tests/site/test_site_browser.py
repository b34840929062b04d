"""What a reader does with the built site in a real browser: search, copy, unfold, go astray."""

import re

import pytest
from _checks import violations
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    "where",
    [
        "served",
        pytest.param("on disk", marks=pytest.mark.slow(reason="as from the zip: test_offline.py")),
    ],
)
def test_search_finds_a_term(site, address, visit, where):
    start = address if where == "served" else site.as_uri()
    page = visit(f"{start}/identity.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("whitening")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"search\.html\?q=whitening"))
    page.get_by_text(re.compile(r"found \d+ page")).wait_for()
    assert page.locator("#search-results li a").count() >= 3
    hit = page.locator("#search-results li:has(a[href='whitening.html'])")
    excerpt = hit.locator(".context").inner_text()
    assert "whitening" in excerpt.lower()
    assert not re.search(r"\\[a-z]|Contents|Download notebook", excerpt), excerpt
    page.locator("#search-results a[href^='whitening.html']").first.click()
    page.wait_for_url(re.compile(r"whitening\.html"))
    assert page.locator("article .highlighted").count() > 0, "the term is not marked"


def test_a_copy_button_copies(address, visit):
    page = visit(f"{address}/identity.html", permissions=["clipboard-read", "clipboard-write"])
    cell = page.locator("div.highlight:has(button.copybtn):visible").first
    cell.hover()
    cell.locator("button.copybtn").click()
    cell.locator("button.copybtn.success").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert len(copied) > 20
    assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_a_solution_unfolds_by_mouse_and_by_keyboard(address, visit):
    page = visit(f"{address}/identity.html")
    solution = page.locator(".solution").first
    code, bar = solution.locator("pre").first, solution.locator("summary").first
    expect(code).to_be_hidden()
    bar.get_by_text("Exercise").click()
    expect(code).to_be_visible()
    bar.focus()
    page.keyboard.press("Enter")
    expect(code).to_be_hidden()


def test_the_theme_a_reader_chose_stays(address, visit):
    page = visit(f"{address}/identity.html", theme="light")
    page.locator(".theme-switch-button").first.click()
    expect(page.locator("html")).to_have_attribute("data-mode", "dark")
    page.goto(f"{address}/notation.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_menu_of_downloads_opens(address, visit):
    page = visit(f"{address}/identity.html")
    button = page.locator(".dropdown-download-buttons > button")
    menu = page.locator(".dropdown-download-buttons .dropdown-menu")
    button.click()
    expect(menu).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    page.locator("article h1").click()
    expect(menu).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_way_back_to_the_top_can_be_read(address, visit, theme):
    """The theme shows it to who scrolls up, so that whoever looks at a page misses it."""
    page = visit(f"{address}/identity.html", theme=theme)
    page.add_style_tag(content="#pst-back-to-top { display: block !important }")
    faults = violations(page, "#pst-back-to-top")
    page.hover("#pst-back-to-top")
    assert not faults + violations(page, "#pst-back-to-top")


def test_an_address_that_is_none_shows_the_404_page(address, browser):
    page = browser.new_page()
    failed = []
    page.on("response", lambda response: response.ok or failed.append(response.url))
    wrong = f"{address}/no/such/page.html"
    assert page.goto(wrong).status == 404
    assert failed == [wrong], "the page itself must be complete at any address"
    assert page.locator("article h1").inner_text() == "Page not found"
    page.get_by_role("link", name="Notation").first.click()
    page.wait_for_url(f"{address}/notation.html")
    page.close()
