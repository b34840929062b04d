"""Every exercise's checker against the solution, the cell to fill in, and wrong answers."""

import ast
import re

import pytest
from _chapters import CHAPTERS

from companion.exercises.calls import call
from companion.exercises.catalogue import CHAPTERS as CATALOGUE
from companion.exercises.catalogue import EXERCISES
from companion.exercises.command import graded
from companion.exercises.judging import judge

WITH_CODE = [chapter for chapter in CHAPTERS if chapter.checks]
WRONG = [(chapter, source) for chapter in WITH_CODE for source in chapter.wrong]
STUBS = [(chapter, source) for chapter in WITH_CODE for source in chapter.stubs]


def defined(source):
    """The function that a cell defines last."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)][-1]


def report(chapter, source):
    """What the checker says of a cell's answer."""
    namespace = {"__name__": "answer"}
    exec(chapter.imports, namespace)
    exec(source, namespace)
    name = defined(source)
    function = namespace[name]
    (asked,) = [each for each in EXERCISES.values() if each.function == name]
    return judge(asked, lambda arguments: call(function, arguments))


@pytest.mark.parametrize("chapter", WITH_CODE, ids=lambda chapter: chapter.name)
def test_each_solution_is_right_with_numpy_and_pytorch_alone(chapter, tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("\n\n".join([chapter.imports, *chapter.solutions]), encoding="utf-8")
    asked = [each.name for each in EXERCISES.values() if each.chapter == chapter.name]
    reports = graded(path, asked)
    assert [each.name for each in reports] == asked
    assert all(reports), [each for each in reports if not each]


@pytest.mark.parametrize(("chapter", "source"), STUBS, ids=lambda value: str(value)[:40])
def test_a_cell_to_fill_in_says_that_nothing_is_returned(chapter, source):
    answer = report(chapter, source)
    assert not answer
    assert f"{defined(source)} returns nothing" in repr(answer)


@pytest.mark.parametrize(("chapter", "source"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_answer_gets_its_own_message(chapter, source):
    expected = re.match(r"# expect: (.+)\n", source)
    assert expected, source
    answer = report(chapter, source)
    assert not answer
    assert expected[1] in repr(answer).replace("\n", " ")


def test_each_exercise_with_code_has_a_cell_to_fill_in_a_check_and_wrong_answers():
    for chapter in CHAPTERS:
        asked = [each for each in EXERCISES.values() if each.chapter == chapter.name]
        checks = [f'check("{each.name}", {each.function})' for each in asked]
        assert chapter.checks == checks
        assert [defined(source) for source in chapter.stubs] == [each.function for each in asked]
        for each, stub in zip(asked, chapter.stubs, strict=True):
            assert f"def {each.signature}" in stub
            assert [s for s in chapter.wrong if defined(s) == each.function], each.name


@pytest.mark.filterwarnings("ignore:Degrees of freedom")  # of one value, unbiased
def test_each_slip_is_named_when_somebody_makes_it():
    for each in EXERCISES.values():
        for advice, mistaken in each.slips.items():
            answer = judge(each, lambda arguments, f=mistaken: call(f, arguments))
            assert advice in repr(answer), (each.name, answer)


def test_each_exercise_and_each_function_has_a_name_of_its_own():
    names = [each.name for chapter in CATALOGUE for each in chapter.EXERCISES]
    functions = [each.function for each in EXERCISES.values()]
    assert names == list(EXERCISES)
    assert len(set(functions)) == len(functions)
