"""Turn the book's MyST into Markdown that Jupyter and Colab show as it is meant.

The site resolves MyST's roles and directives: references, citations, boxes, glued numbers. A
notebook front end shows them raw. The twins are for reading too, so here they become plain
Markdown with the numbers that the site gives them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from nbformat import NotebookNode
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"

OPENING = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}\s*(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):\s*(?P<value>.*)$")
ROLE = re.compile(r"\{(?P<name>[\w:]+)\}`(?P<content>[^`]+)`")
EQUATION = re.compile(r"^\$\$ *\((?P<label>[\w-]+)\) *$", re.MULTILINE)
FIGURE = re.compile(r"^ +name: (?P<label>fig-[\w-]+)$", re.MULTILINE)
COMMENT = re.compile(r"^% .*\n?", re.MULTILINE)
TITLE_TWICE = re.compile(r" in \*([^*]+)\*\s+of\s+\[\1\]")
TARGET = re.compile(r"^\([\w-]+\)=\n", re.MULTILINE)

CODE_HEADER = "---\njupytext:"  # how a page that has code begins

PROOF_BOXES = (
    *("algorithm", "corollary", "definition", "example", "lemma"),
    *("observation", "property", "proposition", "remark", "theorem"),
)
NUMBERED = {**{f"prf:{name}": name.capitalize() for name in PROOF_BOXES}, "exercise": "Exercise"}


@dataclass(frozen=True)
class Target:
    """Where a label leads: what it is called, and on which page it stands."""

    name: str
    page: str


@dataclass
class Page:
    """One page of the book and what has been seen in its notebook so far."""

    name: str
    values: Mapping[str, float] = field(default_factory=dict)


@cache
def chapter_numbers() -> dict[str, int]:
    """Number of every numbered page, in the order of `_toc.yml`."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    numbered = [part["chapters"] for part in toc["parts"] if part.get("numbered")]
    files = [entry["file"] for chapters in numbered for entry in chapters]
    return {file: number for number, file in enumerate(files, start=1)}


@cache
def titles() -> dict[str, str]:
    """First heading of every page."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")}
    return {name: re.findall(r"^# (.+)$", text, re.MULTILINE)[0] for name, text in texts.items()}


@cache
def bibliography() -> dict[str, Entry]:
    return dict(parse_file(str(BOOK / "references.bib")).entries)


@cache
def targets() -> dict[str, Target]:
    """Everything that a text can refer to, with the number the site gives it."""
    found = {}
    for page, chapter in {**dict.fromkeys(titles(), 0), **chapter_numbers()}.items():
        text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
        prefix = f"{chapter}." if chapter else ""
        for number, label in enumerate(EQUATION.findall(text), start=1):
            found[label] = Target(f"({number})", page)
        for number, label in enumerate(FIGURE.findall(text), start=1):
            found[label] = Target(f"Fig. {prefix}{number}", page)
        counts: Counter[str] = Counter()
        lines = text.splitlines()
        for index, line in enumerate(lines):
            opening = OPENING.match(line)
            if opening and opening["name"] in NUMBERED:
                kind = NUMBERED[opening["name"]]
                counts[kind] += 1
                options, _ = split_options(lines[index + 1 :])
                if "label" in options:
                    found[options["label"]] = Target(f"{kind} {prefix}{counts[kind]}", page)
    return found


def link(page: str) -> str:
    """Address of another page, seen from the folder of the twins: its twin, or its text."""
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    return f"{page}.ipynb" if text.startswith(CODE_HEADER) else f"../{page}.md"


def split_options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Separate the options at a directive's head from its body."""
    options: dict[str, str] = {}
    for index, line in enumerate(lines):
        match = OPTION.match(line)
        if not match:
            return options, lines[index:]
        options[match["key"]] = match["value"]
    return options, []


def cited(key: str, textual: bool) -> str:
    """Authors and year of a source, linked to the paper where it has an address."""
    entry = bibliography()[key]
    names = [" ".join(person.last_names).strip("{}") for person in entry.persons["author"]]
    authors = names[0] if len(names) == 1 else " and ".join(names[:2])
    if len(names) > 2:
        authors = f"{names[0]} et al."
    year = entry.fields["year"]
    label = f"{authors} ({year})" if textual else f"{authors}, {year}"
    if "eprint" in entry.fields:
        return f"[{label}](https://arxiv.org/abs/{entry.fields['eprint']})"
    return f"[{label}](https://doi.org/{entry.fields['doi']})" if "doi" in entry.fields else label


def role(page: Page) -> Callable[[re.Match[str]], str]:
    """What replaces a role such as {eq}`label` on `page`."""

    def replace(match: re.Match[str]) -> str:
        name, content = match["name"], match["content"]
        if name in ("eq", "numref", "prf:ref", "ref"):
            target = targets()[content]
            elsewhere = f" in *{titles()[target.page]}*" if target.page != page.name else ""
            return target.name + elsewhere
        if name == "doc":
            return f"[{titles()[content]}]({link(content)})"
        if name == "glue:text":
            key, _, form = content.partition(":")
            return format(page.values[key], form)
        if name == "math":
            return f"${content}$"
        if name in ("cite:t", "cite:p"):
            sources = [cited(key.strip(), name == "cite:t") for key in content.split(",")]
            return ", ".join(sources) if name == "cite:t" else f"[{'; '.join(sources)}]"
        raise ValueError(f"{page.name}: no plain form for the role {match[0]}")

    return replace


def directive(page: Page, name: str, argument: str, body: list[str]) -> list[str]:
    """A box as a quotation, a folded solution as HTML's own fold."""
    options, body = split_options(body)
    while body and not body[0].strip():
        body = body[1:]
    inner = blocks(page, body)
    if name in NUMBERED:
        number = targets()[options["label"]].name if "label" in options else NUMBERED[name]
        heading = f"**{number}**" + (f" ({argument})" if argument else "")
    elif name == "prf:proof":
        heading = "*Proof.*"
    elif name == "admonition":
        heading = f"**{argument}**"
    elif name == "solution-start":
        return [f"**Solution to {targets()[argument].name}**"]
    elif name == "solution-end":
        return []
    elif name == "solution":
        summary = f"<summary>Solution to {targets()[argument].name}</summary>"
        return ["<details>", summary, "", *inner, "", "</details>"]
    elif name == "tableofcontents":
        return [f"- [{titles()[page]}]({page}.ipynb)" for page in chapter_numbers()]
    else:
        raise ValueError(f"{page.name}: no plain form for the directive {name}")
    return [f"> {line}".rstrip() for line in [heading, "", *inner]]


def blocks(page: Page, lines: list[str]) -> list[str]:
    """Replace every directive among `lines`, the inner ones too."""
    done, index = [], 0
    while index < len(lines):
        opening = OPENING.match(lines[index])
        if not opening:
            done.append(lines[index])
            index += 1
            continue
        end = index + 1
        while lines[end].strip() != opening["fence"]:
            end += 1
        done += directive(page, opening["name"], opening["argument"], lines[index + 1 : end])
        index = end + 1
    return done


def plain(page: Page, text: str) -> str:
    """The plain Markdown of one cell's MyST."""
    text = TARGET.sub("", COMMENT.sub("", text))
    text = EQUATION.sub(lambda match: rf"\tag{{{targets()[match['label']].name[1:-1]}}}$$", text)
    text = ROLE.sub(role(page), "\n".join(blocks(page, text.splitlines()))).strip()
    return TITLE_TWICE.sub(r" of [\1]", text)


def caption(page: Page, cell: NotebookNode) -> str | None:
    """Number and caption of the figure that a cell draws."""
    figure = cell.metadata.get("mystnb", {}).get("figure")
    if not figure:
        return None
    return f"*{targets()[figure['name']].name}.* {plain(page, figure['caption'])}"


def recorded(cells: Iterable[NotebookNode]) -> dict[str, float]:
    """The numbers that the claims in executed cells recorded, by name."""
    return {
        output.metadata["scrapbook"]["name"]: float(next(iter(output.data.values())))
        for cell in cells
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    }
