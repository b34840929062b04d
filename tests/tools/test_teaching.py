"""The plans of courses: that they can be held, and say what the chapters say."""

import re
from dataclasses import replace

import pytest

from companion.exercises.catalogue import EXERCISES
from tools import prerequisites, teaching
from tools.contents import BOOK, asked, chapters, objectives
from tools.plain_markdown import Page, plain
from tools.teaching import EXERCISE, LEVELS, Session, by_level, direct_needs, plan, plans

PLANS = plans()
BOX = re.compile(r"^`{3,}\{exercise\} .*\n:label: ex-(.*)$", re.MULTILINE)


def exercises(chapter):
    return BOX.findall((BOOK / f"{chapter}.md").read_text(encoding="utf-8"))


def faults(sessions):
    """What makes a plan one that cannot be held."""
    read, solved, found = [], [], []
    for number, session in enumerate(sessions, start=1):
        for chapter in session.read:
            if chapter not in chapters():
                found.append(f"{number}: there is no chapter {chapter}")
                continue
            missing = [need for need in asked(chapter)["needs"] if need not in read]
            found += [f"{number}: {chapter} needs {need}" for need in missing]
            found += [f"{number}: {chapter} was read"] if chapter in read else []
            read.append(chapter)
        known = {name for chapter in read if chapter in chapters() for name in exercises(chapter)}
        for name in session.solve:
            found += [] if name in known else [f"{number}: no exercise {name} in what was read"]
            found += [f"{number}: {name} was solved"] if name in solved else []
            solved.append(name)
    return found


def test_there_are_courses_of_2_6_and_12_sessions():
    assert {count: len(sessions) for count, sessions in PLANS.items()} == {2: 2, 6: 6, 12: 12}
    text = (BOOK / f"{teaching.PAGE}.md").read_text(encoding="utf-8")
    assert [int(count) for count in re.findall(r"^```\{plan\} (\d+)$", text, re.MULTILINE)] == [
        *PLANS
    ]


@pytest.mark.parametrize("count", PLANS)
def test_a_plan_reads_what_a_chapter_needs_before_and_solves_what_there_is(count):
    assert faults(PLANS[count]) == []
    assert all(session.read and session.solve and session.talk for session in PLANS[count])


def test_what_is_wrong_with_a_plan_is_found():
    start, *others = PLANS[2]
    assert faults(others)[0] == "1: inference needs mini-batch-algorithm"
    assert faults([start, start])[0] == "2: twenty-minutes was read"
    unknown = Session(("twenty-minutes", "none"), ("find-the-mistakes", "bn-forward"), "")
    assert faults([unknown]) == [
        "1: there is no chapter none",
        "1: no exercise bn-forward in what was read",
    ]
    again = replace(start, read=(), solve=start.solve[:1])
    assert faults([start, again]) == [f"2: {start.solve[0]} was solved"]


def test_the_long_course_reads_every_chapter():
    read = {chapter for session in PLANS[12] for chapter in session.read}
    assert set(chapters()) - read == set(), f"put them into the plans of {teaching.PAGE}.md"


@pytest.mark.parametrize("count", PLANS)
def test_the_minutes_are_those_of_the_chapters(count):
    *lines, _, total = plan(str(count))
    reading = sum(asked(name)["minutes"] for session in PLANS[count] for name in session.read)
    solved = sum(len(session.solve) for session in PLANS[count])
    said = [int(minutes) for minutes in re.findall(r"\((\d+) minutes\)", "\n".join(lines))]
    assert sum(said) == reading + EXERCISE * solved
    assert total.startswith(f"Together {sum(said)} minutes outside of class: {reading} to read ")
    assert total.endswith(f", {EXERCISE * solved} for {solved} exercises.")
    assert len([line for line in lines if re.match(r"\d+\. ", line)]) == count


def test_a_session_leaves_time_for_others():
    for sessions in PLANS.values():
        assert all(60 <= each.reading + each.solving <= 150 for each in sessions)
        assert all(1 <= len(each.read) <= 3 for each in sessions)


def test_an_assumption_of_the_plans_is_said():
    text = (BOOK / f"{teaching.PAGE}.md").read_text(encoding="utf-8")
    assert f"For an exercise the plans count {EXERCISE} minutes." in text


def test_more_than_half_of_the_exercises_are_graded():
    for sessions in PLANS.values():
        names = [name for each in sessions for name in each.solve]
        assert len([name for name in names if name in EXERCISES]) > len(names) / 2


def test_every_objective_has_one_level():
    words = [word for each in LEVELS.values() for word in each]
    assert len(words) == len(set(words))
    sorted_ones = [each for level in by_level().values() for each in level]
    assert sorted(sorted_ones) == sorted(
        (chapter, each) for chapter in chapters() for each in objectives(chapter)
    )
    assert {each.split()[0].rstrip(",") for _, each in sorted_ones} == set(words), "used, all"


def test_an_objective_without_a_level_is_named(monkeypatch):
    monkeypatch.setattr(teaching, "objectives", lambda _chapter: ["understand it"])
    with pytest.raises(ValueError, match=r"twenty-minutes\.md: expected .*, got 'understand'"):
        by_level()


def test_a_chapter_without_objectives_is_named(monkeypatch, tmp_path):
    (tmp_path / "new.md").write_text("# New\n", encoding="utf-8")
    monkeypatch.setattr("tools.contents.BOOK", tmp_path)
    with pytest.raises(
        ValueError, match=r"new\.md: expected a box `Learning objectives`, got none"
    ):
        objectives("new")


def before(edges, chapter):
    """All that stands before a chapter."""
    return {*edges[chapter]}.union(*(before(edges, need) for need in edges[chapter]))


def test_the_graph_leaves_out_only_what_follows():
    drawn, asks = direct_needs(), {name: asked(name)["needs"] for name in chapters()}
    for chapter, needs in drawn.items():
        assert set(needs) <= set(asks[chapter])
        assert before(drawn, chapter) == before(asks, chapter)
        for need in needs:
            assert not any(need in before(asks, other) for other in needs)


def test_the_drawing_has_a_line_for_each_need_and_none_on_another():
    drawing, edges = prerequisites.drawing(), direct_needs()
    lines = re.findall(r'<path d="M\d+ (\d+)H.*?V.*? (\d+)H\d+"/>', drawing)
    rows = list(edges)
    row = prerequisites.ROW
    expected = [
        (rows.index(need), rows.index(chapter)) for chapter in rows for need in edges[chapter]
    ]
    assert [(int(start) // row, int(end) // row) for start, end in lines] == expected
    spans, track = prerequisites.spans(), prerequisites.tracks()
    for one in spans:
        for other in set(spans) - {one}:
            if track[one] == track[other]:
                (top, end), (above, below) = spans[one], spans[other]
                assert end <= above or below <= top
    for chapter in rows:
        assert f">{teaching.short(chapter)}</text>" in drawing


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("made", ["{chapters}", "{objectives}", "{prerequisites}", "{plan} 2"])
def test_what_is_made_is_in_the_notebook_too(made):
    said = plain(Page(teaching.PAGE), f"Before\n\n```{made}\n```\n\nAfter")
    assert len(said.splitlines()) > 5
    assert not re.search(r"\{\w+\}", said)
