"""What a page of MyST says, without its code, mathematics and numbers.

The parser is the book's own, so that what it takes for text is what a reader sees as text.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

ROOT = Path(__file__).parents[2]

# Stands for a formula, a number or a piece of code: a word that is no letter, so never repeated.
GAP = "¤"
# Directives that hold no text. A cell's drawing has a caption and a description, which are text.
NO_TEXT = {"bibliography", "chapters", "eval-rst", "math"}
DIRECTIVE = re.compile(r"\{(?P<name>[\w:-]+)\}\s*(?P<argument>.*)")
OPTION = re.compile(r":[\w-]+:")
TITLED_ROLE = re.compile(r"(?s)(?P<title>.+?)\s*<[^<>]+>")


@dataclass(frozen=True)
class Block:
    """A paragraph, a heading, a cell of a table, a title, a caption or a description.

    Attributes
    ----------
    kind
        "heading", "paragraph", "cell" (of a table), "title" (of a box) or "aside" (a caption, a
        description, or what a question says).
    line
        The line of the file that it begins in, from 1.
    text
        As in the source, line by line, with `GAP` for what is not text.
    """

    kind: str
    line: int
    text: str


@cache
def parser() -> MarkdownIt:
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["parse"]
    config = MdParserConfig(
        enable_extensions=set(settings["myst_enable_extensions"]),
        dmath_double_inline=settings["myst_dmath_double_inline"],
    )
    return create_md_parser(config, RendererHTML)


def said(token: Token) -> str:
    """What the inline tokens say of one block of text."""
    parts = []
    for child in token.children or []:
        match child.type:
            case "text":
                parts.append(child.content)
            case "softbreak" | "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(said(child))
            case "myst_role" if titled := TITLED_ROLE.fullmatch(child.content):
                parts.append(titled["title"])
            case "html_inline" | "footnote_ref":
                pass
            case kind if kind.endswith(("_open", "_close")):
                pass
            case _:  # Code, formulas, references, glued numbers.
                parts.append(GAP)
    return "".join(parts)


def blocks(source: str, first: int = 1) -> Iterator[Block]:
    """Every block of text of `source`, MyST whose first line is line `first` of its file."""
    kind, line = "paragraph", first
    for token in parser().parse(source):
        if token.map:
            line = first + token.map[0]
        match token.type:
            case "heading_open":
                kind = "heading"
            case "th_open" | "td_open":
                kind = "cell"
            case "paragraph_open" | "dt_open":
                kind = "paragraph"
            case "inline":
                yield Block(kind, line, said(token))
            case "fence" | "colon_fence":
                yield from directive(token, line)


def directive(token: Token, line: int) -> Iterator[Block]:
    """The text of a directive whose fence stands in `line`; none of mere code."""
    head = DIRECTIVE.match(token.info)
    if not head or head["name"] in NO_TEXT:
        return
    if head["name"] == "code-cell":
        yield from cell(token.content, line + 1)
        return
    if head["argument"] and not head["name"].startswith("solution"):
        yield Block("title", line, said(parser().parseInline(head["argument"])[0]))
    text, options = without_options(token.content)
    first = line + 1 + options
    yield from (glossary if head["name"] == "glossary" else blocks)(text, first)


def glossary(content: str, first: int) -> Iterator[Block]:
    """Terms, each on a line of its own, and below them, farther right, what they mean."""
    lines = content.split("\n")
    for line, text in enumerate(lines, first):
        if text and not text.startswith(" "):
            yield Block("title", line, said(parser().parseInline(text)[0]))
    meanings = [text if text.startswith(" ") else "" for text in lines]
    yield from blocks(dedent("\n".join(meanings)), first)


def without_options(content: str) -> tuple[str, int]:
    """The content of a directive below its `:name: value`, and how many lines those are."""
    lines = content.split("\n")
    options = next((i for i, text in enumerate(lines) if not OPTION.match(text)), len(lines))
    return "\n".join(lines[options:]), options


def cell(content: str, first: int) -> Iterator[Block]:
    """A drawing's caption and description, and what questions say."""
    if content.startswith("---\n"):
        header, content = content[4:].split("\n---\n", 1)
        yield from asides(yaml.compose(header), first + 1)
        first += header.count("\n") + 3
    if "Questions(" in content:
        code, options = without_options(content)
        first += options
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                text = said(parser().parseInline(node.value)[0])
                yield Block("aside", first + node.lineno - 1, text)


def asides(node: yaml.Node | None, first: int) -> Iterator[Block]:
    """The values of `caption` and `alt`, wherever they stand below `node`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value in ("caption", "alt"):
                text = said(parser().parseInline(value.value)[0])
                yield Block("aside", first + value.start_mark.line, text)
            else:
                yield from asides(value, first)
