"""What a page keeps closed, and numbers that lead to their checks: a Sphinx extension.

The cell that checks numbers is one line on the page, and so is a solution: a `<details>`, which
opens by mouse, by keyboard, and where a link leads into it. A number that the text quotes links to
its check, which previews.js shows beside it. A cell that only draws shows its drawing.
"""

import ast
import re
from html import escape
from typing import Any

from docutils import nodes
from myst_nb.ext.glue.domain import NbGlueDomain
from myst_nb.ext.glue.roles import PasteTextRole
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_design.dropdown import dropdown_main, dropdown_title
from sphinx_exercise.nodes import solution_node

from companion.claims import typeset

# What `claim` and `measurement` print.
LINE = re.compile(r"(?P<mark>[✓·]) (?P<name>\S+) [=≈] .*, (?:asserted: .*|measured)")


class Quoted(PasteTextRole):  # type: ignore[misc]
    """A number in the text, as in print; a link to its check."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        numbers, messages = super().run()
        check = f"#check-{self.text.rpartition(':')[0]}"
        link = {"refuri": check, "internal": True, "classes": ["check"]}
        return [nodes.reference("", typeset(each.astext()), **link) for each in numbers], messages


def box(title: list[nodes.Node], content: list[nodes.Node], **attributes: Any) -> nodes.Element:
    return dropdown_main("", dropdown_title("", "", *title), *content, opened=False, **attributes)


def counted(number: int, what: str, done: str) -> list[str]:
    return [f"{number} {what}{'s' if number != 1 else ''}{done}"] if number else []


def summary(source: str, lines: list[str]) -> str:
    """What was checked by a cell, and what else it states: ✓ 4 numbers checked."""
    asserted = sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))
    numbers = sum(line.startswith("✓") for line in lines)
    checks = counted(asserted, "more check" if numbers else "check", "")
    said = counted(numbers, "number", " checked") + checks
    measured = counted(len(lines) - numbers, "number", " measured")
    return ("✓ " if said else "· ") + ", ".join(said + measured)


def draws(source: str) -> bool:
    """Whether a cell is one call, of what draws."""
    body = ast.parse(source).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Call)


def unseen(source: str) -> nodes.raw:
    """Code that the page does not show, and yet can run."""
    return nodes.raw("", f'<script type="text/x-python">{source}</script>', format="html")


def output(text: str) -> nodes.raw:
    """Printed lines, each number with the name that its quotations link to."""
    named = LINE.sub(
        r'<span class="checked" id="check-\g<name>">\g<0></span>', escape(text.strip("\n"))
    )
    block = f'<div class="highlight"><pre>{named}\n</pre></div>'
    return nodes.raw("", block, format="html", classes=["output", "stream"])


class CloseBoxes(SphinxPostTransform):
    default_priority = 150  # when solutions have their titles, before other code is folded
    formats = ("html",)

    def run(self, **_options: Any) -> None:
        self.marks: dict[str, str] = {}
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code":
                self.close(cell)
        for solution in list(self.document.findall(solution_node)):
            for link in list(solution[0].findall(nodes.reference)):
                link.replace_self(link.children)  # in the bar, it would take the click that opens
            title = solution[0].children
            attributes = {"ids": solution["ids"], "classes": [*solution["classes"], "admonition"]}
            solution.replace_self(box(title, solution[1:], **attributes))
        for link in list(self.document.findall(nodes.reference)):
            if "check" in link["classes"]:
                mark = self.marks.get(link["refuri"].removeprefix("#check-"))
                link["classes"] += ["measured"] if mark == "·" else []
                if not mark:
                    link.replace_self(link.children)

    def close(self, cell: nodes.container) -> None:
        source = cell[0].astext()
        if cell.get("hide_mode") == "input" and draws(source):
            cell[0] = unseen(source)
            del cell["hide_mode"]
        claims = "claims" in cell["cell_metadata"].get("tags", [])
        content, source = (cell.children, source) if claims else ([], "")
        lines = []
        for block in list(cell.findall(nodes.literal_block)):
            if "stream" not in block["classes"]:
                continue
            found = [*LINE.finditer(block.astext())]
            self.marks |= {match["name"]: match["mark"] for match in found}
            lines += [match[0] for match in found]
            rest = block.astext() if claims else LINE.sub("", block.astext())
            if rest.strip():
                block.replace_self(output(rest))
            else:
                block.parent.remove(block)
        if not claims and lines:
            content = [nodes.container("", output("\n".join(lines)), classes=["cell_output"])]
        if content:
            cell.children = [each for each in cell if each not in content]
            cell += box([nodes.Text(summary(source, lines))], content, classes=["claims"])


def setup(app: Sphinx) -> dict[str, bool]:
    NbGlueDomain.roles["text"] = Quoted()
    app.add_post_transform(CloseBoxes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
