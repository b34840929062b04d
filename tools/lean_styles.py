"""One style sheet from several: the rules that pages can use, and the icons that those rules show.

A rule stays if every class and id in its selector is a word of some page's markup, or of a script
that may add it later. What else a selector asks for (elements, attributes, states) counts as met.
"""

import base64
import logging
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import tinycss2
from fontTools import subset
from tinycss2.ast import AtRule, Comment, Node, QualifiedRule

# It reports every table of every font.
logging.getLogger(subset.__name__).setLevel(logging.WARNING)

NAMES = re.compile(r'\b(?:class|id)="([^"]*)"')
OWN = re.compile(r"<script\b[^>]*>(.*?)</script>|\bstyle=\"([^\"]*)\"", re.DOTALL)
WORD = re.compile(r"[A-Za-z_][\w-]*")
GROUPING = {"media", "supports", "layer", "container"}
VARIABLE = re.compile(r"var\(\s*(--[\w-]+)")
ESCAPED = re.compile(r"\\([0-9a-f]{3,6})")
# What selects a weight of the icon font: a face stays only if a rule for it does.
FACES = {"fa-solid-900": "", "fa-regular-400": ".fa-regular", "fa-brands-400": ".fa-brands"}


def words_of_markup(html: str) -> set[str]:
    """The classes and ids of a page, and the words of its own scripts and styles."""
    found = {word for names in NAMES.findall(html) for word in names.split()}
    return found.union(*(words_of_script(" ".join(own)) for own in OWN.findall(html)))


def words_of_script(script: str) -> set[str]:
    return set(WORD.findall(script))


def required(selector: list[Node]) -> Iterator[str]:
    """The classes and ids without which a selector matches nothing; those in :not() are not."""
    previous: Node | None = None
    for token in selector:
        is_class = token.type == "ident" and previous == "."
        if is_class or token.type == "hash":
            yield token.value
        previous = token


def split(tokens: list[Node]) -> list[list[Node]]:
    """A list of selectors at its commas."""
    parts: list[list[Node]] = [[]]
    for token in tokens:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def used_rule(rule: QualifiedRule, words: set[str]) -> str:
    kept = [part for part in split(rule.prelude) if words.issuperset(required(part))]
    if not kept:
        return ""
    selectors = ",".join(tinycss2.serialize(part).strip() for part in kept)
    return f"{selectors}{{{tinycss2.serialize(rule.content).strip()}}}"


def used_rules(nodes: Iterable[Node], words: set[str]) -> Iterator[str]:
    """Style rules that `words` can meet, in order; licences and other rules as they are."""
    for node in nodes:
        if isinstance(node, QualifiedRule):
            yield used_rule(node, words)
        elif isinstance(node, AtRule) and node.lower_at_keyword in GROUPING and node.content:
            inner = "".join(used_rules(tinycss2.parse_rule_list(node.content, True, True), words))
            if inner:
                yield f"@{node.at_keyword}{tinycss2.serialize(node.prelude)}{{{inner}}}"
        elif isinstance(node, AtRule) or (isinstance(node, Comment) and node.value[:1] == "!"):
            yield node.serialize()


def without_unused_variables(css: str, words: set[str]) -> str:
    """Less the custom properties that neither another declaration nor a script reads."""
    declaration = re.compile(r"""(--[\w-]+)\s*:(?:"[^"]*"|'[^']*'|[^;{}"'])*(;|(?=\}))""")
    while True:
        read = set(VARIABLE.findall(css)) | {f"--{word}" for word in words}

        def kept(match: re.Match[str], read: set[str] = read) -> str:
            return match[0] if match[1] in read else ""

        shorter = declaration.sub(kept, css)
        if shorter == css:
            return css
        css = shorter


def glyphs_of(font: Path, characters: set[int]) -> str:
    """A font with these characters only, as a data URL; empty if it has none of them."""
    options = subset.Options(flavor="woff", layout_features=[], hinting=False)
    loaded = subset.load_font(font, options)
    present = characters & set(loaded.getBestCmap())
    if not present:
        return ""
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=present)
    subsetter.subset(loaded)
    written = BytesIO()
    subset.save_font(loaded, written, options)
    encoded = base64.b64encode(written.getvalue()).decode("ascii")
    return f"url(data:font/woff;base64,{encoded}) format('woff')"


def with_icons(css: str, fonts: Path) -> str:
    """The icon fonts' faces, each with the glyphs that the style sheet shows."""
    shown = {int(code, 16) for code in ESCAPED.findall(css)}
    shown |= {ord(character) for character in css if "\ue000" <= character <= "\uf8ff"}
    for name, selector in FACES.items():
        face = re.search(rf"@font-face\s*{{[^}}]*{name}[^}}]*}}", css)
        if face is None:
            continue
        source = glyphs_of(fonts / f"{name}.ttf", shown) if selector in css else ""
        kept = face[0].partition("src:")[0] + f"src:{source}}}" if source else ""
        css = css.replace(face[0], kept)
    return css


def bundle(sources: list[Path], words: set[str], fonts: Path) -> str:
    """One style sheet from several.

    Parameters
    ----------
    sources
        style sheets, in order
    words
        every class and id of the pages, and every word of their scripts
    fonts
        the folder of the icon fonts
    """
    rules: list[str] = []
    for path in sources:
        sheet = path.read_text(encoding="utf-8")
        rules += used_rules(tinycss2.parse_stylesheet(sheet, skip_whitespace=True), words)
    return with_icons(without_unused_variables("\n".join(filter(None, rules)), words), fonts)
