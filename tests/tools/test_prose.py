"""What `make lint` finds in prose: each rule in a sentence made for it, and none in code."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.prose import __main__ as prose
from tools.prose import rules
from tools.prose.text import GAP, blocks

ROOT = Path(__file__).parents[2]

PLANTED = {
    "cliches.misc.write_good": "It is the luck of the draw.",
    "house.contractions": "The loss doesn't fall.",
    "house.dashes": "The loss falls — and rises again.",
    "house.easy": "You simply divide by s.",
    "house.exclamations": "The loss falls!",
    "house.filler": "It is worth noting, in other words, that it falls.",
    "house.headings": "# What a Layer does",
    "house.hype": "A powerful layer.",
    "house.lines": "The mean is 0. The variance is 1.",
    "house.long": "So it is " + "and is " * 22 + "not.",
    "house.names": "With pytorch it falls.",
    "house.plain": "Subtract in order to centre.",
    "house.spelling": "Its behavior is normalised.",
    "house.terms": "Each minibatch has a mean.",
    "lexical_illusions": "The mean of the\nthe batch.",
}

PAGE = """\
---
book:
  needs: [simply]
---

# On {eq}`simply`

The mean $simply$ of `simply(x)` and {glue:text}`simply:.1f`, in {ref}`its words <simply>`.
[A link](https://simply.com), <!-- simply --> an ![image](simply.png).

$$
simply
$$ (simply)

(simply)=
:::{admonition} A box
:class: simply

Words of the box.

```{code-cell} ipython3
---
mystnb:
  image:
    alt: A description
      in two lines.
  figure:
    name: simply
    caption: A caption with $simply$.
tags: [simply]
---
simply = "simply"
```
:::

```{code-cell} ipython3
:tags: [simply]

Questions(simply, "A question about "
"something?")
```

```{solution} simply
:class: dropdown

| a `simply` | cell |
|---|---|
| one | two |
```

```{glossary}
a term
its other name
    What $simply$ means.
```
"""


def test_every_rule_finds_what_is_planted_for_it(tmp_path, monkeypatch):
    book = tmp_path / "book"
    book.mkdir()
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = book / "page.md"
    page.write_text("\n\n".join(PLANTED.values()) + "\n", encoding="utf-8")
    lines = page.read_text(encoding="utf-8").split("\n")
    faults = prose.faults(page)
    for name, text in PLANTED.items():
        line = lines.index(text.split("\n")[0]) + 1
        assert any(what.endswith(f"({name})") for number, what in faults if number == line), name
    checks = [*rules.HOUSE, *rules.HEADINGS, *rules.LINES, *rules.SENTENCES]
    assert {check.path for check in checks} <= set(PLANTED), "each has its sentence"


def test_good_prose_passes_and_others_are_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = tmp_path / "book" / "page.md"
    page.parent.mkdir()
    page.write_text(
        "## Where the Jacobian of Adam's step goes\n\n"
        "**1.** These very values lie just below 0.\n"
        "*So far.* The mean-free colours of Fig. 2 are normalized on the spot.\n"
        "Note what BatchNorm and pytorch-image-models do: [pytorch 3](https://a.org/b) has it.\n"
        'They call it "simply magic", and relu(x) a Cauchy–Schwarz inequality; 3 − 2 is 1.\n',
        encoding="utf-8",
    )
    assert prose.faults(page) == []


def test_code_mathematics_and_options_are_no_text():
    said = list(blocks(PAGE))
    assert not any("simply" in block.text for block in said)
    assert [(block.kind, PAGE.split("\n")[block.line - 1][:14]) for block in said] == [
        ("heading", "# On {eq}`simp"),
        ("paragraph", "The mean $simp"),
        ("title", ":::{admonition"),
        ("paragraph", "Words of the b"),
        ("aside", "    alt: A des"),
        ("aside", "    caption: A"),
        ("aside", "Questions(simp"),
        *[("cell", "| a `simply` |")] * 2,
        *[("cell", "| one | two |")] * 2,
        ("title", "a term"),
        ("title", "its other name"),
        ("paragraph", "    What $simp"),
    ]
    assert said[1].text == (f"The mean {GAP} of {GAP} and {GAP}, in its words.\nA link,  an image.")
    assert said[6].text == "A question about something?"


def test_the_command_names_file_line_and_rule(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nThe mean is 0.\nIt is simply 0.\n", encoding="utf-8")
    assert prose.main([str(page)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{page}:4: 'simply': ")
    assert out.endswith(" (house.easy)\n")


@pytest.mark.parametrize(
    ("text", "status"), [("The loder is sep" + "erate.\n", 65), ("The loder.\n", 0)]
)
def test_spelling_knows_the_vocabulary_alone(tmp_path, text, status):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "==> separate" in done.stdout) == (status, bool(status))
