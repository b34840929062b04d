import math
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from companion.claims import GLUE_PREFIX, claim, in_print, measurement, typeset


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"at_least": 2}, "at least 2"),
        ({"at_most": 4}, "at most 4"),
        ({"at_least": 2, "at_most": 4}, "between 2 and 4"),
        ({"about": 3.1, "within": 0.05}, "3.1 ± 5 %"),
        ({"about": 3}, "3"),
        ({"about": 3, "within": 1e-9}, "3, exact to rounding"),
        ({"at_least": 2.5e-7}, "at least 2.5 · 10⁻⁷"),
        ({"at_least": -5, "at_most": 20_000}, "between −5 and 20,000"),
    ],
)
def test_a_number_in_its_range_is_printed(capsys, bounds, expected):
    claim("answer", 3, **bounds)
    assert capsys.readouterr().out == f"✓ answer = 3, asserted: {expected}\n"


def test_an_error_that_should_be_0_is_called_so(capsys):
    claim("error", 3e-16, at_most=1e-12)
    said = "✓ error = 3 · 10⁻¹⁶, asserted: 0, exact to rounding (at most 10⁻¹²)\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (0, "0"),
        (-8, "−8"),
        (1 / 3, "0.3333"),
        (0.000321, "0.000321"),
        (1024, "1024"),
        (2e4, "20,000"),
        (123456, "123,456"),
        (123456.7, "123,500"),
        (2.4e12, "2.4 · 10¹²"),
        (1e-12, "10⁻¹²"),
        (-1e-5, "−10⁻⁵"),
        (math.inf, "inf"),
    ],
)
def test_numbers_read_as_in_print(number, printed):
    assert in_print(number) == printed


@pytest.mark.parametrize(
    ("formatted", "printed"),
    [
        ("-0.50", "−0.50"),
        ("1.50e-08", "1.50 · 10⁻⁸"),
        ("-1e+12", "−10¹²"),
        ("12 %", "12 %"),
        ("1.0e+02", "1.0 · 10²"),
    ],
)
def test_what_format_makes_of_a_number_is_set_in_type(formatted, printed):
    assert typeset(formatted) == printed


def test_a_measurement_is_printed_and_bounds_nothing(capsys):
    measurement("time", 3.21987, unit="µs")
    measurement("speed", 2e4)
    said = "· time ≈ 3.22 µs, measured\n· speed ≈ 20,000, measured\n"
    assert capsys.readouterr().out == said


def test_the_notebooks_tests_compare_no_number_that_varies(capsys):
    config = ConfigParser()
    config.read(Path(__file__).with_name("nbval_sanitize.cfg"), encoding="utf-8")
    regex, replace = config["approximate"]["regex"], config["approximate"]["replace"]
    outputs = []
    for number in (3.1e-9, -12_345, 0.5):
        claim("error", number, at_most=9, varies=True)
        measurement("time", number, unit="µs")
        print(f"rate ≈ {number:.3e} steps")
        outputs.append(re.sub(regex, replace, capsys.readouterr().out))
    assert set(outputs) == {
        "✓ error ≈ NUMBER, asserted: at most 9\n· time ≈ NUMBER, measured\nrate ≈ NUMBER steps\n"
    }


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


@pytest.mark.parametrize("bound", [0, -1, -math.inf, math.inf])
def test_a_bound_that_no_wrong_number_leaves_is_refused(bound):
    with pytest.raises(ValueError, match="claim 'answer': expected"):
        claim("answer", 3, at_least=bound)


@pytest.mark.parametrize(("call", "value"), [("claim", "at_most=1"), ("measurement", "unit='µs'")])
def test_in_a_notebook_the_number_is_recorded_for_glue(call, value):
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        with capture_output() as captured:
            shell.run_cell(f"from companion.claims import *; {call}('answer', 1 / 3, {value})")
    finally:
        InteractiveShell.clear_instance()
    [output] = captured.outputs
    assert output.data == {f"{GLUE_PREFIX}text/plain": repr(1 / 3)}
    assert output.metadata == {"scrapbook": {"name": "answer", "mime_prefix": GLUE_PREFIX}}
