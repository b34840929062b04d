"""What a link refers to, shown beside the link: for the mouse, the keyboard, and no finger."""

import pytest
from test_site_browser import violations

pytestmark = pytest.mark.browser

CHAPTER = "identity"
FIGURE = "a.reference.internal[href^='#fig-']"
EQUATION = "a.reference.internal[href^='#equation-']"
THEOREM = "a.reference.internal[href^='#thm-']"
ELSEWHERE = "a.reference.internal[href^='backprop.html#']"
INSIDE = """box => {
  const { left, right, top, bottom } = box.getBoundingClientRect();
  return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
}"""


@pytest.fixture
def opened(address, browser, read_on):
    """Open a chapter, all of it laid out; nothing may have gone wrong in the end."""
    contexts, faults = [], []

    def opened(name=CHAPTER, start=address, **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 844}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda entry: entry.type == "error" and faults.append(entry.text))
        page.goto(f"{start}/{name}.html")
        read_on(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults, faults


def preview(page):
    return page.locator(".preview")


def hover(page, selector):
    link = page.locator(f"article {selector}").first
    link.scroll_into_view_if_needed()
    link.hover()
    return link


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("selector", "content"),
    [
        (FIGURE, "figure img"),
        (EQUATION, "div.math svg"),
        (THEOREM, ".proof .admonition-title"),
    ],
)
def test_the_mouse_shows_what_a_link_refers_to(opened, selector, content, theme):
    page = opened(color_scheme=theme)
    link = hover(page, selector)
    preview(page).wait_for()
    shown = preview(page).locator(content)
    assert shown.first.is_visible()
    target = page.locator(link.get_attribute("href"))
    assert target.evaluate("e => !e.closest('.preview')"), "its name is the page's own"
    assert preview(page).evaluate(INSIDE)
    assert preview(page).evaluate("box => box.scrollWidth <= box.clientWidth"), "cut off"
    assert violations(page) == []
    preview(page).hover()
    page.wait_for_timeout(400)
    assert preview(page).is_visible(), "it stays while the mouse is in it"
    page.locator("article h1").hover()
    preview(page).wait_for(state="hidden")


def test_a_mouse_that_passes_shows_nothing(opened):
    page = opened()
    hover(page, FIGURE)
    page.mouse.move(2, 2)
    page.wait_for_timeout(500)
    assert not preview(page).is_visible()


def test_the_keyboard_shows_it_and_escape_puts_it_away(opened):
    page = opened()
    link = page.locator(f"article {EQUATION}").first
    page.keyboard.press("Shift")  # from here on, focus is shown
    link.focus()
    preview(page).wait_for()
    page.keyboard.press("Escape")
    preview(page).wait_for(state="hidden")
    assert link.evaluate("link => document.activeElement === link")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    preview(page).wait_for()
    assert not preview(page).evaluate("box => box.contains(document.activeElement)")
    page.evaluate("scrollBy(0, 60)")
    page.wait_for_timeout(400)
    assert preview(page).is_visible(), "the page moved under a mouse that lies still"
    gap = "box => box.getBoundingClientRect().top"
    assert abs(preview(page).evaluate(gap) - link.bounding_box()["y"]) < 844
    page.keyboard.press("Tab")
    preview(page).wait_for(state="hidden")


def test_a_finger_follows_the_link(opened):
    page = opened(has_touch=True, viewport={"width": 390, "height": 844})
    link = page.locator(f"article {FIGURE}").first
    link.scroll_into_view_if_needed()
    link.tap()
    page.wait_for_url(f"**{link.get_attribute('href')}")
    page.wait_for_timeout(500)
    assert not preview(page).count()


def test_another_page_is_asked_for_once_and_only_when_pointed_at(opened):
    page = opened("many-devices")
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.wait_for_timeout(300)
    assert "backprop.html" not in asked
    for _ in range(2):
        hover(page, ELSEWHERE)
        preview(page).wait_for()
        assert preview(page).locator("svg, img").first.is_visible()
        page.locator("article h1").hover()
        preview(page).wait_for(state="hidden")
    assert asked.count("backprop.html") == 1


def test_from_disk_a_page_shows_what_it_holds_itself(opened, site):
    page = opened("many-devices", start=site.as_uri())
    hover(page, ELSEWHERE)
    page.wait_for_timeout(500)
    assert not preview(page).count()
    hover(page, FIGURE)
    preview(page).wait_for()
    image = preview(page).locator("img")
    image.evaluate("image => image.decode()")
    assert image.bounding_box()["width"] > 100
