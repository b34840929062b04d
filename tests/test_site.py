"""The built site, as files and in a browser."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from bs4 import BeautifulSoup

from tools.plain_markdown import targets

ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PARTS = {part["caption"]: [entry["file"] for entry in part["chapters"]] for part in TOC["parts"]}
APPENDICES = PARTS["Appendices"]
CHAPTERS = [name for names in PARTS.values() for name in names if name not in APPENDICES]
PAGES = [TOC["root"], *CHAPTERS, *APPENDICES]
EXTERNAL = re.compile(r"^(https?:|mailto:|data:|javascript:)")
EQUATION = re.compile(r"Eq\. \((\d+)\) ([a-z-]+)/([a-z-]+)")


@pytest.fixture(scope="session")
def pages(site):
    """Parsed pages by file name, search and index pages included."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            path.read_text(encoding="utf-8"), "html.parser"
        )
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_internal_link_and_anchor_resolves(site, pages):
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        for tag, attribute in [("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")]:
            for target in (element[attribute] for element in page.select(f"{tag}[{attribute}]")):
                if EXTERNAL.match(target) or target in ("", "#"):
                    continue
                path, fragment = urldefrag(unquote(target))
                path = (site / name).parent / path.partition("?")[0] if path else site / name
                if not path.exists():
                    broken.append(f"{name}: {target}")
                elif fragment and path.suffix == ".html":
                    key = path.resolve().relative_to(site.resolve()).as_posix()
                    if fragment not in anchors.get(key, ()):
                        broken.append(f"{name}: {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_says_what_it_shows(pages, name):
    images = pages[f"{name}.html"].select("article img")
    if name in CHAPTERS:
        assert len(images) >= 3, "a chapter has a figure for every claim that can be seen"
    for image in images:
        alt = image.get("alt", "")
        assert len(alt) > 30, f"{image['src']}: {alt!r}"
        assert not re.search(r"\.(svg|png)$|/", alt), f"a path instead of a description: {alt!r}"


@pytest.mark.parametrize("name", PAGES)
def test_no_cell_shows_an_error(pages, name):
    article = pages[f"{name}.html"].select_one("article")
    assert "Traceback (most recent call last)" not in article.text
    assert not article.select(".output.traceback, .output.stderr")


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_has_its_parts(pages, name):
    article = pages[f"{name}.html"].select_one("article")
    assert len(article.select(".admonition.objectives li")) >= 3, "learning objectives"
    titles = [title.text.strip() for title in article.select(".admonition-title")]
    headings = [heading.text.strip("#\n ") for heading in article.select("h2")]
    assert "What to remember" in titles
    assert headings[-2:] == ["Exercises", "Going further"]
    exercises = article.select(".exercise.admonition")
    solutions = article.select(".solution.admonition")
    assert len(exercises) == len(solutions) >= 3
    for solution in solutions:
        assert "dropdown" in solution["class"], "a solution is folded"
    assert article.select("#id1, .bibtex, a[href*='bibliography.html']"), "sources"


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_is_referred_to(pages, name):
    article = pages[f"{name}.html"].select_one("article")
    referred = {link["href"].lstrip("#") for link in article.select("a.reference.internal[href]")}
    for figure in article.select("figure[id]"):
        assert figure["id"] in referred, f"no {{numref}}`{figure['id']}` in the text"
        assert figure.select_one("figcaption .caption-text"), "a caption says what to conclude"


def test_equations_cited_in_the_package_have_the_number_given(pages):
    cited = {
        match.groups()
        for path in (ROOT / "companion").rglob("*.py")
        for match in EQUATION.finditer(path.read_text(encoding="utf-8"))
    }
    assert len(cited) > 10
    wrong = []
    for number, chapter, label in sorted(cited):
        page = pages.get(f"{chapter}.html")
        equation = page and page.select_one(f"#equation-{label} .eqno")
        found = equation.text.strip("()#\n ") if equation else "no such equation"
        if found != number and not found.startswith(f"{number})"):
            wrong.append(f"Eq. ({number}) {chapter}/{label}: the page says {found}")
    assert not wrong, "\n".join(wrong)


def test_the_twins_number_things_as_the_site_does(pages):
    wrong = []
    for label, target in targets().items():
        page = pages[f"{target.page}.html"]
        shown = page.select_one(
            f"#equation-{label} .eqno, #{label} .caption-number, #{label} .admonition-title"
        )
        if not shown or not shown.text.strip().startswith(target.name):
            wrong.append(f"{label}: {target.name}, but the page says {shown and shown.text}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_the_browser(site, browser, name, width, theme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda entry: entry.type == "error" and errors.append(entry.text))
    page.route(re.compile("^https?://"), lambda route: route.abort())
    page.goto((site / f"{name}.html").as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    formulas = page.locator("article .math").count()
    assert page.locator("article .math mjx-container").count() >= formulas, "formulas not typeset"
    assert page.locator("mjx-merror").count() == 0, "a formula that TeX cannot read"
    for image in page.locator("article img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    assert not errors, errors
    page.close()
