"""Turn the book's MyST into Markdown that Jupyter and Colab show as it is meant.

The site resolves MyST's roles and directives: references, citations, boxes, glued numbers. A
notebook front end shows them raw. The twins are for reading too, so here they become plain
Markdown with the numbers that Sphinx gave them, which the built site's inventory has.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile

from nbformat import NotebookNode
from pybtex.database import Entry, parse_file
from sphinx.util.inventory import InventoryFile

from companion.claims import typeset
from tools.contents import BOOK, ROOT, has_code
from tools.teaching import MADE

INVENTORY = ROOT / "_build" / "html" / "objects.inv"

OPENING = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}\s*(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):\s*(?P<value>.*)$")
ROLE = re.compile(r"\{(?P<name>[\w:]+)\}`(?P<content>[^`]+)`")
EQUATION = re.compile(r"^\$\$ *\((?P<label>[\w-]+)\) *$", re.MULTILINE)
UNSEEN = re.compile(r"^(?:% .*\n?|\([\w-]+\)=\n)", re.MULTILINE)  # comments, and names of places
TITLE_TWICE = re.compile(r" in \*([^*]+)\*\s+of\s+\[\1\]")


@dataclass(frozen=True)
class Target:
    """What the site calls a page, or what a label marks; and its address in the site."""

    name: str
    address: str

    @property
    def page(self) -> str:
        return self.address.partition(".html")[0]


@dataclass
class Page:
    """One page of the book, and the numbers that its cells recorded."""

    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    solved: bool = False  # with the exercises' solutions


@cache
def inventory(kind: str) -> dict[str, Target]:
    """The built book's pages (`kind` is "doc") or labels ("label"), as other books see them.

    Raises
    ------
    FileNotFoundError
        The book has not been built.
    """
    if not INVENTORY.exists():
        raise FileNotFoundError("the book is not built: run `make book`")
    with INVENTORY.open("rb") as file:
        entries = InventoryFile.load(file, "", posixpath.join)[f"std:{kind}"]
    return {name: Target(title, address) for name, (_, _, address, title) in entries.items()}


def targets() -> dict[str, Target]:
    """Everything that has a label and a number, such as (3) or Fig. 1.2, on the site."""
    labels = inventory("label").items()
    return {label: target for label, target in labels if re.search(r"\d\)?$", target.name)}


def titles() -> dict[str, str]:
    """First heading of every page."""
    return {page: target.name for page, target in inventory("doc").items()}


@cache
def bibliography() -> dict[str, Entry]:
    return dict(parse_file(str(BOOK / "references.bib")).entries)


def link(page: str) -> str:
    """A link to another page as the twins' folder sees it: to its twin, or to its text."""
    return f"[{titles()[page]}]({f'{page}.ipynb' if has_code(page) else f'../{page}.md'})"


def cited(key: str, textual: bool) -> str:
    """Authors and year of a source, linked to the paper where it has an address."""
    entry = bibliography()[key]
    names = [" ".join(person.last_names).strip("{}") for person in entry.persons["author"]]
    authors = " and ".join(names) if len(names) <= 2 else f"{names[0]} et al."
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
            return link(content)
        if name == "glue:text":
            key, _, form = content.partition(":")
            return typeset(format(page.values[key], form))
        if name == "math":
            return f"${content}$"
        if name in ("cite:t", "cite:p"):
            sources = [cited(key.strip(), name == "cite:t") for key in content.split(",")]
            return ", ".join(sources) if name == "cite:t" else f"[{'; '.join(sources)}]"
        raise ValueError(f"{page.name}: no plain form for the role {match[0]}")

    return replace


def directive(page: Page, name: str, argument: str, body: list[str]) -> list[str]:
    """A box as a quotation, a folded solution as HTML's own fold."""
    head = [match for line in takewhile(OPTION.match, body) if (match := OPTION.match(line))]
    label = {match["key"]: match["value"] for match in head}.get("label")
    inner = blocks(page, "\n".join(body[len(head) :]).strip("\n").split("\n"))
    if name == "exercise" or (name.startswith("prf:") and name != "prf:proof"):
        number = targets()[label].name if label else name.removeprefix("prf:").capitalize()
        heading = f"**{number}**" + (f" ({argument})" if argument else "")
    elif name == "prf:proof":
        heading = "*Proof.*"
    elif name == "admonition":
        heading = f"**{argument}**"
    elif name == "solution-start":
        return [f"**Solution to {targets()[argument].name}**"]
    elif name == "solution-end" or (name == "solution" and not page.solved):
        return []
    elif name == "solution":
        summary = f"<summary>Solution to {targets()[argument].name}</summary>"
        return ["<details>", summary, "", *inner, "", "</details>"]
    elif name == "dropdown":
        return ["<details>", f"<summary>{argument}</summary>", "", *inner, "", "</details>"]
    elif name in MADE:
        return blocks(page, "\n".join(MADE[name](argument)).split("\n"))
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
    text = UNSEEN.sub("", text)
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
