"""Every address that the book has ever published, in `book/addresses.txt`.

An address is a page, or a page and an anchor that the page itself links to: a heading, an equation,
a figure, a theorem, an exercise, a name of the package. What is in the list must lead somewhere for
ever; a test follows each one. This tool appends what the built site has and the list has not.

usage: python -m tools.addresses
"""

import argparse
import re
import sys
from functools import cache
from pathlib import Path

from bs4 import BeautifulSoup

from tools.plain_markdown import BOOK, ROOT, titles

LIST = BOOK / "addresses.txt"
SITE = ROOT / "_build" / "html"
REDIRECT = re.compile(r'var target = "(?P<target>[^"]+)";if \(window\.location\.hash\)')
COUNTED = re.compile(r"id\d+")  # anchors without a name, which Sphinx counts through


def listed() -> list[str]:
    return LIST.read_text(encoding="utf-8").split() if LIST.exists() else []


def published(site: Path) -> list[str]:
    """The addresses in the pages of the built site, in the order in which they stand there."""
    found = []
    for name in sorted(titles()):
        page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        found.append(f"{name}.html")
        links = page.select("article a.headerlink[href]")
        anchors = [str(link["href"]).lstrip("#") for link in links]
        found += [f"{name}.html#{anchor}" for anchor in anchors if not COUNTED.fullmatch(anchor)]
    return list(dict.fromkeys(found))


@cache
def anchors_or_target(path: Path) -> tuple[set[str], str | None]:
    """The anchors of a page, and where it redirects to. A page has many addresses: read it once."""
    text = path.read_text(encoding="utf-8")
    redirect = REDIRECT.search(text)
    if redirect:
        return set(), redirect["target"]
    page = BeautifulSoup(text, "html.parser")
    return {str(tag["id"]) for tag in page.select("[id]")}, None


def fault(address: str, site: Path) -> str | None:
    """Why `address` leads nowhere in the site; None where it leads to something."""
    name, _, anchor = address.partition("#")
    seen = {name}
    while True:
        if not (site / name).exists():
            return f"{address}: there is no page {name}"
        anchors, target = anchors_or_target(site / name)
        if target is None:
            break
        name, _, own_anchor = target.partition("#")
        anchor = anchor or own_anchor
        if name in seen:
            return f"{address}: the redirects lead back to {name}"
        seen.add(name)
    if anchor and anchor not in anchors:
        return f"{address}: {name} has no anchor {anchor}"
    return None


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m tools.addresses",
        description="Append the built site's new addresses to book/addresses.txt.",
    ).parse_args()
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
