"""The questions at a chapter's end: written whole, and answered with why, by finger and by keys."""

import ast
import json
import math
import re

import pytest
from _checks import turn, unreachable, violations
from _pages import CHAPTERS
from bs4 import BeautifulSoup
from playwright.sync_api import expect

from tools.notebooks import executed, from_text
from tools.plain_markdown import recorded

ASKED = re.compile(r"^var questions\w+=(\[.*\]);$", re.MULTILINE)
SAID = re.compile(r"<strong>(?:Right|No)\.</strong> .*\w.*\w")
# The rest of a page is looked at by test_site_pages.py.
ALONE = "article > section > section:not(#questions) { display: none }"
# As the reason says, and after it how many of several right options are found.
FOUND = r"( \(\d of \d found\))?"


def asked(pages, name):
    """The questions of a built page, as its script has them."""
    [section] = pages[f"{name}.html"].select("section#questions")
    [script] = section.select("script[data-questions]")
    [questions] = ASKED.findall(script.string)
    return json.loads(questions)


def words(markup):
    return BeautifulSoup(markup, "html.parser").text


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_ends_with_questions_and_each_answer_has_its_reason(pages, name):
    headings = [heading.find(string=True) for heading in pages[f"{name}.html"].select("article h2")]
    first = headings.index("What to remember")
    assert headings[first : first + 3] == ["What to remember", "Questions", "Exercises"]
    assert not pages[f"{name}.html"].select("#questions .cell_input"), "the answers can be read"
    questions = asked(pages, name)
    assert len(questions) >= 3
    for question in questions:
        answers = question["answers"]
        assert any(answer.get("correct") for answer in answers), question
        assert all(SAID.match(answer["feedback"]) for answer in answers), question
        assert len({answer["feedback"] for answer in answers}) == len(answers), "a reason twice"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_number_that_answers_is_one_that_the_chapter_claims(pages, name):
    claimed = recorded(executed(name).cells).values()
    for question in asked(pages, name):
        if question["type"] == "numeric":
            low, high = question["answers"][0]["range"]
            answer = (low + high) / 2
            assert any(math.isclose(answer, value, rel_tol=1e-6) for value in claimed), question
    [cell] = [cell for cell in from_text(name).cells if cell.source.startswith("Questions(")]
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.keyword) and node.arg == "answer":
            names = [each for each in ast.walk(node.value) if isinstance(each, ast.Name)]
            assert names, f"a number written out: {ast.unparse(node.value)}"


@pytest.mark.browser
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_answer_is_told_why_on_a_phone_from_disk(site, pages, visit, name):
    page = visit((site / f"{name}.html").as_uri(), width=390, theme="dark")
    page.add_style_tag(content=ALONE)
    for place, question in zip(
        page.locator("#questions .Quiz").all(), asked(pages, name), strict=True
    ):
        said = place.get_by_role("status")
        expect(said).to_be_empty()
        for choice, answer in enumerate(question["answers"]):
            if question["type"] != "numeric":
                place.locator("label").nth(choice).click()
            else:
                low, high = answer.get("range", (12345.678, 12345.678))
                place.get_by_role("textbox", name="Your answer").fill(f"{(low + high) / 2:.12g}")
                place.get_by_role("button", name="Check").click()
            expect(said).to_have_text(re.compile(re.escape(words(answer["feedback"])) + FOUND))
    assert not (faults := unreachable(page)), "\n".join(faults)


@pytest.fixture
def questions(address, visit):
    """The questions of `identity`: a choice, one of several, a number."""
    page = visit(f"{address}/identity.html")
    page.add_style_tag(content=ALONE)
    return [page, *page.locator("#questions .Quiz").all()]


@pytest.mark.browser
def test_what_is_answered_is_readable_in_both_themes(questions):
    page, *places = questions
    faults = []
    for option in (0, 2):  # of the first question, a wrong one and the right one
        for place in places[:2]:
            place.locator("label").nth(option).click()
        places[2].get_by_role("textbox").fill("0.75" if option == 0 else "0.87")
        places[2].get_by_role("button").click()
        for theme in ("light", "dark"):
            turn(page, 1280, theme)
            faults += unreachable(page) + violations(page, "#questions")
    assert not faults, "\n".join(faults)


@pytest.mark.browser
def test_one_option_is_chosen_by_keys(questions):
    page, choice, *_ = questions
    group = choice.get_by_role("radiogroup", name=re.compile("What do γ = 1 and β = 0"))
    said = choice.get_by_role("status")
    group.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    expect(said).to_contain_text("No. They leave x̂ as it is")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("Right. That is x̂.")
    expect(group.get_by_role("radio", checked=True)).to_have_accessible_name(re.compile("mean 0"))


@pytest.mark.browser
def test_several_options_are_chosen_by_keys(questions):
    page, _, several, _ = questions
    boxes, said = several.get_by_role("checkbox"), several.get_by_role("status")
    checked = several.get_by_role("checkbox", checked=True)
    for found, box in enumerate((0, 2, 4), start=1):
        boxes.nth(box).focus()
        page.keyboard.press("Space")
        expect(said).to_contain_text(f"({found} of 3 found)")
        expect(checked).to_have_count(found)
    boxes.nth(1).focus()
    page.keyboard.press("Space")
    expect(said).to_contain_text("No. |γ| = 3 is the standard deviation")
    expect(said).to_contain_text("(0 of 3 found)")
    expect(checked).to_have_count(1)


@pytest.mark.browser
def test_a_number_is_typed_sent_and_judged_with_its_tolerance(questions, pages):
    page, _, _, number = questions
    box, said = number.get_by_role("textbox", name="Your answer"), number.get_by_role("status")
    low, high = asked(pages, "identity")[2]["answers"][0]["range"]
    box.focus()
    page.keyboard.press("Enter")
    expect(said).to_be_empty()
    for typed, verdict in (
        ("0.75", "No. That is 3/(2m)"),
        ("0", "No. So it would be with fixed statistics."),
        ("0.5", "No. Begin with"),
        ("0.87", "Right. "),
        (f"{1000 * low + 0.01:.3f}/1000", "Right. "),
        (f"{high - 1e-5:.6f}", "Right. "),
        (f"{low - 1e-5:.6f}", "No. "),
        (f"{high + 1e-5:.6f}", "No. "),
    ):
        box.press("ControlOrMeta+a")
        page.keyboard.type(typed)
        page.keyboard.press("Enter")
        expect(said).to_contain_text(verdict)
        expect(box).to_have_value(typed)
        expect(box).to_be_focused()
