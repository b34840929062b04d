"""Reading a page in a real browser: its parts are laid out late, and nobody notices."""

import pytest
from _pages import CHAPTERS

pytestmark = pytest.mark.browser

CHAPTER = "whitening"
LAST = "going-further"
TOP = "id => document.getElementById(id).getBoundingClientRect().top"
UNDER_THE_HEADER = 64
STATES = """() => [...document.querySelectorAll("article > section > section")]
  .map((part) => getComputedStyle(part).contentVisibility)"""
# The first paragraph, heading or figure in sight, and where it is.
PLACE = """() => {
  for (const e of document.querySelectorAll("article :is(p, h2, h3, figcaption)")) {
    const { top, height } = e.getBoundingClientRect();
    if (height && top > 64) return [e.textContent.slice(0, 60), top];
  }
}"""


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    page.close()
    assert not page.faults


@pytest.fixture
def settle(read_on):
    """Wait until every part is laid out, and what that moves has moved."""

    def wait(page):
        read_on(page)
        page.wait_for_timeout(500)

    return wait


def below(page):
    """How far the page can still be scrolled."""
    return page.evaluate("document.documentElement.scrollHeight - scrollY - innerHeight")


def lands(page, anchor):
    top = page.evaluate(TOP, anchor)
    return abs(top - UNDER_THE_HEADER) < 3 or (below(page) < 2 and top > 0)


@pytest.mark.parametrize("name", CHAPTERS)
def test_parts_out_of_sight_wait_until_the_reader_moves(address, page, name):
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    states = page.evaluate(STATES)
    assert len(states) >= 5
    assert set(states) == {"auto"}
    page.evaluate("scrollTo(0, 100)")
    page.wait_for_function(f"({STATES})().every((state) => state === 'visible')")


def test_without_a_move_little_is_laid_out(address, page):
    page.goto(f"{address}/{CHAPTER}.html", wait_until="networkidle")
    hidden = page.evaluate(
        """() => [...document.querySelectorAll("article .math svg")]
          .filter((e) => !e.checkVisibility({ contentVisibilityAuto: true })).length"""
    )
    assert hidden > 100


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("anchor", ["how-fast-is-gradient-descent", "the-cost-grows-as-d3", LAST])
def test_an_address_with_an_anchor_leads_there(address, page, anchor, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{address}/{CHAPTER}.html#{anchor}", wait_until="networkidle")
    page.wait_for_timeout(300)
    top = page.evaluate(TOP, anchor)
    assert -2 < top < UNDER_THE_HEADER + 3 or below(page) < 2, top


@pytest.mark.parametrize("anchor", ["how-fast-is-gradient-descent", "the-cost-grows-as-d3", LAST])
def test_a_link_to_a_part_leads_there_and_stays(address, page, anchor, settle):
    page.goto(f"{address}/{CHAPTER}.html")
    page.locator(f"#pst-page-toc-nav a[href='#{anchor}']").click()
    settle(page)
    assert lands(page, anchor), page.evaluate(TOP, anchor)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_place_is_found_again_after_a_reload(address, page, width, settle):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{address}/{CHAPTER}.html")
    settle(page)
    page.evaluate("scrollTo(0, 12_000)")
    page.wait_for_timeout(500)
    text, top = page.evaluate(PLACE)
    page.reload(wait_until="networkidle")
    page.wait_for_timeout(500)
    now = page.evaluate(
        """text => [...document.querySelectorAll("article :is(p, h2, h3, figcaption)")]
          .find((e) => e.textContent.startsWith(text)).getBoundingClientRect().top""",
        text,
    )
    assert abs(now - top) < 60


def test_the_browser_finds_words_that_are_not_laid_out(address, page):
    page.goto(f"{address}/{CHAPTER}.html")
    assert page.evaluate("window.find('Newton')")
    page.wait_for_timeout(200)
    assert page.evaluate("scrollY") > 5000


def test_all_of_a_page_is_printed(address, page):
    page.goto(f"{address}/{CHAPTER}.html")
    page.emulate_media(media="print")
    assert set(page.evaluate(STATES)) == {"visible"}


def test_the_menu_of_downloads_opens(address, page):
    page.goto(f"{address}/{CHAPTER}.html", wait_until="networkidle")
    button = page.locator(".dropdown-download-buttons > button")
    button.click()
    menu = page.locator(".dropdown-download-buttons .dropdown-menu")
    menu.wait_for(state="visible")
    assert button.get_attribute("aria-expanded") == "true"
    page.locator("article h1").click()
    menu.wait_for(state="hidden")


def test_what_scrolls_inside_itself_becomes_a_tab_stop_when_it_comes_near(address, page, settle):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/{CHAPTER}.html", wait_until="networkidle")
    wide = page.locator("article div.math").nth(1)
    assert wide.evaluate("e => e.scrollWidth <= e.clientWidth") or wide.get_attribute("tabindex")
    settle(page)
    stops = page.locator("article div.math").evaluate_all(
        "all => all.map((e) => [e.scrollWidth > e.clientWidth, e.tabIndex === 0])"
    )
    assert sum(scrolls for scrolls, _ in stops) > 5
    assert all(scrolls == stop for scrolls, stop in stops)


@pytest.mark.parametrize(("width", "shown"), [(390, False), (1280, True)])
def test_the_cover_is_loaded_only_where_it_is_shown(address, page, width, shown):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{address}/intro.html", wait_until="networkidle")
    assert page.locator("img.cover").is_visible() == shown
    assert any(url.endswith("cover.svg") for url in asked) == shown


def test_a_long_formula_goes_on_in_the_next_line(address, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/{CHAPTER}.html")
    lines = page.locator("span.math").evaluate_all(
        """all => all.map((formula) => new Set(
          [...formula.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().top | 0)
        ).size)"""
    )
    assert lines.count(2) >= 4


def test_no_line_ends_between_a_formula_and_the_mark_behind_it(address, page, settle):
    page.goto(f"{address}/{CHAPTER}.html")
    settle(page)
    for width in range(320, 480, 16):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(50)
        marks, parted = page.evaluate(
            """() => {
              const marks = [...document.querySelectorAll("article span.math")]
                .filter(({ nextSibling }) => /^[.,;:)]/.test(nextSibling?.data ?? ""))
                .map((formula) => {
                  const mark = document.createRange();
                  mark.setStart(formula.nextSibling, 0);
                  mark.setEnd(formula.nextSibling, 1);
                  const drawing = [...formula.querySelectorAll("svg")].at(-1);
                  const { right, width } = drawing.getBoundingClientRect();
                  return { width, parted: mark.getBoundingClientRect().left < right - 3,
                           text: formula.nextSibling.data.slice(0, 20) };
                })
                .filter(({ width }) => width);
              return [marks.length, marks.filter(({ parted }) => parted).map(({ text }) => text)];
            }"""
        )
        assert marks > 50
        assert parted == [], width
