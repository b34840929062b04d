"""Links to a theorem, an exercise, an equation: a Sphinx extension.

Sphinx gives headings, figures and equations a link that shows when the reader points at them;
here theorems and exercises get theirs. And `objects.inv`, which other books link through, knows
pages and sections: here it learns the numbers of equations, figures, theorems and exercises.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.nodes import exercise_enumerable_node
from sphinx_proof.nodes import NODE_TYPES

# A box that its author gave no label has a counted one, which moves when another is put before it.
COUNTED = re.compile(r"(?P<kind>\w+):(.*-)?(?P=kind)-\d+")
BOXES = (*set(NODE_TYPES.values()), exercise_enumerable_node)


def permalink(label: str, kind: str) -> nodes.raw:
    link = f'<a class="headerlink" href="#{label}" title="Link to this {kind}">#</a>'
    return nodes.raw("", link, format="html")


class LinkBoxes(SphinxPostTransform):
    """A link to itself at the end of a box's title."""

    default_priority = 500  # when titles are resolved
    formats = ("html",)

    def run(self, **_options: Any) -> None:
        for kind in BOXES:
            for box in self.document.findall(kind):
                name = box.get("realtype", "exercise")
                if COUNTED.fullmatch(f"{name}:{box['label']}"):
                    continue
                title = next(child for child in box if isinstance(child, nodes.title))
                title += permalink(box["label"], name)


def labels(env: BuildEnvironment) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Label, page, anchor and name of all that has a number of its own."""
    for label, equation in env.get_domain("math").equations.items():  # type: ignore[attr-defined]
        yield label, (equation[0], f"equation-{label}", f"({equation[1]})")
    for page, kinds in env.toc_fignumbers.items():
        for kind in set(kinds) - {"displaymath"}:
            name = "Fig." if kind == "figure" else kind.title()
            for label, number in kinds[kind].items():
                yield label, (page, label, f"{name} {'.'.join(map(str, number))}")


def announce_labels(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Numbers that the inventory lacks; a reference through it reads as the label's number."""
    known = env.get_domain("std").labels  # type: ignore[attr-defined]
    for label, target in labels(env):
        known[label] = target
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(LinkBoxes)
    # After Sphinx has numbered figures and theorems.
    app.connect("env-get-updated", announce_labels, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
