"""What chapters ask of their reader, and that they ask for it beforehand."""

import re
from types import SimpleNamespace

import pytest
from sphinx.errors import ExtensionError

from tools import reading
from tools.contents import BOOK, asked, chapter_table, has_code, parts
from tools.prerequisites import drawing
from tools.teaching import plan

CHAPTERS = [
    name
    for part, names in parts().items()
    for name in names
    if part != "Appendices" and has_code(name)
]
LABEL = re.compile(r"^\$\$ \(([\w-]+)\)$|^:label: ([\w-]+)$|^    name: ([\w-]+)$", re.MULTILINE)
REFERENCE = re.compile(r"\{(?:eq|numref|prf:ref)\}`([\w-]+)`")


def text(name):
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_needs_earlier_ones_and_says_what_it_takes_from_later_ones(name):
    asks, place = asked(name), CHAPTERS.index(name)
    assert (
        {"minutes", "needs", "background"}
        <= set(asks)
        <= {*("minutes", "needs", "background", "ahead", "skip")}
    )
    assert set(asks["needs"]) <= set(CHAPTERS[:place])
    ahead = set(asks.get("ahead", []))
    assert ahead <= set(CHAPTERS[place + 1 :])
    for later in CHAPTERS[place + 1 :]:
        labels = {label for match in LABEL.findall(text(later)) for label in match}
        if labels.intersection(REFERENCE.findall(text(name))):
            assert later in ahead
    assert all(f"{{doc}}`{later}`" in text(name) for later in ahead), "it says so"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_minutes_are_those_of_a_text_with_formulas(name):
    body = text(name).split("\n## Exercises\n")[0]
    prose = re.sub(r"(?ms)^```+\{code-cell\}.*?^```+$|^\$\$.*?^\$\$", "", body)
    assert 30 < len(prose.split()) / asked(name)["minutes"] < 120


def test_the_first_page_names_every_chapter():
    sentences = text("intro").split("## What is in the book")[1].split("## ")[0]
    assert [name for name in CHAPTERS if f"{{doc}}`{name}`" not in sentences] == []
    rows = "\n".join(chapter_table())
    assert [name for name in CHAPTERS if f"| {{doc}}`{name}` |" not in rows] == []


def announced(name, source):
    """What `reading` makes of the source of page `name`, and what it then depends on."""
    sources, seen = [source], []
    reading.announce(
        SimpleNamespace(env=SimpleNamespace(note_dependency=seen.append)), name, sources
    )
    return sources[0], seen


def test_a_chapter_says_under_its_title_what_it_asks():
    said, _ = announced("identity", "# Title\n\nText\n")
    assert said.startswith("# Title\n\n:::{admonition} About 20 minutes\n:class: asks\n\nNeeds: ")
    assert "Needs: {doc}`twenty-minutes`; mean" in said
    assert "Looks ahead to {doc}`mini-batch-algorithm` and {doc}`regularization-noise`." in said
    assert said.endswith("\n:::\n\nText\n")
    assert announced("notation", "# Title\n")[0] == "# Title\n"


def test_a_section_to_skip_is_marked_and_must_exist():
    heading = "## A network by hand\n"
    skipped = "## The backward pass, differentiated again\n"
    said, _ = announced("backprop", f"# Title\n{skipped}{heading}### A network by hand, too\n")
    assert said.count("★") == 2
    assert f"{heading}\n:::{{container}} asks\n★" in said
    with pytest.raises(ExtensionError, match=r"backprop\.md: no heading .*A\\ network\\ by\\ hand"):
        announced("backprop", f"# Title\n{skipped}")


def test_the_first_page_follows_the_chapters():
    said, seen = announced("intro", "Before\n\n```{chapters}\n```\n\nAfter\n")
    assert said == "\n".join(["Before\n", *chapter_table(), "\nAfter\n"])
    assert str(BOOK / "identity.md") in seen
    assert announced("notation", "```{code} python\n```\n") == ("```{code} python\n```\n", [])


def test_a_plan_and_the_graph_follow_the_chapters_too():
    asked_for = "```{plan} 6\n```\n\n```{prerequisites}\n```\n"
    said, seen = announced("teaching", asked_for)
    assert said == "\n".join([*plan("6"), "", "```{raw} html", drawing(), "```", ""])
    assert str(BOOK / "identity.md") in seen
