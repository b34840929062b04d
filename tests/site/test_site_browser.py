"""The built site in a real browser: what it loads, shows and does."""

import re
from contextlib import contextmanager

import pytest
from _pages import APPENDICES, CHAPTERS, PAGES
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser

LIMIT = 500_000  # bytes of a page as they are sent, images aside
GENERATED = ["search", "genindex", "404"]
# Whatever is wider than the text, and whether it scrolls inside itself and by keyboard.
WIDE = """() => [...document.querySelectorAll("article *")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1
                 && /auto|scroll/.test(getComputedStyle(e).overflowX))
  .map((e) => [e.outerHTML.slice(0, 120), e.tabIndex])"""
# Whatever a reader cannot get to see: cut off by the window or a box, with nothing to scroll it in.
CUT_OFF = """() => {
  const unseen = "mjx-assistive-mml, details:not([open]), .toggle-hidden, svg *, .visually-hidden";
  const edges = (e) => {
    for (let box = e.parentElement; box; box = box.parentElement) {
      const overflow = getComputedStyle(box).overflowX;
      const { left, right } = box.getBoundingClientRect();
      if (/auto|scroll/.test(overflow)) return [left - box.scrollLeft, Infinity];
      if (/hidden|clip/.test(overflow)) return [left, right];
    }
    return [0, innerWidth];
  };
  return [...document.querySelectorAll("article *")].filter((e) => {
    const { left, right, width } = e.getBoundingClientRect();
    if (!width || e.closest(unseen) || e.checkVisibility?.() === false) return false;
    const [from, to] = edges(e);
    return left < from - 1 || right > to + 1;
  }).map((e) => [e.outerHTML.slice(0, 100), e.closest("p, li, td, div")?.textContent.slice(0, 60)]);
}"""

# Whether the page has taken on a theme, and no colour is on its way.
SHOWS = """theme => document.documentElement.dataset.theme === theme
  && document.getAnimations().every((each) => each.playState !== "running")"""


@contextmanager
def opened(browser, address, *, width=1280, theme="light", **options):
    """A page of the browser, and the faults that it has seen by the end."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme, **options)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda entry: entry.type == "error" and faults.append(entry.text))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((address, "data:"))
            or faults.append(f"not from the site: {request.url}")
        ),
    )
    yield page
    page.close()
    assert not faults, "\n".join(faults)


def violations(page, **options):
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    return [
        f"{violation['id']}: {node['html'][:120]} ({node['failureSummary']})"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


# What axe looks for at a width in a theme. It takes most of the time, so: colours, which are the
# same at every width, at one, in both themes; all else, which is the same in both, in one.
NO_COLOURS = {"rules": {"color-contrast": {"enabled": False}}}
ONLY_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
RULES = {(1280, "light"): {}, (1280, "dark"): ONLY_COLOURS, (390, "dark"): NO_COLOURS}


@pytest.mark.parametrize(("width", "themes"), [(1280, ["light", "dark"]), (390, ["dark", "light"])])
@pytest.mark.parametrize("name", [*PAGES, *GENERATED])
def test_a_page(address, browser, read_on, name, width, themes):
    with opened(browser, address, width=width, theme=themes[0]) as page:
        page.goto(f"{address}/{name}.html")
        page.evaluate("document.querySelectorAll('article details').forEach((d) => d.open = true)")
        read_on(page)
        for theme in themes:
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(SHOWS, arg=theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "goes sideways"
            for image in page.locator("article img:visible:not(.bn-explore img)").all():
                image.scroll_into_view_if_needed()
                image.evaluate("image => image.decode()")
            assert page.evaluate(CUT_OFF) == []
            assert [html for html, tab in page.evaluate(WIDE) if tab != 0] == [], "not by keyboard"
            if (width, theme) in RULES:
                found = violations(page, **RULES[width, theme])
                assert not found, "\n".join(found)


@pytest.mark.parametrize("name", [*CHAPTERS, *APPENDICES])
def test_a_page_is_small(address, browser, name):
    sizes = {}

    def note(request):
        if request.resource_type != "image":
            sizes[request.url] = request.sizes()["responseBodySize"]

    with opened(browser, address) as page:
        page.on("requestfinished", note)
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
    assert f"{address}/{name}.html" in sizes
    assert sum(sizes.values()) <= LIMIT, sizes


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_the_same_from_disk(site, browser, name):
    with opened(browser, site.as_uri()) as page:
        page.goto((site / f"{name}.html").as_uri())
        icon = page.locator(".primary-toggle .fa-bars")
        assert icon.evaluate("i => getComputedStyle(i, '::before').content") == '"\uf0c9"'
        assert page.evaluate("document.fonts.check('900 16px \"Font Awesome 6 Free\"', '\uf0c9')")
        assert page.evaluate("document.styleSheets[0].href.includes('_static/pages.css')")


@pytest.mark.parametrize("where", ["served", "on disk"])
def test_search_finds_a_term(site, address, browser, where):
    start = address if where == "served" else site.as_uri()
    with opened(browser, start) as page:
        page.goto(f"{start}/identity.html")
        page.keyboard.press("Control+k")
        page.locator("#pst-search-dialog input").fill("whitening")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"search\.html\?q=whitening"))
        page.get_by_text(re.compile(r"found \d+ page")).wait_for()
        results = page.locator("#search-results li a")
        assert results.count() >= 3
        page.locator("#search-results a[href^='whitening.html']").first.click()
        page.wait_for_url(re.compile(r"whitening\.html"))
        assert page.locator("article .highlighted").count() > 0, "the term is not marked"


def test_a_copy_button_copies(address, browser):
    granted = ["clipboard-read", "clipboard-write"]
    with opened(browser, address, permissions=granted) as page:
        page.goto(f"{address}/identity.html")
        cell = page.locator("div.highlight:has(button.copybtn):visible").first
        cell.hover()
        cell.locator("button.copybtn").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert len(copied) > 20
        assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_a_solution_unfolds_by_mouse_and_by_keyboard(address, browser):
    with opened(browser, address) as page:
        page.goto(f"{address}/identity.html")
        solution = page.locator(".solution.dropdown").first
        code, button = solution.locator("pre").first, solution.locator(".toggle-button").first
        assert not code.is_visible()
        button.click()
        code.wait_for(state="visible")
        assert button.get_attribute("aria-expanded") == "true"
        button.focus()
        page.keyboard.press("Enter")
        code.wait_for(state="hidden")
        assert button.get_attribute("aria-expanded") == "false"


def test_the_theme_a_reader_chose_stays(address, browser):
    with opened(browser, address, theme="light") as page:
        page.goto(f"{address}/identity.html")
        while page.evaluate("document.documentElement.dataset.mode") != "dark":
            page.locator(".theme-switch-button").first.click()
        page.goto(f"{address}/whitening.html")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


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
