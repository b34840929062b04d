"""Which words of a page lead to the glossary."""

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from sphinx import addnodes

from tools.glossary_links import Term, Vocabulary, running, terms

WORDS = Vocabulary(
    [
        Term("batch", 0),
        Term("batch normalization", 1),
        Term("mini-batch", 0),
        Term("Hessian", 2),
        Term("frequency", 3),
        Term("set", 4, pages=frozenset({"memory"})),
    ]
)


def found(text, words=WORDS):
    return [(match[0], term.entry) for match, term in words.found(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a batch of batch normalization", [("batch", 0), ("batch normalization", 1)]),
        ("Batches, mini batches", [("Batches", 0), ("mini batches", 0)]),
        ("the batch's mean, full-batch, batched", [("batch", 0)]),
        ("a Hessian, no hessian", [("Hessian", 2)]),
        ("frequencies", [("frequencies", 3)]),
        ("the set", [("set", 4)]),
        ("Set it, it sets", [("Set", 4)]),
    ],
)
def test_a_term_is_found_whole_and_the_longest_first(text, expected):
    assert found(text) == expected


def test_a_term_with_a_remark_is_one_on_the_pages_of_its_entry():
    assert found("the set", WORDS.on("memory")) == [("set", 4)]
    assert found("the set, a batch", WORDS.on("depth")) == [("batch", 0)]


def test_terms_are_read_off_the_page():
    link = addnodes.pending_xref("", nodes.Text("here"), refdomain="doc", reftarget="memory")
    definition = nodes.definition("", nodes.paragraph("", "", nodes.Text("See "), link))
    names = [nodes.term("", text, ids=[f"term-{text[:3]}"]) for text in ("set (of a cache)", "way")]
    page = nodes.document("", "")
    page += addnodes.glossary("", nodes.definition_list_item("", *names, definition))
    assert list(terms(page)) == [
        Term("set", 0, "term-set", frozenset({"memory"})),
        Term("way", 0, "term-way"),
    ]


def test_running_text_is_what_tells_and_what_is_open_comes_first():
    page = publish_doctree(
        """
Title
=====

First *stressed* ``code`` `link <a.html>`_

.. container:: box

   In a box

.. container:: asks

   Asked

=====  =====
Table  cells
=====  =====

* an item

Exercises
---------

An exercise
""",
        settings_overrides={"doctitle_xform": False, "report_level": 5},
    )
    box = next(each for each in page.findall(nodes.container) if "box" in each["classes"])
    box["design_component"] = "dropdown"
    text = [str(each).strip() for each in running(page)]
    assert [each for each in text if each] == ["First", "stressed", "an item", "In a box"]
