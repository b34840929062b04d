"""The interactive figures in the built pages, opened from the disk."""

import re
from pathlib import Path

import pytest
from _page import FIGURES

BOOK = Path(__file__).parents[2] / "book"
CALL = re.compile(r"^explore\.(\w+)\(", re.MULTILINE)
PLACES = {
    path.stem: CALL.findall(path.read_text(encoding="utf-8")) for path in sorted(BOOK.glob("*.md"))
}
WITH_FIGURES = [name for name, figures in PLACES.items() if figures]


def test_chapters_show_the_figures():
    shown = [figure for name in WITH_FIGURES for figure in PLACES[name]]
    assert len(shown) == len(set(shown)) >= 6
    assert set(shown) <= set(FIGURES)


@pytest.mark.parametrize("name", PLACES)
def test_scripts_are_loaded_once_and_only_where_a_figure_is(site, name):
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    scripts = re.findall(r'src="_static/explore/(\w+)\.js', text)
    assert scripts == (["loader"] if PLACES[name] else [])
    assert "bnExplore" not in text, "a script inside the page"
    for figure in PLACES[name]:
        assert f'src="_images/explore-{name}-{figure}.svg"' in text
        assert (site / "_static" / "explore" / f"{figure}.js").exists()


@pytest.mark.browser
def test_scripts_wait_until_a_reader_comes_near(site, browser, read_on):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "memory-speed.html").as_uri())
    page.wait_for_load_state("networkidle")
    ours = [url for url in asked if "/explore/" in url and url.partition("?")[0].endswith(".js")]
    assert len(ours) == 1, f"before the figure is near: {ours}"
    read_on(page)
    host = page.locator(".bn-explore")
    picture = host.locator("img")
    assert picture.is_visible()
    host.scroll_into_view_if_needed()
    host.locator(".frame").wait_for()
    assert not picture.is_visible()
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", WITH_FIGURES)
def test_a_figure_lives_in_its_page(site, browser, read_on, name, width, theme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda entry: entry.type == "error" and errors.append(entry.text))
    page.goto((site / f"{name}.html").as_uri())
    read_on(page)
    for figure in PLACES[name]:
        host = page.locator(f".bn-explore[data-name={figure}]")
        host.scroll_into_view_if_needed()
        host.locator(".frame").wait_for()
        assert host.locator(".frame").get_attribute("data-theme") == theme
        box = host.evaluate("host => getComputedStyle(host.parentElement).backgroundColor")
        assert box == "rgba(0, 0, 0, 0)", "the theme's light box around an output"
        shown = "all => all.map(e => e.dataset.value)"
        before = host.locator("[data-number]").evaluate_all(shown)
        host.locator("input >> nth=0").focus()
        page.keyboard.press("ArrowLeft")
        assert host.locator("[data-number]").evaluate_all(shown) != before
        frame = host.locator(".frame").bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
        assert page.locator(f"figure:has([data-name={figure}]) figcaption").is_visible()
    assert not errors, errors
    page.close()
