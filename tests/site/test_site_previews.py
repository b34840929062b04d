"""What a link refers to, shown beside the link: for the mouse, the keyboard, and no finger."""

from datetime import datetime, timedelta

import pytest
from _checks import lay_out, turn, violations
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

CHAPTER = "identity"
FIGURE = "a.reference.internal[href^='#fig-']"
CHECK = "a.check"
SOURCE = "a.reference.internal[href*='bibliography.html#']"
EQUATION = "a.reference.internal[href^='#equation-']"
THEOREM = "a.reference.internal[href^='#thm-']"
ELSEWHERE = "a.reference.internal[href^='backprop.html#']"
# What each kind of link shows.
SHOWN = {
    FIGURE: "figure img",
    EQUATION: "div.math .katex-html",
    THEOREM: ".proof .admonition-title",
    CHECK: ".checked",
}
LONG = 2000  # milliseconds after which whatever a page does late has been done
INSIDE = """box => {
  const { left, right, top, bottom } = box.getBoundingClientRect();
  return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
}"""


@pytest.fixture
def opened(address, visit):
    """Open a chapter, all of it laid out; its clock can be moved on."""

    def opened(name=CHAPTER, start=address, **options):
        page = visit(
            f"{start}/{name}.html", wait_until="networkidle", reduced_motion="reduce", **options
        )
        lay_out(page)
        page.clock.install()
        return page

    return opened


def preview(page):
    return page.locator(".preview")


def hover(page, selector):
    link = page.locator(f"article {selector}").first
    link.scroll_into_view_if_needed()
    link.hover()
    return link


def check_preview(page, selector):
    """The mouse shows what a link refers to, whole, and can enter it; then it leaves."""
    link = hover(page, selector)
    page.clock.run_for(LONG)
    expect(preview(page).locator(SHOWN[selector]).first).to_be_visible()
    target = page.locator(link.get_attribute("href"))
    assert target.evaluate("e => !e.closest('.preview')"), "its name is the page's own"
    assert preview(page).evaluate(INSIDE)
    assert preview(page).evaluate("box => box.scrollWidth <= box.clientWidth"), "cut off"
    assert violations(page, ".preview") == []
    preview(page).hover()
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_visible()
    page.locator("article h1").hover()
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_hidden()


def test_the_mouse_shows_what_a_link_refers_to(opened):
    page = opened()
    for selector in SHOWN:
        check_preview(page, selector)
    turn(page, 1280, "dark")
    check_preview(page, EQUATION)


def test_a_mouse_that_passes_shows_nothing(opened):
    page = opened()
    page.clock.pause_at(datetime.now() + timedelta(hours=1))
    hover(page, FIGURE)
    page.mouse.move(2, 2)
    page.clock.run_for(LONG)
    assert preview(page).count() == 0


def test_the_keyboard_shows_it_and_escape_puts_it_away(opened):
    page = opened()
    link = page.locator(f"article {EQUATION}").first
    page.keyboard.press("Shift")  # from here on, focus is shown
    link.focus()
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(preview(page)).to_be_hidden()
    assert link.evaluate("link => document.activeElement === link")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_visible()
    assert not preview(page).evaluate("box => box.contains(document.activeElement)")


def test_a_page_that_moves_under_the_mouse_takes_nothing_from_the_keyboard(opened):
    page = opened()
    link = page.locator(f"article {EQUATION}").first
    link.scroll_into_view_if_needed()
    page.mouse.move(640, 700)
    page.keyboard.press("Shift")
    link.focus()
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_visible()
    page.evaluate(
        """() => {
          addEventListener("pointerover", () => (document.body.dataset.moved = "under the mouse"));
          scrollBy(0, 200);
        }"""
    )
    page.locator("body[data-moved]").wait_for()
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_visible()
    gap = "box => box.getBoundingClientRect().top"
    assert abs(preview(page).evaluate(gap) - link.bounding_box()["y"]) < 844
    page.keyboard.press("Tab")
    page.clock.run_for(LONG)
    expect(preview(page)).to_be_hidden()


def test_a_finger_follows_the_link(opened):
    page = opened(has_touch=True, width=390)
    link = page.locator(f"article {FIGURE}").first
    link.scroll_into_view_if_needed()
    link.tap()
    page.wait_for_url(f"**{link.get_attribute('href')}")
    page.clock.run_for(LONG)
    assert preview(page).count() == 0


def test_a_finger_sees_a_source_and_follows_the_link_at_its_second_tap(opened, site):
    for start in ({}, {"start": site.as_uri()}):
        page = opened(has_touch=True, width=390, **start)
        link = page.locator(f"article {SOURCE}").first
        link.scroll_into_view_if_needed()
        link.tap()
        expect(preview(page)).to_contain_text("Ioffe")
        page.locator("article h1").tap()
        expect(preview(page)).to_be_hidden()
        link.tap()
        expect(preview(page)).to_be_visible()
        link.tap()
        page.wait_for_url("**/bibliography.html#*")


def test_a_finger_on_a_number_opens_its_check(opened):
    page = opened(has_touch=True, width=390)
    page.evaluate("document.querySelectorAll('article details').forEach((d) => d.open = false)")
    link = page.locator(f"article {CHECK}").first
    line = page.locator(link.get_attribute("href"))
    expect(line).to_be_hidden()
    link.tap()
    expect(line).to_be_in_viewport()


def test_another_page_is_asked_for_once_and_only_when_pointed_at(opened):
    page = opened("many-devices")
    for asked in (0, 1):
        names = [request.url.rpartition("/")[2] for request in page.requests]
        assert names.count("backprop.html") == asked
        hover(page, ELSEWHERE)
        page.clock.run_for(LONG)
        expect(preview(page).locator(".katex-html, img").first).to_be_visible()
        page.locator("article h1").hover()
        page.clock.run_for(LONG)
        expect(preview(page)).to_be_hidden()
    names = [request.url.rpartition("/")[2] for request in page.requests]
    assert names.count("backprop.html") == 1


def test_from_disk_a_page_shows_what_it_holds_itself(opened, site):
    page = opened("many-devices", start=site.as_uri())
    hover(page, ELSEWHERE)
    page.clock.run_for(LONG)
    assert preview(page).count() == 0
    hover(page, FIGURE)
    page.clock.run_for(LONG)
    image = preview(page).locator("img")
    image.evaluate("image => image.decode()")
    assert image.bounding_box()["width"] > 100
