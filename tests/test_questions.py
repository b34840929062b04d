"""Questions: what a chapter may not write, and what a notebook gets of them."""

import html
import json
import re
import sys

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from companion.questions import Choice, Number, Questions, Right, Wrong

MEAN = Right("A mean.", "x̂ has mean 0.")
WIDTH = Wrong("A variance.", "That is what γ changes.")
WHAT = "What does β add?"
CHOICE = Choice(WHAT, WIDTH, MEAN)
# Nothing may be fetched: only what stands in the output runs.
ALONE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def number(answer=2.0, **changes):
    texts = {"why": "So it is.", "otherwise": "Begin with 1."}
    return Number("How many?", answer, **({"within": 0.1} | texts | changes))


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (lambda: Choice(WHAT, WIDTH), f"{WHAT!r}: expected an option that is Right, got none"),
        (lambda: Choice(WHAT, MEAN), f"{WHAT!r}: expected an option that is Wrong, got none"),
        (lambda: Choice(WHAT, MEAN, WIDTH, MEAN), "expected each option once, got 'A mean.' twice"),
        (lambda: Choice(WHAT, MEAN, Wrong("Both.", " ")), "the reason of 'Both.' in 'What does"),
        (
            lambda: Choice(WHAT, MEAN, Wrong("", "No.")),
            f"an option of {WHAT!r}: expected some words",
        ),
        (lambda: Choice("", MEAN, WIDTH), "the question's text: expected some words, got ''"),
        (lambda: Choice(WHAT, MEAN, Wrong("$γ$", "No.")), "mathematics in Unicode, such as σ²"),
        (
            lambda: number(float("nan")),
            "`answer` of 'How many?': expected a finite number, got nan",
        ),
        (lambda: number(within=1), "`within` of 'How many?': expected 0 ≤ within < 1, got 1"),
        (lambda: number(why=""), "`why` of 'How many?': expected some words"),
        (
            lambda: number(otherwise=None),
            "`otherwise` of 'How many?': expected some words, got None",
        ),
        (lambda: number(slips={3: ""}), "the reason of the slip 3 in 'How many?'"),
        (lambda: number(slips={2.3: "No."}), "slips away from 1.8 to 2.2, the right numbers"),
        (lambda: number(slips={1.7: "No."}), "got 1.7 ± 0.1 of it"),
        (lambda: Questions(), "expected one question or more, got none"),
        (lambda: Questions(CHOICE, number(), CHOICE), f"each question once, got {WHAT!r} twice"),
    ],
)
def test_what_is_missing_or_twice_is_named(write, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        write()


@pytest.mark.parametrize("answer", [2, np.float32(2), torch.tensor([[2.0]]), np.array([2.0])])
def test_an_answer_is_a_number_or_a_tensor_of_one(answer):
    (right, _) = number(answer)._as_json()["answers"]
    assert right["range"] == pytest.approx((1.8, 2.2))


@pytest.mark.parametrize("answer", [0.875, -3.0, 0.0, 151, -2e-7])
@pytest.mark.parametrize("within", [0, 0.02])
def test_the_ends_of_a_range_count_and_what_lies_beyond_does_not(answer, within):
    low, high = number(answer, within=within)._as_json()["answers"][0]["range"]
    # As a reader types it, to some digits.
    for end in (answer * (1 - within), answer * (1 + within)):
        assert low <= float(f"{end:.12g}") < high
    beyond = 1.01 * within * abs(answer) or 1e-7 * abs(answer) or 1e-300
    assert not low <= answer - beyond < high
    assert not low <= answer + beyond < high


def test_texts_are_words_and_not_markup():
    option = Wrong("`x < y` & *not* x_{B}^{2} <b>", "No.")
    shown = Choice(WHAT, MEAN, option)._as_json()["answers"][1]["answer"]
    assert shown == (
        "<code>x\u00a0&lt;\u00a0y</code> &amp; <em>not</em> x<sub>B</sub><sup>2</sup> &lt;b&gt;"
    )


def test_an_output_is_the_same_at_every_run_and_gives_no_answer_in_words():
    outputs = [Questions(CHOICE, number())._repr_mimebundle_() for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"text/html", "text/plain"}
    json.dumps(outputs[0])
    words = outputs[0]["text/plain"]
    assert "○ A variance.\n   ○ A mean.\n2. How many?" in words
    paper = outputs[0]["text/html"].partition("<script")[0]
    for answer in ("mean 0", "what γ changes", "So it is"):
        assert answer not in words
        assert answer not in paper


def test_without_the_library_the_questions_are_there_to_read(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("jupyterquiz")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jupyterquiz", None)
    shown = Questions(CHOICE)._repr_mimebundle_()
    assert set(shown) == {"text/plain"}
    assert shown["text/plain"].endswith("It needs `pip install jupyterquiz`.")


@pytest.mark.browser
def test_outputs_live_in_a_frame_of_another_origin_and_fetch_nothing(visit):
    page = visit()
    inside = f'<meta http-equiv="Content-Security-Policy" content="{ALONE}"><body>'
    output = Questions(CHOICE, number())._repr_mimebundle_()["text/html"]
    # Two in one page, as when a cell is copied; and a MathJax that the library would fetch.
    fetching = '<script>MathJax = { version: "3.0" };</script>'
    source = html.escape(inside + fetching + output + output)
    page.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{source}"></iframe>')
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("button", name="Check")).to_have_count(2)
    for which, said in enumerate(frame.get_by_role("status").all()[::2]):
        frame.get_by_text("A variance.").nth(which).click()
        expect(said).to_have_text("No. That is what γ changes.")
