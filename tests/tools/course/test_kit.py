"""The teacher's kit as a whole: its command, its notebooks, its syllabus."""

import filecmp
import re

import pytest
from _submissions import CHAPTER, NUMBER
from axe_playwright_python.sync_playwright import Axe

from companion.exercises.catalogue import EXERCISES
from companion.exercises.command import graded
from tools.course import __main__ as command
from tools.course import bundles, syllabus
from tools.notebooks import SOLUTIONS, TWINS
from tools.plain_markdown import BOOK, asked, parts, titles

pytestmark = [pytest.mark.xdist_group("course"), pytest.mark.usefixtures("site")]


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Where the command writes: a build folder of its own."""
    monkeypatch.setattr(command, "BUILD", tmp_path)
    monkeypatch.setattr(command, "KIT", tmp_path / "course")
    monkeypatch.setattr("sys.argv", ["course"])
    return tmp_path / "course"


def test_the_notebooks_are_the_books(kit):
    for folder, source in (("notebooks", TWINS), ("solutions", SOLUTIONS)):
        [notebook] = (kit / folder).iterdir()
        assert filecmp.cmp(notebook, source / f"{CHAPTER}.ipynb", shallow=False)


def test_the_syllabus_says_what_the_chapters_say(kit):
    text = (kit / "syllabus.md").read_text(encoding="utf-8")
    sessions = re.findall(r"^### Session (\d+): (.*)$", text, re.MULTILINE)
    chapters = [page for pages in parts().values() for page in pages if asked(page)]
    expected = [(str(n), titles()[name]) for n, name in enumerate(chapters, start=1)]
    assert sessions == expected
    assert f"together they are {sum(asked(name)['minutes'] for name in chapters)}" in text
    row = f"| {NUMBER + 1} | {titles()[CHAPTER]} | {asked(CHAPTER)['minutes']} |"
    assert row in text
    _, _, session = text.partition(f"{titles()[CHAPTER]}\n\nMinutes")
    session = session.partition("### Session")[0]
    assert "Needs: session 1, Batch normalization in twenty minutes; mean and variance" in session
    assert "- carry out the paper's Algorithm 1," in session
    written = "How many batches does a running average remember?"
    assert f"- Exercise {NUMBER}.1 (Algorithm 1): code, `bn_forward(x, " in session
    assert f"- Exercise {NUMBER}.6 ({written}): written" in session
    assert len(re.findall(r"^- Exercise", text, re.MULTILINE)) == sum(
        (BOOK / f"{name}.md").read_text(encoding="utf-8").count("{exercise}") for name in chapters
    )
    assert not re.search(r"\{\w+\}`|\{\{|\n\n\n", text)


@pytest.mark.browser
def test_the_syllabus_is_a_page_on_a_phone_too(visit, kit):
    page = visit((kit / "syllabus.html").as_uri(), width=390, theme="dark")
    assert page.locator("h3").count() == len(syllabus.chapters())
    assert page.locator("math").count()
    assert "$" not in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page, options={"preload": False}).response["violations"] == []


def test_a_chapter_without_objectives_is_named(monkeypatch, tmp_path):
    (tmp_path / "new.md").write_text("# New\n", encoding="utf-8")
    monkeypatch.setattr(syllabus, "BOOK", tmp_path)
    with pytest.raises(
        ValueError, match=r"new\.md: expected a box `Learning objectives`, got none"
    ):
        syllabus.objectives("new")


def test_without_a_book_the_message_says_how_to_build_it(place, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "SUCCEEDED", tmp_path / "none")
    assert command.main() == 1
    assert capsys.readouterr().err == "The book is not built: run `make book` first.\n"
    assert not place.exists()


def test_a_failure_leaves_the_kit_that_there_was(place, monkeypatch, capsys):
    place.mkdir()
    (place / "syllabus.md").write_text("before", encoding="utf-8")

    def fail(_folder):
        raise RuntimeError("the wheel was not built: why")

    monkeypatch.setattr(bundles, "build_wheel", fail)
    assert command.main() == 1
    assert capsys.readouterr().err == "course: the wheel was not built: why\n"
    assert [path.name for path in place.parent.iterdir()] == ["course"]
    assert (place / "syllabus.md").read_text(encoding="utf-8") == "before"


@pytest.mark.slow(reason="makes the kit of every chapter, and grades every solution")
@pytest.mark.timeout(1200)
def test_the_whole_kit_is_made_and_every_solution_gets_its_points(place):
    assert command.main() == 0
    for name in syllabus.chapters():
        asked_for = [each.name for each in EXERCISES.values() if each.chapter == name]
        assert all(graded(place / "solutions" / f"{name}.ipynb", asked_for))
        source, release = (
            place / "nbgrader" / folder / name / f"{name}.ipynb" for folder in ("source", "release")
        )
        assert all(graded(source, asked_for))
        assert not any(graded(release, asked_for))
        assert (place / "slides" / f"{name}.html").exists()
        assert (place / "gradescope" / f"{name}.zip").exists()
