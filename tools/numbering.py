"""Every number that the book has published, in `book/numbers.txt`.

A line is an address and what stands there: `identity.html Chapter 3`, `identity.html#thm-identity
Theorem 3.1`. A citation names it, so it never changes; a test compares the list with the built
site. This tool appends what the site has and the list has not, and refuses where a number moved.
"""

import argparse
import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup

from tools.contents import BOOK, ROOT
from tools.plain_markdown import targets

LIST = BOOK / "numbers.txt"
SITE = ROOT / "_build" / "html"
CHAPTER = re.compile(r"\s*(?P<number>\d+)\. ")


def listed() -> dict[str, str]:
    """The published numbers, by address."""
    lines = LIST.read_text(encoding="utf-8").splitlines() if LIST.exists() else []
    return dict(line.split(" ", 1) for line in lines)


def chapters(page: BeautifulSoup) -> dict[str, str]:
    """The numbers of chapters in the list of contents beside the text of a `page`."""
    links = page.select("nav.bd-links a.reference.internal")
    found = {str(link["href"]): CHAPTER.match(link.text) for link in links}
    return {address: f"Chapter {match['number']}" for address, match in found.items() if match}


def published(site: Path) -> dict[str, str]:
    """The numbers in the built site: of chapters, and of all that has a label, as they stand."""
    first = (site / "intro.html").read_text(encoding="utf-8")
    numbers = chapters(BeautifulSoup(first, "html.parser"))
    order = [*numbers]

    def place(target: tuple[str, str]) -> tuple[int, str, list[int]]:
        address, name = target
        page = address.partition("#")[0]
        number = order.index(page) if page in order else len(order)
        kind = re.sub(r"[\d.() ]", "", name)
        return number, page + kind, [int(part) for part in re.findall(r"\d+", name)]

    labelled = {target.address: target.name for target in targets().values()}
    return numbers | dict(sorted(labelled.items(), key=place))


def moved(known: dict[str, str], now: dict[str, str]) -> list[str]:
    """What is said of each published number that the site no longer has in its place."""
    return [
        f"{address}: published as {number}, now {now.get(address, 'without a number')}"
        for address, number in known.items()
        if now.get(address) != number
    ]


def main() -> int:
    argparse.ArgumentParser(prog="python -m tools.numbering", description=__doc__).parse_args()
    if not (SITE / "intro.html").exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    known, now = listed(), published(SITE)
    if faults := moved(known, now):
        print("Numbers stay: see CONTRIBUTING.md.", *faults, sep="\n", file=sys.stderr)
        return 1
    lines = [f"{address} {number}" for address, number in {**known, **now}.items()]
    LIST.write_text("\n".join(lines) + "\n", encoding="utf-8")
    new = len(lines) - len(known)
    print(f"{new} new numbers in {LIST.relative_to(ROOT)}, {len(known)} were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
