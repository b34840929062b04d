"""One style sheet from several, with the rules that some page can use; fonts cut to its characters.

A rule stays if each class and id in its selector is a word of some page or script. What else a
selector asks for (elements, attributes, states) counts as met.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tinycss2
from fontTools import subset
from tinycss2.ast import AtRule, Comment, Node, QualifiedRule

# It reports every table of every font.
logging.getLogger(subset.__name__).setLevel(logging.WARNING)

WORD = re.compile(r"[A-Za-z_][\w-]*")
LOCAL = re.compile(r"""url\((?!["']?(?:data:|#))["']?([^)"']+)["']?\)""")
GROUPING = {"media", "supports", "layer", "container"}


def required(selector: list[Node]) -> Iterator[str]:
    """The classes and ids without which a selector matches nothing; those in :not() are not."""
    previous: Node | None = None
    for token in selector:
        if token.type == "hash" or (token.type == "ident" and previous == "."):
            yield token.value
        previous = token


def used_rule(rule: QualifiedRule, words: set[str]) -> str:
    selectors: list[list[Node]] = [[]]
    for token in rule.prelude:
        if token == ",":
            selectors.append([])
        else:
            selectors[-1].append(token)
    kept = [tinycss2.serialize(each) for each in selectors if words.issuperset(required(each))]
    return f"{','.join(kept)}{{{tinycss2.serialize(rule.content)}}}\n" if kept else ""


def used_rules(nodes: Iterable[Node], words: set[str]) -> Iterator[str]:
    """Style rules that `words` can meet, in order; licences and other rules as they are."""
    for node in nodes:
        if isinstance(node, QualifiedRule):
            yield used_rule(node, words)
        elif isinstance(node, AtRule) and node.lower_at_keyword in GROUPING and node.content:
            inner = "".join(used_rules(tinycss2.parse_rule_list(node.content, True, True), words))
            yield (
                f"@{node.at_keyword}{tinycss2.serialize(node.prelude)}{{{inner}}}" if inner else ""
            )
        elif not isinstance(node, Comment) or node.value.startswith("!"):
            yield node.serialize()


def cut_sheet(path: Path, words: set[str], folder: Path) -> str:
    """The rules of a style sheet that `words` can meet, with addresses as seen from `folder`."""

    def moved(match: re.Match[str]) -> str:
        return f"url({os.path.relpath(path.parent / match[1], folder)})"

    rules = tinycss2.parse_stylesheet(path.read_text(encoding="utf-8"))
    return LOCAL.sub(moved, "".join(used_rules(rules, words)))


def cut_font(font: Path, characters: set[str]) -> None:
    text = f"--text={''.join(sorted(characters))}"
    subset.main([str(font), text, "--flavor=woff2", "--no-hinting", f"--output-file={font}"])


def cut(static: Path, sheets: list[str], credits: str) -> None:
    """Write `pages.css`, what the pages of a site use of these style sheets, and cut its fonts.

    Parameters
    ----------
    static
        The folder of the site's style sheets, scripts and fonts; the pages are in the one above.
    sheets
        Names in that folder, in the order in which rules count.
    credits
        What stands first in `pages.css`.
    """
    pages = [path.read_text(encoding="utf-8") for path in static.parent.glob("*.html")]
    scripts = [path.read_text(encoding="utf-8") for path in static.rglob("*.js")]
    words = set(WORD.findall("\n".join([*pages, *scripts])))
    rules = "".join(cut_sheet(static / name, words, static) for name in sheets)
    (static / "pages.css").write_text(credits + rules, encoding="utf-8")
    for font in static.rglob("*.woff2"):
        cut_font(font, set().union(rules, *pages))
