"""Every address that the book has ever published, in `book/addresses.txt`.

An address is a page, or a page and an anchor that the page itself links to: a heading, an equation,
a figure, a theorem, an exercise, a name of the package. What is in the list must lead somewhere for
ever; a test follows each one. This tool appends what the built site has and the list has not.
"""

import argparse
import re
import sys
from pathlib import Path

from tools.contents import BOOK, ROOT
from tools.plain_markdown import titles

LIST = BOOK / "addresses.txt"
SITE = ROOT / "_build" / "html"
# What Sphinx writes: a parser of all its markup would take a second a page.
LINK = re.compile(r'<a\b(?=[^>]*\bclass="headerlink")[^>]*\bhref="#([^"]+)"')
COUNTED = re.compile(r"id\d+")  # anchors without a name, which Sphinx counts through


def listed() -> list[str]:
    return LIST.read_text(encoding="utf-8").split() if LIST.exists() else []


def published(site: Path) -> list[str]:
    """The addresses in the pages of the built site, in the order in which they stand there."""
    found = []
    for name in sorted(titles()):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        found.append(f"{name}.html")
        anchors = LINK.findall(page)
        found += [f"{name}.html#{anchor}" for anchor in anchors if not COUNTED.fullmatch(anchor)]
    return list(dict.fromkeys(found))


def main() -> int:
    argparse.ArgumentParser(prog="python -m tools.addresses", description=__doc__).parse_args()
    if not (SITE / "intro.html").exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    known = listed()
    new = [address for address in published(SITE) if address not in set(known)]
    LIST.write_text("\n".join(known + new) + "\n", encoding="utf-8")
    print(f"{len(new)} new addresses in {LIST.relative_to(ROOT)}, {len(known)} were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
