"""Words that lead to the glossary: a Sphinx extension.

Where a page first uses a term of the page `glossary` in its running text, the term becomes a link
to its entry, which previews.js shows beside it. A plural, and a capital at the start of a sentence,
are the same term. One with a remark in brackets, such as `set (of a cache)`, has everyday meanings
too: it is a link as it stands, and only on the pages that its entry leads to.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node, solution_node

PAGE = "glossary"
LISTS = {PAGE, "api", "bibliography", "notation"}  # pages without running text
# What asks the reader, what sums up beforehand, what is laid out in columns or comes from a cell.
SECTIONS = {"Questions", "Exercises", "Going further"}
CLASSES = {"asks", "objectives", "cell"}
BOXES = (exercise_node, exercise_enumerable_node, solution_node, nodes.table, nodes.figure)
WORDS = (nodes.paragraph, nodes.emphasis, nodes.strong)
QUALIFIED = re.compile(r"(?P<word>.+) \(.+\)")


@dataclass(frozen=True)
class Term:
    """What may stand in a text, and where it leads."""

    word: str
    entry: int
    anchor: str = ""
    pages: frozenset[str] | None = None  # None: all

    @cached_property
    def pattern(self) -> str:
        first, rest = self.word[0], re.escape(self.word[1:])
        if first.islower():
            first = f"[{first}{first.upper()}]"
        rest = re.sub(r"\\?[ -]", "[ -]", rest)
        if self.pages is not None:
            return first + rest
        plural = rf"{rest[:-1]}(?:y|ies)" if rest.endswith("y") else rf"{rest}(?:s|es)?"
        return first + plural


class Vocabulary:
    """Terms, the longest of which is found where several begin."""

    def __init__(self, terms: list[Term]) -> None:
        self.terms = sorted(terms, key=lambda term: -len(term.word))
        words = "|".join(f"({term.pattern})" for term in self.terms)
        self.pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")

    def found(self, text: str) -> Iterator[tuple[re.Match[str], Term]]:
        for match in self.pattern.finditer(text):
            yield match, self.terms[(match.lastindex or 0) - 1]

    def on(self, page: str) -> "Vocabulary":
        return Vocabulary([term for term in self.terms if term.pages is None or page in term.pages])


def terms(glossary: nodes.document) -> Iterator[Term]:
    """The terms of the page, with the pages that their entries lead to."""
    items = glossary.findall(nodes.definition_list_item)
    for number, item in enumerate(items):
        links = item.findall(addnodes.pending_xref)
        pages = frozenset(link["reftarget"] for link in links if link["refdomain"] == "doc")
        for term in item.findall(nodes.term):
            qualified = QUALIFIED.fullmatch(term.astext())
            word = qualified["word"] if qualified else term.astext()
            yield Term(word, number, term["ids"][0], pages if qualified else None)


@cache
def vocabulary(env: BuildEnvironment) -> Vocabulary:
    return Vocabulary(list(terms(env.get_doctree(PAGE))))


def apart(node: nodes.Node) -> bool:
    """Whether a node is part of what is no running text."""
    while node := node.parent:
        if isinstance(node, BOXES) or CLASSES.intersection(node.get("classes", [])):
            return True
        if isinstance(node, nodes.section) and node[0].astext() in SECTIONS:
            return True
    return False


def hidden(node: nodes.Node) -> bool:
    """Whether a reader has to open a box to see the node."""
    while node := node.parent:
        if node.get("design_component") == "dropdown":
            return True
    return False


def running(document: nodes.document) -> Iterator[nodes.Text]:
    """The pieces of the running text, and after them those in boxes that are closed."""
    paragraphs = [each for each in document.findall(nodes.paragraph) if not apart(each)]
    for paragraph in sorted(paragraphs, key=hidden):
        for text in list(paragraph.findall(nodes.Text)):
            parent = text.parent
            while isinstance(parent, WORDS) and parent is not paragraph:
                parent = parent.parent
            if parent is paragraph:
                yield text


class LinkTerms(SphinxPostTransform):
    default_priority = 140  # before boxes are closed
    formats = ("html",)

    def run(self, **_options: object) -> None:
        page = self.env.docname
        if page in LISTS or PAGE not in self.env.found_docs:
            return
        words = vocabulary(self.env).on(page)
        address = self.app.builder.get_relative_uri(page, PAGE)
        linked: set[int] = set()
        for text in running(self.document):
            pieces: list[nodes.Node] = []
            end = 0
            for match, term in words.found(text):
                if term.entry not in linked:
                    linked.add(term.entry)
                    link = {"refuri": f"{address}#{term.anchor}", "internal": True}
                    pieces.append(nodes.Text(text[end : match.start()]))
                    pieces.append(nodes.reference("", match[0], **link, classes=["term"]))
                    end = match.end()
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
