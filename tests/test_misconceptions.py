"""The page of misconceptions: what each has, and that it and its chapters know of each other."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "book"
PAGE = (BOOK / "misconceptions.md").read_text(encoding="utf-8")
CHAPTERS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(BOOK.glob("*.md"))
    if path.stem != "misconceptions"
}
BACK = "{doc}`misconceptions`"
TEX = {r"\hat x": "x̂", "x^{(i)}": "x⁽ⁱ⁾", r"\beta": "β", r"\gamma": "γ", "$": ""}


def sections():
    """By label: heading and text of each statement."""
    parts = re.split(r"^\((said-[\w-]+)\)=\n### (.+)\n", PAGE, flags=re.M)
    texts = (text.split("\n## ")[0] for text in parts[3::3])
    return dict(zip(parts[1::3], zip(parts[2::3], texts, strict=True), strict=True))


SECTIONS = sections()


def boxes():
    """Chapter and statement of every box that asks whether it is true."""
    for chapter, text in CHAPTERS.items():
        for box in text.split("\n:::{admonition} True or false?\n:class: misconception\n\n*")[1:]:
            statement = box.split("*\n")[0].rstrip(".")
            for tex, sign in TEX.items():
                statement = statement.replace(tex, sign)
            yield chapter, statement


def test_the_contents_are_the_headings():
    head = PAGE.split("\n## ")[0]
    contents = re.findall(r"^- \[(“.+”)\]\(#(said-[\w-]+)\)$", head, flags=re.M)
    assert contents == [(heading, label) for label, (heading, _) in SECTIONS.items()]
    assert len(contents) == len(re.findall("^### ", PAGE, flags=re.M))
    groups = re.findall(r"^\*\*\[?([^]*]+)", head, flags=re.M)
    assert groups == re.findall("^## (.+)$", PAGE, flags=re.M)


@pytest.mark.parametrize("label", SECTIONS)
def test_a_statement_has_a_verdict_a_cell_and_a_chapter_that_links_back(label):
    heading, text = SECTIONS[label]
    assert re.fullmatch("“.+[^.]”", heading)
    assert re.match(r"\n((\*[^*\n]+\*\n)+\n)?\*\*[^\n]+\*\*\n", text), "a verdict in one line"
    shown, checked = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, flags=re.S)
    assert not shown.startswith(":tags:")
    assert checked.startswith(":tags: [claims]")
    assert "\nclaim(" in checked
    last = text.strip().splitlines()[-1]
    assert last.startswith("More: ")
    chapters = re.findall(r"\{doc\}`([\w-]+)`", last)
    assert chapters
    assert [chapter for chapter in chapters if BACK not in CHAPTERS[chapter]] == []


@pytest.mark.parametrize(("chapter", "statement"), [*boxes()])
def test_a_chapters_box_is_among_the_misconceptions(chapter, statement):
    headings = [heading.strip("“”") for heading, _ in SECTIONS.values()]
    listed = statement in PAGE or any(heading in statement for heading in headings)
    assert listed, "neither a statement of the page nor in its last list"
    assert f"{{doc}}`{chapter}`" in PAGE
    assert BACK in CHAPTERS[chapter]
