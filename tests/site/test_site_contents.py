"""The built site, as files."""

import re
from urllib.parse import unquote, urldefrag

import jupytext
import pytest
from _pages import CHAPTERS, PAGES, ROOT

from tools.plain_markdown import targets
from tools.publication import in_words, release

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("site-contents")

EXTERNAL = re.compile(r"^(https?:|mailto:|data:|javascript:)")
EQUATION = re.compile(r"Eq\. \((\d+)\) ([a-z-]+)/([a-z\d-]+)")


def test_every_internal_link_and_anchor_resolves(site, pages):
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        for tag, attribute in [("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")]:
            for target in (element[attribute] for element in page.select(f"{tag}[{attribute}]")):
                if EXTERNAL.match(target) or target in ("", "#"):
                    continue
                path, fragment = urldefrag(unquote(target))
                if name == "404.html" and path:  # it is shown at any address
                    assert path.startswith("/"), f"{name}: {target}"
                    path = path.removeprefix("/")
                path = (site / name).parent / path.partition("?")[0] if path else site / name
                if not path.exists():
                    broken.append(f"{name}: {target}")
                elif fragment and path.suffix == ".html":
                    key = path.resolve().relative_to(site.resolve()).as_posix()
                    if fragment not in anchors.get(key, ()):
                        broken.append(f"{name}: {target}")
    assert not broken, "\n".join(broken)


def test_a_link_to_a_file_saves_it(pages):
    opened = {
        f"{name}: {link['href']}"
        for name, page in pages.items()
        for link in page.select("a[href]:not([download])")
        if not EXTERNAL.match(link["href"])
        and not urldefrag(link["href"])[0].endswith((".html", "/"))
        and urldefrag(link["href"])[0]
    }
    assert not opened
    assert pages["identity.html"].select(".btn-download-source-button[download]")


def test_every_page_ends_with_the_version_and_its_date(pages):
    book = release()
    for name in set(pages) - {"index.html"}:  # which leads to the first page
        said = pages[name].select_one(".bd-footer-content .component-version")
        assert f"Version {book.version} of {in_words(book.released)}." in said.text, name
        assert said.select_one("a[href]")["href"].lstrip("/") == "changelog.html" or (
            name == "changelog.html"
        )


def test_the_changelog_knows_the_version():
    text = (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+) \((.*)\)$", text, re.MULTILINE)
    assert len(versions) == text.count("\n## ")
    numbers = [tuple(map(int, version.split("."))) for version, _ in versions]
    assert numbers == sorted(numbers, reverse=True)
    book = release()
    to_come = [version for version, when in versions if when == "not yet released"]
    assert (book.version, book.released.isoformat()) == versions[len(to_come)]
    assert len(to_come) <= 1


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
def test_a_page_has_the_code_of_all_its_cells(pages, name):
    """In order, also of those that show only what they drew: see run.js."""
    cells = pages[f"{name}.html"].select("article .cell")
    code = [cell.select_one(".cell_input pre, script[type='text/x-python']") for cell in cells]
    sources = [
        cell.source
        for cell in jupytext.read(ROOT / "book" / f"{name}.md").cells
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", [])
    ]
    assert [each.get_text().strip() for each in code] == [each.strip() for each in sources]


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
        assert solution.name == "details", "a solution is folded"
        assert not solution.summary.select("a"), "a link in the bar, which opens it"
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
        shown = equation.text.strip("()#\n ") if equation else "no such equation"
        if shown != number and not shown.startswith(f"{number})"):
            wrong.append(f"Eq. ({number}) {chapter}/{label}: the page says {shown}")
    assert not wrong, "\n".join(wrong)


def test_the_twins_number_things_as_the_site_does(pages):
    wrong = []
    for label, target in targets().items():
        page = pages[f"{target.page}.html"]
        place = page.find(id=f"equation-{label}") or page.find(id=label)
        shown = place and place.select_one(".eqno, .caption-number, .admonition-title")
        if not shown or not shown.text.strip().startswith(target.name):
            wrong.append(f"{label}: {target.name}, but the page says {shown and shown.text}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_links_to_its_neighbours_and_to_its_own_parts(pages, name):
    page = pages[f"{name}.html"]
    place = PAGES.index(name)
    for side, neighbour in [("left", place - 1), ("right", place + 1)]:
        link = page.select_one(f".prev-next-area a.{side}-{'prev' if side == 'left' else 'next'}")
        if 0 <= neighbour < len(PAGES):
            assert link["href"] == f"{PAGES[neighbour]}.html"
        else:
            assert link is None
    numbered = page.select("article :is(h2, h3, .eqno, figcaption)")
    assert all(part.select_one("a.headerlink[href]") for part in numbered)


def test_pages_describe_themselves_each_in_its_own_words(pages, site):
    described = {}
    for name in PAGES:
        head = pages[f"{name}.html"].head
        text = head.select_one("meta[name=description]")["content"]
        assert 40 <= len(text) <= 200, f"{name}: {text}"
        assert not re.search(r"[\\{}]", text), f"{name}: {text}"
        described[name] = text
        assert head.select_one("meta[property='og:description']")["content"] == text
        assert head.select_one("meta[property='og:title']")["content"]
        assert (site / head.select_one("link[rel=icon]")["href"]).is_file()
    assert len(set(described.values())) == len(PAGES)


def test_formulas_are_drawn_when_the_book_is_built(pages):
    formulas = [formula for page in pages.values() for formula in page.select(".math")]
    assert len(formulas) > 500
    for formula in formulas:
        assert formula.select_one(".katex-html[aria-hidden=true] > .base"), formula
        assert formula.select_one(".katex-mathml > math"), "nothing for a screen reader"


def test_a_source_has_a_short_label(pages):
    labels = [
        label.text.strip("[]") for label in pages["bibliography.html"].select(".citation .label")
    ]
    assert len(labels) > 30
    assert [each for each in labels if not re.fullmatch(r"[A-Za-z]{1,6}\+?\d\d[a-z]?", each)] == []


def test_nothing_of_the_sites_folder_is_a_script_for_icons_a_source_map_or_a_template(site):
    assert not [*site.rglob("*.map"), *site.rglob("*awesome*.*"), *site.glob("_static/*.html")]
    icons = [path.stat().st_size for path in site.rglob("fa-*.*")]
    assert icons
    assert max(icons) < 10_000, "a font has icons that no page shows"
