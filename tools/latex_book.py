"""The book as LaTeX: a Sphinx extension that only `tools.build_pdf` loads.

Sphinx makes chapters of the sections of the first page. Here every page is a chapter, numbered as
on the site, so that a theorem or an equation is cited by the same number from either. The same
holds for a PDF of one chapter; there, what it cites of other chapters is named and not linked.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.latex import LaTeXBuilder
from sphinx.builders.latex.nodes import thebibliography
from sphinx.builders.latex.theming import Theme
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node, solution_node
from sphinx_proof.nodes import NODE_TYPES, proof_node
from sphinxcontrib.bibtex.nodes import raw_latex

from tools.plain_markdown import targets, titles
from tools.publication import addresses

BIBLIOGRAPHY = "bibliography"
HIDDEN = "tag_hide-input"
LONG_TABLE = 30  # rows, from which on Sphinx breaks a table at the end of a page
WIDE_COLUMN = 50  # characters, beyond which a column is not wider than another
SHORT_BOX = 28  # lines, up to which a box with code is kept together
# How sphinxcontrib-bibtex writes a link to a source, in LaTeX.
CITATION = re.compile(rf"\\hyperlink\{{cite\.{BIBLIOGRAPHY}:(\w+)\}}")


def raw(latex: str) -> nodes.raw:
    return nodes.raw("", latex, format="latex")


class BookBuilder(LaTeXBuilder):
    """Sphinx's own, but for how the pages of a document are put together."""

    def assemble_doctree(
        self, indexfile: str, toctree_only: bool, appendices: list[str]
    ) -> nodes.document:
        del toctree_only, appendices
        tree = new_document("<latex output>")
        tree["docname"] = indexfile
        book = nodes.section("", nodes.title("", titles()[indexfile]))
        self.docnames = set()
        if indexfile == self.config.root_doc:
            book += self._whole(indexfile)
        else:
            book += self._page(indexfile)
            if indexfile != BIBLIOGRAPHY:
                book += self._page(BIBLIOGRAPHY)
        tree += book
        self._empty_sources()
        self.env.resolve_references(tree, indexfile, self)
        return tree

    def get_contentsname(self, indexfile: str) -> str:
        """Not the name of the first part, which Sphinx would take."""
        del indexfile
        return "Contents"

    def update_doc_context(self, title: str, author: str, theme: Theme) -> None:
        """A chapter alone begins with its text."""
        super().update_doc_context(title, author, theme)
        whole = self.config.root_doc in self.docnames
        defaults = self.config.latex_elements
        for element in ("maketitle", "tableofcontents"):
            self.context[element] = defaults[element] if whole else r"\pagestyle{normal}"

    def _empty_sources(self) -> None:
        """sphinxcontrib-bibtex fills its nodes once more for every document."""
        for bibliography in self.env.get_domain("cite").bibliographies.values():  # type: ignore[attr-defined]
            for source in bibliography.citation_nodes.values():
                source.children.clear()

    def _whole(self, root: str) -> Iterator[nodes.Node]:
        yield from self._page(root)
        for part in self.config.external_site_map.root.subtrees:
            kind, _, name = part.caption.rpartition(" · ")
            star = "" if kind else "*"
            yield raw(f"\\part{star}{{{name}}}")
            if star:
                yield raw(f"\\addcontentsline{{toc}}{{part}}{{{name}}}")
            for page in part.files():
                yield from self._page(page)

    def _page(self, name: str) -> Iterator[nodes.Node]:
        """One page as a chapter, with the number that it has on the site."""
        self.docnames = {*self.docnames, name}
        number = self.env.toc_secnumbers.get(name, {}).get("")
        if number:
            yield raw(f"\\setcounter{{secnumdepth}}{{0}}\\setcounter{{chapter}}{{{number[0] - 1}}}")
        else:
            yield raw("\\setcounter{secnumdepth}{-1}\\setcounter{chapter}{0}")
        page = addnodes.start_of_file("", *self.env.get_doctree(name).children, docname=name)
        for section in page.findall(nodes.section):
            section["docname"] = name
        for toctree in list(page.findall(addnodes.toctree)):
            toctree.parent.remove(toctree)
        if name == BIBLIOGRAPHY:  # LaTeX gives the list of sources its heading
            [section] = [child for child in page.children if isinstance(child, nodes.section)]
            page[:] = section.children[1:]
        yield page


class ElsewhereByName(SphinxPostTransform):
    """References to pages that this document does not hold: their name, as the site has it."""

    default_priority = 3  # before references are resolved, and before exercises rename theirs
    formats = ("latex",)

    def run(self, **_options: Any) -> None:
        here = self.app.builder.docnames  # type: ignore[attr-defined]
        for reference in list(self.document.findall(addnodes.pending_xref)):
            target = reference["reftarget"]
            if reference["reftype"] == "doc" and target in titles():
                page, name = target, titles()[target]
            elif target in targets():
                page, name = targets()[target].page, targets()[target].name
            else:
                continue
            if page in here:
                continue
            text: nodes.Node = nodes.Text(name)
            if reference["reftype"] == "doc":
                text = nodes.emphasis("", name)
            if address := addresses().page(page):
                text = nodes.reference("", "", text, refuri=address)
            reference.replace_self(text)


class BoxesForLatex(SphinxPostTransform):
    """Theorems, proofs, exercises and solutions as what LaTeX's writer knows; hidden code away."""

    default_priority = 400  # when references, numbers and titles are resolved
    formats = ("latex",)

    def run(self, **_options: Any) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if HIDDEN in cell["classes"]:
                hidden = [child for child in cell if "cell_input" in child.get("classes", [])]
                for child in hidden:
                    cell.remove(child)
        for proof in list(self.document.findall(proof_node)):
            proof.replace_self([raw("\\begin{bookproof}"), *proof[0], raw("\\end{bookproof}")])
        for kind in set(NODE_TYPES.values()):
            for box in list(self.document.findall(kind)):
                self._replace(box, f"{self._page_of(box)}:{box['label']}", self._number(box))
        for kind in (exercise_enumerable_node, exercise_node):
            for box in list(self.document.findall(kind)):
                self._replace(box, f"exercise:{box['label']}", "")
        for box in list(self.document.findall(solution_node)):
            self._replace(box, f"{self._page_of(box)}:{box['label']}", "")

    def _page_of(self, node: nodes.Node) -> str:
        while not isinstance(node, addnodes.start_of_file):
            node = node.parent
        return str(node["docname"])

    def _number(self, box: nodes.Element) -> str:
        numbers = self.env.toc_fignumbers[self._page_of(box)][box["countertype"]]
        number = ".".join(map(str, numbers[box["ids"][0]]))
        return f"{box['realtype'].title()} {number}"

    def _replace(self, box: nodes.Element, label: str, number: str) -> None:
        title, *body = box.children
        heading = nodes.title("", nodes.Text(number), *title.children)
        inner = [node for part in body for node in _unwrapped(part)]
        admonition = nodes.admonition("", heading, *inner)
        anchor = f"\\phantomsection\\label{{\\detokenize{{{label}}}}}"
        together = raw(f"\\Needspace{{{_lines(admonition)}\\baselineskip}}")
        box.replace_self([together, raw(anchor), admonition])


class LongTablesWrap(SphinxPostTransform):
    """A table that goes over several pages: columns as wide as what they hold asks for.

    Sphinx would set each cell on one line, however long.
    """

    default_priority = 400
    formats = ("latex",)

    def run(self, **_options: Any) -> None:
        for table in list(self.document.findall(nodes.table)):
            rows = list(table.findall(nodes.row))
            if len(rows) <= LONG_TABLE or "colwidths-given" in table["classes"]:
                continue
            table["classes"].append("colwidths-given")
            for column, spec in enumerate(table.findall(nodes.colspec)):
                cells = [row[column].astext() for row in rows]
                lengths = sorted(map(len, cells))
                most, word = lengths[len(cells) * 9 // 10], max(map(len, " ".join(cells).split()))
                spec["colwidth"] = max(word, min(most, WIDE_COLUMN))


class OnlyWhatIsCited(SphinxPostTransform):
    """A chapter's list of sources holds what the chapter cites."""

    default_priority = 800  # when the list is made, at 750
    formats = ("latex",)

    def run(self, **_options: Any) -> None:
        if self.document["docname"] in (self.config.root_doc, BIBLIOGRAPHY):
            return
        cited = {
            match[1]
            for link in self.document.findall(raw_latex)
            if (match := CITATION.search(link.rawsource))
        }
        for sources in list(self.document.findall(thebibliography)):
            for source in list(sources):
                if not cited.intersection(source["ids"]):
                    sources.remove(source)
            if not len(sources):
                sources.parent.remove(sources)


def _lines(box: nodes.Element) -> int:
    """About how many lines a box takes, if it shall not be parted; else 0.

    LaTeX cannot break code inside a box, and may have it run over the end of the page.
    """
    code = [block.astext().count("\n") + 2 for block in box.findall(nodes.literal_block)]
    text = [len(paragraph.astext()) // 95 + 1 for paragraph in box.findall(nodes.paragraph)]
    lines = sum(code) + sum(text) + 3 * len(list(box.findall(nodes.math_block))) + 2
    return lines if code and lines <= SHORT_BOX else 0


def _unwrapped(node: nodes.Node) -> list[nodes.Node]:
    """The content of a box: its section has no title, and would open a level in LaTeX."""
    return list(node.children) if isinstance(node, nodes.section) else [node]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_builder(BookBuilder, override=True)
    for transform in (ElsewhereByName, BoxesForLatex, LongTablesWrap, OnlyWhatIsCited):
        app.add_post_transform(transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
