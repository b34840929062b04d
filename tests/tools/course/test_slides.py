"""The slides: what is on them, and how Chromium shows them from the disk."""

import copy
import re

import pytest
from _submissions import CHAPTER, NUMBER
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from tools.course import slides
from tools.course.syllabus import chapters
from tools.plain_markdown import titles

pytestmark = pytest.mark.xdist_group("course")

# What is higher or wider than its slide, in letters as small as they get.
OVERFLOWING = """() => [...document.querySelectorAll(".slides section:not(:has(section))")]
  .flatMap((slide, number) => {
    const { width, height } = Reveal.getConfig();
    const { right } = slide.getBoundingClientRect();
    const beyond = (e) => e.getBoundingClientRect().right > right + 1
      || (getComputedStyle(e).display !== "inline" && e.scrollWidth > e.clientWidth + 3);
    const wide = [...slide.querySelectorAll("*:not(.katex *, svg *)")]
      .filter((e) => e.checkVisibility() && !e.closest(".notes") && beyond(e));
    const formulas = [...slide.querySelectorAll(".katex-html > .base")]
      .filter((e) => e.getBoundingClientRect().right > right + 1);
    const faults = slide.scrollHeight > height ? [`${slide.scrollHeight} pixels high`] : [];
    if (wide.length) faults.push(`too wide: ${wide[0].outerHTML.slice(0, 150)}`);
    if (formulas.length) faults.push(`too wide: ${formulas[0].textContent.slice(0, 80)}`);
    const size = parseFloat(slide.style.fontSize || "100");
    if (size < 55) faults.push(`letters of ${size} %`);
    return faults.map((fault) => `slide ${number}, ${slide.querySelector("h1, h2").textContent}:
      ${fault}`);
  })"""


@pytest.fixture(scope="module")
def page(kit):
    text = (kit / "slides" / f"{CHAPTER}.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


@pytest.fixture(scope="module")
def chapter(site):
    text = (site / f"{CHAPTER}.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser").article


def numbers(tags):
    return [tag.get_text().strip("# ") for tag in tags]


def test_every_numbered_thing_of_the_chapter_is_on_a_slide_once(page, chapter):
    page, chapter = copy.copy(page), copy.copy(chapter)
    for aside in [*page.select("aside, .list"), *chapter.select("section#exercises, .objectives")]:
        aside.extract()
    for what in (".eqno", ".caption-number", "th"):
        expected = numbers(chapter.select(f"{what}:not(details *)"))
        assert expected or what == "th"
        assert sorted(numbers(page.select(what))) == sorted(expected)
    assert len(page.select("section.question")) == len(chapter.select(".misconception")) + len(
        chapter.select(".bn-questions > ol > li")
    )


def test_slides_open_with_the_objectives_and_end_with_what_to_remember(page, kit):
    del kit
    headings = [heading.get_text() for heading in page.select("section > h2")]
    assert page.h1.get_text() == titles()[CHAPTER]
    assert headings[0] == "After this chapter you can"
    remember = page.select("section.box")[-1]
    assert remember.h2.get_text() == "What to remember"
    assert len(remember.select("li")) >= 3
    listed = page.select("section.list")[-1]
    assert f"Exercise {NUMBER}.1  (Algorithm 1)" in listed.get_text()
    assert "Solution" not in page.get_text()


def test_no_address_is_lost_and_no_name_stands_twice(page, kit):
    assert not page.select("[id]")
    assert not [link for link in page.select("a") if not link["href"].startswith("http")]
    for tag in page.select("img, script, link[rel=stylesheet]"):
        file = tag.get("src") or tag["href"]
        assert (kit / "slides" / file).exists(), file


def test_a_question_of_the_quiz_has_its_right_answers_and_no_others():
    questions = pytest.importorskip("companion.questions")
    asked = questions.Questions(
        questions.Choice(
            "What does β add?",
            questions.Wrong("A variance.", "That is γ."),
            questions.Right("A mean.", "Of x̂ it is 0."),
        ),
        questions.Number("How far?", answer=2.5, within=0.01, why="So.", otherwise="Not so."),
    )
    page = BeautifulSoup(f'<div class="cell">{asked._html()}</div>', "html.parser")
    slides.open_questions(page)
    choice, number = page.select(".misconception")
    assert [item.get_text() for item in choice.select("li")] == ["A variance.", "A mean."]
    assert choice.details.get_text() == "A mean. Of x̂ it is 0."
    assert number.details.get_text() == "2.5 So."


def shown(visit, kit, name=CHAPTER):
    page = visit((kit / "slides" / f"{name}.html").as_uri())
    page.set_viewport_size({"width": 1280, "height": 720})
    page.wait_for_selector("body[data-fitted]")
    return page


def overflowing(page):
    """Faults of any slide, all of which are laid out for it."""
    style = page.add_style_tag(content=".slides section { display: block !important }")
    heights = "() => [...document.querySelectorAll('.slides section')].map((e) => e.clientHeight)"
    assert min(page.evaluate(heights)) > 50
    faults = page.evaluate(OVERFLOWING)
    style.evaluate("style => style.remove()")
    return faults


@pytest.mark.browser
def test_a_lecture_from_the_disk_by_keyboard(visit, kit):
    page = shown(visit, kit)
    assert overflowing(page) == []
    assert Axe().run(page, options={"preload": False}).response["violations"] == []
    present = page.locator("section.present:not(.stack)")
    for _ in range(100):
        if "question" in present.get_attribute("class"):
            break
        page.keyboard.press("Space")
    answer = present.locator(".answer")
    assert "visible" not in answer.get_attribute("class")
    page.keyboard.press("Space")
    assert "visible" in answer.get_attribute("class")
    assert re.fullmatch(r"\d+\s*/\s*\d+", page.locator(".slide-number").inner_text())
    while not present.locator(".notes math").count():
        page.keyboard.press("Space")
    with page.context.expect_page() as opened:
        page.keyboard.press("s")
    speaker = opened.value
    speaker.wait_for_selector(".speaker-controls-notes:not(.hidden) .value math")


@pytest.mark.slow(reason="the slides of every chapter, one of which is in the short run")
@pytest.mark.browser
@pytest.mark.parametrize("name", chapters())
def test_nothing_overflows_its_slide(visit, site, tmp_path, name):
    del site
    slides.write_engine(tmp_path / "slides" / "engine")
    slides.write(name, tmp_path / "slides")
    page = shown(visit, tmp_path, name)
    assert overflowing(page) == []
    assert Axe().run(page, options={"preload": False}).response["violations"] == []
