"""What a checker says of results of every form."""

import contextlib
import itertools

import numpy as np
import pytest
import torch

from companion.exercises import check
from companion.exercises.calls import Outcome, call
from companion.exercises.catalogue import EXERCISES
from companion.exercises.exercise import Case, Exercise, Property
from companion.exercises.judging import Report, difference, judge, told

TWO = np.array([1.0, 2.0])


def exercise(oracle, *cases, **fields):
    names = ("a", "b")[: len(cases[0].arguments)]
    return Exercise("an-answer", "a-chapter", "", names, oracle, lambda: cases, **fields)


DOUBLE = exercise(
    lambda a: 2 * a,
    Case("one number", (np.array([1.0]),)),
    Case("two numbers", (TWO,)),
    Case("many", (np.arange(100.0),)),
    slips={"Twice, not squared.": lambda a: a**2, "Twice, not plus one.": lambda a: a + 1},
    properties=(Property("The answer is even", lambda y, _a: np.abs(y % 2).max()),),
)


def answered(function, asked=DOUBLE):
    return judge(asked, lambda arguments: call(function, arguments, seconds=0.2))


def test_a_right_answer():
    report = answered(lambda a: a + a)
    assert report
    assert repr(report) == "✓ an-answer: right, 3 checks of 3"


def test_the_smallest_case_that_fails_is_shown_with_what_it_means():
    report = answered(lambda a: a + 1)
    assert repr(report).splitlines() == [
        "✗ an-answer: not right yet",
        "  tried       two numbers: an_answer(a)",
        "              a = [1., 2.]",
        "  came        [2., 3.]",
        "  expected    [2., 4.]",
        "  so          they differ by 1 at [1]",
        "  also        The answer is even; it is off by 1",
        "  look at     Twice, not plus one.",
    ]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda _a: None, "an_answer returns nothing"),
        (lambda a: a / 0, "came        [inf]"),
        (lambda _a: [][1], "IndexError: list index out of range, at line"),
        (lambda a: float(a[0]), "expected an array of shape (1,), float64, came a number"),
        (lambda a: a.tolist(), "came a list of 1"),
        (lambda a: torch.from_numpy(2 * a), "came a tensor of shape (1,), float64"),
        (lambda a: (2 * a).astype(np.float32), "came an array of shape (1,), float32"),
        (lambda a: 2 * a[None], "came an array of shape (1, 1), float64"),
        (lambda _a: object, "came a type"),
        (lambda a: a * np.nan, "it is nan at [0], not a number"),
        (lambda a: np.inf * a, "they differ by inf at [0]"),
        (lambda a: np.multiply(a, 2, out=a), "changed its argument a in place"),
        (lambda: 1, "TypeError: "),
    ],
)
def test_what_is_wrong_is_said(function, words):
    report = answered(function)
    assert not report
    assert words in repr(report)


def test_what_does_not_end_is_stopped():
    def endless(_a):
        while True:
            pass

    def stubborn(_a):
        while True:
            with contextlib.suppress(Exception):
                endless(_a)

    for function in (endless, stubborn):
        assert "an_answer was stopped after 2 seconds" in repr(answered(function))


def test_the_readers_interruption_is_not_taken_for_an_error():
    def interrupted(_a):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answered(interrupted)


@pytest.mark.parametrize(
    ("came", "expected", "tolerance", "right"),
    [
        (1.0, 1, 0.0, True),
        (np.float64(1.0), 1.0, 0.0, True),
        (np.array(1.0), 1.0, 0.0, True),
        (torch.tensor(1.0), 1.0, 0.0, True),
        (True, 1.0, 0.0, False),
        (None, None, 0.0, True),
        (3, None, 0.0, False),
        ("mean", "mean", 0.0, True),
        (1 + 1e-6, 1.0, 1e-5, True),
        (1 + 1e-4, 1.0, 1e-5, False),
        (np.inf, np.inf, 0.0, True),
        (-np.inf, np.inf, 0.0, False),
        (np.array([np.nan, 1e-6]), np.array([np.nan, 0.0]), 1e-9, False),
        (np.array([1.0, 1e-9]), np.array([1.0, 0.0]), 1e-9, True),  # of the largest
        ((1, TWO), (1, TWO), 0.0, True),
        ([1, TWO], (1, TWO), 0.0, True),
        ((1, -TWO), (1, TWO), 1e-9, False),
        ((1,), (1, TWO), 0.0, False),
        (torch.tensor(TWO), torch.tensor(TWO), 0.0, True),
        (torch.tensor(TWO, requires_grad=True), torch.tensor(TWO), 0.0, True),
        (np.zeros((0, 2)), np.zeros((0, 2)), 0.0, True),
    ],
)
def test_when_two_values_agree(came, expected, tolerance, right):
    assert (difference(came, expected, tolerance) == "") is right


def test_a_number_of_every_type_is_called_so_and_none_is_told_from_it():
    assert difference(3, None, 0.0) == "expected None, came 3"
    for number in (3, 3.0, np.array(3.0), torch.tensor(3.0)):
        assert difference(number, TWO, 0.0).endswith("came a number")


def test_large_arguments_are_described():
    assert told(np.arange(100.0)) == "an array of shape (100,), float64, from 0 to 99"
    assert told([0.0] * 100) == "a list of 100, 0, 0, …"
    assert told((1, 0.5, TWO)) == "(1, 0.5, [1., 2.])"
    assert told([TWO[:, None], 1]) == "[[[1.],\n  [2.]],\n 1]"


def test_the_result_that_is_wrong_is_counted_or_named():
    def wrong(a):
        return a, 0 * a

    both = exercise(lambda a: (a, -a), Case("two numbers", (TWO,)))
    assert "result 2 of 2: they differ by 2 at [1]" in repr(answered(wrong, both))
    named = exercise(lambda a: (a, -a), Case("two numbers", (TWO,)), returns=("same", "other"))
    assert "other: they differ by 2 at [1]" in repr(answered(wrong, named))


def test_a_property_is_told_of_a_result_of_the_expected_form_only():
    assert "The answer is even" in repr(answered(lambda a: 0 * a + 1))
    assert "The answer is even" not in repr(answered(lambda a: (0 * a + 1)[None]))


def test_the_rounding_of_float32_is_told_from_a_mistake():
    thirds = exercise(lambda a: 2 * a, Case("two numbers", (TWO / 3,)))
    assert "as in float32" in repr(
        answered(lambda a: 2.0 * a.astype(np.float32).astype(float), thirds)
    )
    assert "as in float32" not in repr(answered(lambda a: 2.0001 * a, thirds))


def test_a_mistake_as_small_as_the_rounding_of_float32_is_named():
    thirds = exercise(
        lambda a: 2 * a,
        Case("two numbers", (TWO / 3,)),
        slips={"No ε.": lambda a: 2 * a + 1e-8},
    )
    report = repr(answered(lambda a: a + a + 1e-8, thirds))
    assert "look at     No ε." in report
    assert "as in float32" not in report
    single = repr(answered(lambda a: 2.0 * a.astype(np.float32).astype(float), thirds))
    assert "as in float32" in single
    assert "No ε." not in single


def standardized(x, eps=0.0):
    return (x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + eps)


def in_all_company(values, index, m, eps=0.0):
    x_hat = []
    for company in itertools.combinations(np.delete(values, index), m - 1):
        batch = np.array([values[index], *company])
        x_hat.append((batch[0] - batch.mean()) / (batch.std() + eps))
    return float(np.mean(x_hat)), float(np.var(x_hat))


@pytest.mark.parametrize(
    ("name", "function", "in_single"),
    [
        ("standardize", standardized, lambda x: standardized(x.float()).double()),
        (
            "company-noise",
            in_all_company,
            lambda values, *rest: in_all_company(values.astype(np.float32), *rest),
        ),
    ],
)
def test_an_eps_that_is_not_asked_for_is_told_from_float32(name, function, in_single):
    for eps, small in [(1e-5, "10⁻⁵"), (1e-8, "10⁻⁸")]:
        report = repr(answered(lambda *given, eps=eps: function(*given, eps), EXERCISES[name]))
        assert f"nothing is added to the standard deviation, not even {small}" in report
        assert report.count("look at") == 1
    report = repr(answered(in_single, EXERCISES[name]))
    assert "as in float32" in report
    assert "not even" not in report
    assert answered(function, EXERCISES[name])


def test_several_results_are_called_by_their_names():
    cases = Case("two numbers", (TWO,))
    both = exercise(lambda a: (a, -a), cases)
    assert "result 2 of 2: they differ by 2 at [1]" in repr(answered(lambda a: (a, 0 * a), both))
    both = exercise(lambda a: (a, -a), cases, returns=("same", "negative"))
    assert "so          negative: they differ by 2" in repr(answered(lambda a: (a, 0 * a), both))
    assert "a tuple of 2 (same, negative), came an array" in repr(answered(lambda a: a, both))


def test_a_mistake_is_named_if_the_other_cases_bear_it_out():
    # At [1.0] the cube, the square and 0.5 + a/2 are the same.
    mistakes = {"Not a square.": lambda a: a**2, "Not a cube.": lambda a: a**3}
    asked = exercise(lambda a: 2 * a, *DOUBLE.cases(), slips=mistakes)
    report = repr(answered(lambda a: a**3, asked))
    assert "Not a cube." in report
    assert "Not a square." not in report
    assert "look at" not in repr(answered(lambda a: 0.5 + a / 2, asked))


def test_what_a_case_shows_is_said_where_no_mistake_is_named():
    cases = Case("one", (np.ones(1),)), Case("none", (np.ones(0),), advice="It may be empty.")
    asked = exercise(lambda a: a, *cases, slips={"Not by two.": lambda a: 2 * a})
    assert "look at     It may be empty." in repr(answered(lambda a: a[:1] if len(a) else 1, asked))
    assert "look at     It may be empty." in repr(answered(lambda a: a[:1] + a[0] - 1, asked))
    assert "It may be empty." not in repr(answered(lambda a: 2 * a, asked))


def test_what_the_first_case_shows_is_not_said_of_a_result_of_another_form():
    cases = [
        Case("two numbers", (TWO,), advice="Twice."),
        Case("none", (TWO[:0],), advice="Empty."),
    ]
    asked = exercise(lambda a: (2 * a, True), *cases)
    assert "Twice." in repr(answered(lambda a: (a, True), asked))
    assert "Twice." in repr(answered(lambda a: (2 * a, False), asked))
    assert "Twice." in repr(answered(lambda a: a[2], asked))
    assert "Twice." not in repr(answered(lambda a: (2 * a[:, None], True), asked))
    assert "Twice." not in repr(answered(lambda a: (2 * a,), asked))
    assert "Twice." not in repr(answered(lambda a: (2 * a, 1), asked))
    # Where an earlier case had the form, this one shows what is wrong.
    assert "Empty." in repr(answered(lambda a: (2 * a if len(a) else 0, True), asked))
    column = repr(answered(lambda m: np.eye(m)[:, :1] * 2 - 1, EXERCISES["extreme-batch"]))
    assert "came an array of shape (2, 1), float64" in column
    assert "look at" not in column


def evaluated_in_float64(x, mean, var, gamma, beta, eps):
    return gamma * (x.astype(float) - mean) / np.sqrt(var + eps) + beta


def steps_by_log1p_alone(eigenvalues, excess, tolerance):
    log_factor = torch.log1p(-2 / (eigenvalues.min() + eigenvalues.max()) * eigenvalues)
    steps = 1
    while not (excess * torch.exp(2 * steps * log_factor)).sum() <= tolerance * excess.sum():
        steps *= 2
    return steps


def whitened_by_cov(x, eps):
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    return (x - x.mean(dim=0)) @ (vectors / (values + eps).sqrt()) @ vectors.T


@pytest.mark.parametrize(
    ("name", "function", "advice"),
    [
        ("evaluation-by-hand", evaluated_in_float64, "float32 in, float32 out"),
        ("gd-steps", steps_by_log1p_alone, "There log1p(−ηλ) is nan"),
        ("zca", whitened_by_cov, "torch.cov a number"),
    ],
)
def test_a_mistake_that_one_case_shows_gets_its_advice(name, function, advice):
    assert advice in repr(answered(function, EXERCISES[name]))


def test_an_error_is_measured_against_1_where_0_is_expected():
    assert difference(np.array([1e-12, 0.0]), np.zeros(2), 1e-9) == ""
    assert difference(1e-6, 0.0, 1e-9) == "they differ by 1e-06"


def test_a_case_may_allow_more():
    case = Case("one", (TWO,), tolerance=0.1)
    assert answered(lambda a: 2.1 * a, exercise(lambda a: 2 * a, case))
    assert not answered(lambda a: 2.3 * a, exercise(lambda a: 2 * a, case))


def test_outside_the_main_thread_there_is_no_limit_and_no_error():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call, lambda a: a, [1]).result() == Outcome(1)


def test_mistakes_in_calling_check():
    with pytest.raises(ValueError, match="did you mean 'bn-forward'"):
        check("bn-foward", len)
    with pytest.raises(TypeError, match="function: expected a function, got int"):
        check("bn-forward", 3)


def test_a_report_is_true_if_right():
    assert Report("a", 1)
    assert not Report("a", 1, "wrong")
