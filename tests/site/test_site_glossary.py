"""Terms of the glossary on the pages: each leads to its entry, once, and shows it."""

import re

import pytest
from _checks import lay_out, violations
from _pages import CHAPTERS
from playwright.sync_api import expect

from tools.glossary_links import LISTS

WITHIN = ("h1", "h2", "h3", "figcaption", "table", ".cell", ".exercise", ".solution", ".asks", "a")
LINK = re.compile(r'<a class="term reference internal" href="glossary\.html#([^"]+)"')
LONG = 2000  # milliseconds after which whatever a page does late has been done


def anchors(site, name):
    return LINK.findall((site / f"{name}.html").read_text(encoding="utf-8"))


def test_a_chapter_leads_to_each_entry_once(site, pages):
    terms = {term["id"] for term in pages["glossary.html"].select("dl.glossary > dt")}
    for name in CHAPTERS:
        found = anchors(site, name)
        assert len(found) > 10, name
        assert len(set(found)) == len(found), name
        assert set(found) <= terms, name


def test_headings_captions_tables_cells_and_exercises_do_not(pages):
    for name in ("identity", "whitening"):
        wrong = pages[f"{name}.html"].select(", ".join(f"{place} a.term" for place in WITHIN))
        assert wrong == []


def test_a_term_is_linked_where_the_page_first_has_it(pages):
    article = str(pages["whitening.html"].article)
    before, link, _ = article.partition(' href="glossary.html#term-condition-number"')
    assert link
    assert "condition number" not in re.sub(r"<[^>]*>", "", before)
    assert "condition number</a>" in article


def test_only_running_text_leads_to_it(site):
    assert [name for name in LISTS if anchors(site, name)] == []


@pytest.mark.browser
def test_the_mouse_shows_a_definition(address, visit):
    page = visit(f"{address}/whitening.html", wait_until="networkidle", reduced_motion="reduce")
    lay_out(page)
    page.clock.install()
    preview = page.locator(".preview")
    for term, said in (("Hessian", "second derivatives"), ("centred", "subtract the mean")):
        link = page.locator("article a.term", has_text=re.compile(f"^{term}$"))
        link.scroll_into_view_if_needed()
        link.hover()
        page.clock.run_for(LONG)
        expect(preview.locator("dd")).to_contain_text(said)
        page.locator("article h1").hover()
        page.clock.run_for(LONG)
        expect(preview).to_be_hidden()
    link.hover()
    page.clock.run_for(LONG)
    assert violations(page, ".preview") == []
