"""The teacher's kit as a whole: its command, its notebooks, its syllabus."""

import filecmp
import re

import pytest
from _submissions import CHAPTER, NUMBER
from axe_playwright_python.sync_playwright import Axe

from companion.exercises.catalogue import EXERCISES
from companion.exercises.command import graded
from tools.contents import BOOK, asked, chapters, numbers, parts
from tools.course import __main__ as command
from tools.notebooks import SOLUTIONS, TWINS
from tools.plain_markdown import targets, titles
from tools.teaching import plans

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
    names = [page for pages in parts().values() for page in pages if asked(page)]
    labels = [f"{numbers()[name]}. " if name in numbers() else "" for name in names]
    expected = [label + titles()[name] for label, name in zip(labels, names, strict=True)]
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == expected
    assert f"together they are {sum(asked(name)['minutes'] for name in names)}" in text
    section = text.partition(f"### {NUMBER}. {titles()[CHAPTER]}\n\nMinutes")[2]
    section = section.partition("###")[0]
    assert "Needs: Batch normalization in twenty minutes; mean and variance" in section
    assert "- carry out the paper's Algorithm 1," in section
    written = "How many batches does a running average remember?"
    assert f"- Exercise {NUMBER}.1 (Algorithm 1): code, `bn_forward(x, " in section
    assert f"- Exercise {NUMBER}.6 ({written}): written" in section
    assert len(re.findall(r"^- Exercise", text, re.MULTILINE)) == sum(
        (BOOK / f"{name}.md").read_text(encoding="utf-8").count("{exercise}") for name in names
    )
    assert not re.search(r"\{\w+\}`|\{\{|\n\n\n", text)


def test_the_syllabus_has_the_plans_of_the_page(kit):
    text = (kit / "syllabus.md").read_text(encoding="utf-8")
    for count, sessions in plans().items():
        section = text.partition(f"## A course of {count} sessions\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \| (\d+) \+ (\d+) \|$", section, re.MULTILINE)
        assert [int(row[0]) for row in rows] == list(range(1, count + 1))
        for (_, read, solve, reading, solving), session in zip(rows, sessions, strict=True):
            assert [line.split(". ", 1)[-1] for line in read.split("; ")] == [
                titles()[name] for name in session.read
            ]
            assert [f"Exercise {each}" for each in solve.split(", ")] == [
                targets()[f"ex-{name}"].name for name in session.solve
            ]
            assert (int(reading), int(solving)) == (session.reading, session.solving)


@pytest.mark.browser
def test_the_syllabus_is_a_page_on_a_phone_too(visit, kit):
    page = visit((kit / "syllabus.html").as_uri(), width=390, theme="dark")
    assert page.locator("h3").count() == len(chapters())
    assert page.locator("math").count()
    assert "$" not in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page, options={"preload": False}).response["violations"] == []


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

    monkeypatch.setattr(command, "build_wheel", fail)
    assert command.main() == 1
    assert capsys.readouterr().err == "course: the wheel was not built: why\n"
    assert [path.name for path in place.parent.iterdir()] == ["course"]
    assert (place / "syllabus.md").read_text(encoding="utf-8") == "before"


@pytest.mark.slow(reason="makes the kit of every chapter, and grades every solution")
@pytest.mark.timeout(1200)
def test_the_whole_kit_is_made_and_every_solution_gets_its_points(place):
    assert command.main() == 0
    for name in chapters():
        asked_for = [each.name for each in EXERCISES.values() if each.chapter == name]
        assert all(graded(place / "solutions" / f"{name}.ipynb", asked_for))
        source, release = (
            place / "nbgrader" / folder / name / f"{name}.ipynb" for folder in ("source", "release")
        )
        assert all(graded(source, asked_for))
        assert not any(graded(release, asked_for))
        assert (place / "slides" / f"{name}.html").exists()
        assert (place / "gradescope" / f"{name}.zip").exists()
