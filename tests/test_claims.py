import math

import pytest

from companion.claims import GLUE_PREFIX, claim


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"at_least": 2}, "at least 2"),
        ({"at_most": 4}, "at most 4"),
        ({"at_least": 2, "at_most": 4}, "between 2 and 4"),
        ({"about": 3.1, "within": 0.05}, "3.1 ± 5 %"),
        ({"about": 3}, "3"),
    ],
)
def test_a_number_in_its_range_is_printed(capsys, bounds, expected):
    claim("answer", 3, **bounds)
    assert capsys.readouterr().out == f"✓ answer = 3, asserted: {expected}\n"


def test_a_number_that_varies_is_marked(capsys):
    claim("answer", 3.14159, at_least=3, varies=True)
    assert "answer ≈ 3.142," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (1.9, {"at_least": 2}),
        (4.1, {"at_most": 4}),
        (-1.1, {"about": -1, "within": 0.05}),
        (math.nan, {"at_most": 4}),
        (3.0001, {"about": 3}),
    ],
)
def test_a_number_out_of_its_range_fails(value, bounds):
    with pytest.raises(AssertionError, match=r"answer: expected .*, got"):
        claim("answer", value, **bounds)


def test_a_negative_value_may_be_compared():
    claim("answer", -1.02, about=-1, within=0.05)


def test_a_claim_without_a_range_is_refused():
    with pytest.raises(ValueError, match="expected at_least, at_most or about"):
        claim("answer", 3)


def test_in_a_notebook_the_number_is_recorded_for_glue():
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        with capture_output() as captured:
            shell.run_cell("from companion.claims import claim; claim('answer', 1 / 3, at_most=1)")
    finally:
        InteractiveShell.clear_instance()
    [output] = captured.outputs
    assert output.data == {f"{GLUE_PREFIX}text/plain": repr(1 / 3)}
    assert output.metadata == {"scrapbook": {"name": "answer", "mime_prefix": GLUE_PREFIX}}
