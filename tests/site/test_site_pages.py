"""Every page of the built site in a real browser, each looked at as a whole in one visit."""

import pytest
from _checks import (
    LOAD_IMAGES,
    NO_COLOURS,
    ONLY_COLOURS,
    lay_out,
    lifeless,
    misjudged,
    too_heavy,
    turn,
    unreachable,
    violations,
)
from _pages import APPENDICES, CHAPTERS, FIGURES, PAGES
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

GENERATED = ["search", "genindex", "404"]
SLOW = pytest.mark.slow(reason="all pages again, up to a minute each, in another order")
# Pages whose colours are looked at in the short run; on the long ones that takes most of the time.
COLOURED = {"intro", "identity", "notation", "bibliography", *GENERATED}
VISITS = [
    pytest.param(name, *visit, marks=marks, id=f"{name}-{visit[0][0]}-{visit[0][1]}")
    for name in [*PAGES, *GENERATED]
    for *visit, marks in [
        ((1280, "light"), (390, "dark"), {} if name in COLOURED else NO_COLOURS, ()),
        ((390, "light"), (1280, "dark"), {}, SLOW),
        ((1280, "dark"), (390, "light"), ONLY_COLOURS, SLOW),
    ]
]


@pytest.mark.parametrize(("name", "first", "then", "rules"), VISITS)
def test_a_page(visit, address, name, first, then, rules):
    (width, theme), (_, other_theme) = first, then
    figures = FIGURES.get(name, [])
    page = visit(f"{address}/{name}.html", width=width, theme=theme, wait_until="networkidle")
    faults = too_heavy(page) if name in (*CHAPTERS, *APPENDICES) else []
    faults += misjudged(page)
    lay_out(page)
    faults += page.evaluate(LOAD_IMAGES)
    faults += lifeless(page, figures, theme, "ArrowLeft") + unreachable(page)
    faults += violations(page, **rules)
    turn(page, *then)
    faults += lifeless(page, figures, other_theme, "ArrowRight") + unreachable(page)
    assert not faults, "\n".join(faults)


FROM_DISK = [pytest.param(name, marks=() if name == "identity" else SLOW) for name in PAGES]


@pytest.mark.parametrize("name", FROM_DISK)
def test_a_page_is_the_same_from_disk(site, visit, name):
    page = visit((site / f"{name}.html").as_uri())
    icon = page.locator(".primary-toggle .fa-bars")
    assert icon.evaluate("i => getComputedStyle(i, '::before').content") == '"\uf0c9"'
    assert page.evaluate("document.fonts.check('900 16px \"Font Awesome 6 Free\"', '\uf0c9')")
    assert page.evaluate("document.styleSheets[0].href.includes('_static/pages.css')")
    lay_out(page)
    faults = page.evaluate(LOAD_IMAGES) + lifeless(page, FIGURES[name], "light", "ArrowLeft")
    assert not faults, "\n".join(faults)


def test_a_figures_scripts_wait_until_a_reader_comes_near(site, visit):
    page = visit((site / "memory-speed.html").as_uri(), width=390, wait_until="networkidle")
    urls = [request.url.partition("?")[0] for request in page.requests]
    ours = [url for url in urls if "/explore/" in url and url.endswith(".js")]
    assert len(ours) == 1, f"before the figure is near: {ours}"
    lay_out(page)
    figure = page.locator(".bn-explore")
    expect(figure.locator("img")).to_be_visible()
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".frame")).to_be_visible()
    expect(figure.locator("img")).to_be_hidden()
