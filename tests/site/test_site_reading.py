"""Reading a page in a real browser: its parts are laid out late, and nobody notices."""

import pytest
from _checks import lay_out, settle
from _pages import CHAPTERS
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

CHAPTER = "whitening"
ANCHORS = ["how-fast-is-gradient-descent", "the-cost-grows-as-d3", "going-further"]
UNDER_THE_HEADER = 64
STATES = """() => [...document.querySelectorAll("article > section > section")]
  .map((part) => getComputedStyle(part).contentVisibility)"""
# Where an anchor is, and how far the page can still be scrolled.
TOP = """id => [document.getElementById(id).getBoundingClientRect().top,
  document.documentElement.scrollHeight - scrollY - innerHeight]"""
LANDED = f"""([id, header]) => {{
  const [top, below] = ({TOP})(id);
  return (top > -2 && top < header + 3) || (below < 2 && top > 0);
}}"""
# The first paragraph, heading or figure in sight, and where it is.
PLACE = """() => {
  for (const e of document.querySelectorAll("article :is(p, h2, h3, figcaption)")) {
    const { top, height } = e.getBoundingClientRect();
    if (height && top > 64) return [e.textContent.slice(0, 60), top];
  }
}"""
TOP_OF_TEXT = """text => [...document.querySelectorAll("article :is(p, h2, h3, figcaption)")]
  .find((e) => e.textContent.startsWith(text)).getBoundingClientRect().top"""

SAME_CODE = pytest.mark.slow(reason="the same scripts on another page, or at another width")


def shortly(shown, every):
    """Parameters of which one is in the short run."""
    return [pytest.param(each, marks=() if each == shown else SAME_CODE) for each in every]


@pytest.fixture
def chapter(address):
    return f"{address}/{CHAPTER}.html"


def read_on(page):
    """Move as a reader does: the parts that waited for it are laid out, and that moves nothing."""
    page.keyboard.press("Shift")
    page.wait_for_function(f"({STATES})().every((state) => state === 'visible')")
    settle(page)


def check_landing(page, anchor):
    """Wait for the page to arrive at an anchor, and read on: it must be there still.

    While parts are laid out, what is measured between two frames may be off, though nobody sees it.
    """
    page.wait_for_function(LANDED, arg=[anchor, UNDER_THE_HEADER])
    read_on(page)
    assert page.evaluate(LANDED, [anchor, UNDER_THE_HEADER]), page.evaluate(TOP, anchor)


@pytest.mark.parametrize("name", shortly(CHAPTER, CHAPTERS))
def test_parts_out_of_sight_wait_until_the_reader_moves(address, visit, name):
    page = visit(f"{address}/{name}.html", wait_until="networkidle")
    states = page.evaluate(STATES)
    assert len(states) >= 5
    assert set(states) == {"auto"}
    hidden = page.evaluate(
        """() => [...document.querySelectorAll("article p")].filter(
          (e) => e.checkVisibility() && !e.checkVisibility({ contentVisibilityAuto: true })
        ).length"""
    )
    assert hidden > 10, "without a move little is laid out"
    page.evaluate("scrollTo(0, 100)")
    page.wait_for_function(f"({STATES})().every((state) => state === 'visible')")


@pytest.mark.parametrize(
    ("anchor", "width"),
    [
        (ANCHORS[1], 390),
        (ANCHORS[2], 1280),
        *(
            pytest.param(anchor, width, marks=SAME_CODE)
            for anchor, width in [
                (ANCHORS[0], 390),
                (ANCHORS[0], 1280),
                (ANCHORS[1], 1280),
                (ANCHORS[2], 390),
            ]
        ),
    ],
)
def test_an_address_with_an_anchor_leads_there(chapter, visit, anchor, width):
    page = visit(f"{chapter}#{anchor}", width=width)
    check_landing(page, anchor)


CLOSED = "article :is(details.claims .checked, details.solution, details.sd-dropdown div.math)[id]"


def test_a_link_into_a_closed_box_opens_it(chapter, visit):
    page = visit(chapter)
    anchors = page.locator(CLOSED).evaluate_all("all => all.map((e) => e.id)")
    assert len(anchors) > 10
    for anchor in (anchors[0], anchors[-1]):
        target = page.locator(f"[id='{anchor}']")
        expect(target.locator("xpath=ancestor-or-self::details[1]")).not_to_have_attribute(
            "open", ""
        )
        page.goto(f"{chapter}#{anchor}")
        expect(target.locator("xpath=ancestor-or-self::details[1]")).to_have_attribute("open", "")
        check_landing(page, anchor)


def test_a_link_to_a_part_leads_there_and_stays(chapter, visit):
    page = visit(chapter)
    for anchor in ANCHORS:
        page.locator(f"#pst-page-toc-nav a[href='#{anchor}']").click()
        check_landing(page, anchor)


@pytest.mark.parametrize("width", shortly(390, [390, 1280]))
def test_the_place_is_found_again_after_a_reload(chapter, visit, width):
    page = visit(chapter, width=width)
    read_on(page)
    page.evaluate("scrollTo(0, 12_000)")
    settle(page)
    text, before = page.evaluate(PLACE)
    page.reload()
    page.wait_for_function(
        f"([text, before]) => Math.abs(({TOP_OF_TEXT})(text) - before) < 60", arg=[text, before]
    )
    read_on(page)
    assert abs(page.evaluate(TOP_OF_TEXT, text) - before) < 60


def test_the_browser_finds_words_that_are_not_laid_out_and_prints_them(chapter, visit):
    page = visit(chapter)
    page.emulate_media(media="print")
    assert set(page.evaluate(STATES)) == {"visible"}
    page.emulate_media(media="screen")
    assert page.evaluate("window.find('Newton')")
    page.wait_for_function("scrollY > 5000")


def test_what_scrolls_inside_itself_becomes_a_tab_stop_when_it_comes_near(chapter, visit):
    page = visit(chapter, width=390)
    lay_out(page)
    page.wait_for_function(
        """() => {
          const formulas = [...document.querySelectorAll("article .katex-display")];
          const isWide = (e) => e.scrollWidth > e.clientWidth;
          return formulas.filter(isWide).length > 5
            && formulas.every((e) => isWide(e) === (e.tabIndex === 0));
        }"""
    )


def test_lines_break_inside_of_long_formulas_and_never_before_a_mark(chapter, visit):
    page = visit(chapter, width=390)
    lay_out(page)
    lines = page.locator("span.math").evaluate_all(
        """all => all.map((formula) => new Set(
          [...formula.querySelectorAll(".base")]
            .map((part) => part.getBoundingClientRect().bottom / 8 | 0)
        ).size)"""
    )
    assert lines.count(2) >= 4, "a long formula goes on in the next line"
    for width in range(320, 480, 16):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function("width => innerWidth === width", arg=width)
        marks, parted = page.evaluate(
            """() => {
              const marks = [...document.querySelectorAll("article span.math")]
                .filter(({ nextSibling }) => /^[.,;:)]/.test(nextSibling?.data ?? ""))
                .map((formula) => {
                  const mark = document.createRange();
                  mark.setStart(formula.nextSibling, 0);
                  mark.setEnd(formula.nextSibling, 1);
                  const drawing = [...formula.querySelectorAll(".base")].at(-1);
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
