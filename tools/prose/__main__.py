"""Check the prose of pages: `python -m tools.prose [FILE ...]`; without files, of every page."""

import re
import sys
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path

from proselint.registry.checks import Check

from tools.prose.rules import EVERYWHERE, HEADINGS, LINES, SENTENCES, VOCABULARY
from tools.prose.text import GAP, ROOT, Block, blocks

QUOTED = re.compile(r'"[^"]*"|“[^”]*”')  # Others' words.
PAGES = [*sorted(glob("book/*.md", root_dir=ROOT)), "CONTRIBUTING.md", "README.md"]
BETWEEN = [(0, ""), (0, "¶"), (0, "")]


def numbered(block: Block) -> list[tuple[int, str]]:
    text = QUOTED.sub(lambda quoted: GAP + "\n" * quoted[0].count("\n"), block.text)
    return list(enumerate(text.split("\n"), block.line))


def found(checks: Iterable[Check], lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """What `checks` find in numbered lines: the line, the message and the check's name."""
    text = "\n".join(["", *(line for _, line in lines), ""])
    for check in checks:
        for result in check.check_with_flags(text):
            begin, end = result.span
            words = text[begin:end].strip()
            if words.lower() in VOCABULARY:
                continue
            number, _ = lines[text.count("\n", 0, text.index(words, begin)) - 1]
            yield number, f"{result.message} ({result.check_path})"


def faults(path: Path) -> list[tuple[int, str]]:
    """The faults of a page, by line."""
    of_the_book = path.resolve().parent == ROOT / "book"
    faults: list[tuple[int, str]] = []
    page: list[tuple[int, str]] = []
    for block in blocks(path.read_text(encoding="utf-8")):
        lines = numbered(block)
        page += [*lines, *BETWEEN]
        faults.extend(found(HEADINGS if block.kind == "heading" else SENTENCES, lines))
        if of_the_book and block.kind == "paragraph":
            faults.extend(found(LINES, lines))
    return sorted([*faults, *found(EVERYWHERE, page)])


def main(names: list[str]) -> int:
    pages = [Path(name) for name in names or PAGES]
    complaints = [f"{page}:{line}: {what}" for page in pages for line, what in faults(page)]
    print("\n".join(complaints) or f"The prose of {len(pages)} pages has no fault.")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
