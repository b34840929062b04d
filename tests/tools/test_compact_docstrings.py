"""Docstrings as the page `api` shows them."""

from tools.compact_docstrings import to_rest, without_shared

TEXT = """\
Normalize.

Parameters
----------
x, y : ``(N, C)``, over
    two lines
eps : a number

Source: a paper.

Examples
--------
>>> 1
1"""
DOCSTRING = TEXT.splitlines()


def test_sections_become_definition_lists():
    text = "\n".join(to_rest(DOCSTRING))
    assert (
        ".. rubric:: Parameters\n\n``x, y``\n    ``(N, C)``, over\n    two lines\n``eps``" in text
    )
    assert "----" not in text
    # Neither a definition nor an example becomes part of what is not.
    assert "\n\nSource: a paper.\n" in text
    assert text.rstrip().endswith(".. rubric:: Examples\n\n>>> 1\n1")


def test_what_a_family_shares_is_said_once():
    seen = {}
    assert without_shared(DOCSTRING, "companion.Norm1d", seen) == DOCSTRING
    second = without_shared(["Normalize images.", *DOCSTRING[1:]], "companion.Norm2d", seen)
    assert second[0] == "Normalize images."
    assert "All else is as for :class:`~companion.Norm1d`." in second
    assert "Parameters" not in second
    assert second[-2:] == [">>> 1", "1"]
    other = [*DOCSTRING[:6], "momentum : a number", *DOCSTRING[6:]]
    assert without_shared(other, "companion.Norm3d", seen) == other
    assert without_shared(DOCSTRING, "companion.Other", seen) == DOCSTRING
