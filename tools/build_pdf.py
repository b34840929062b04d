"""Print the book, and each chapter, from the built pages: `_build/pdf/*.pdf`.

Chromium prints a page of HTML that is made of the articles of the site: numbers, formulas and
figures are the site's. Cells that the site folds away are left out; an interactive figure is the
picture of its start.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject
from tqdm import tqdm

from tools.build_book import SUCCEEDED
from tools.contents import parts
from tools.downloads import BUILD, SITE
from tools.plain_markdown import titles
from tools.publication import KEY, ROOT, addresses, in_words, release

PDF = BUILD / "pdf"
STYLE = ROOT / "book" / "_templates" / "print.css"
WHOLE = "intro"  # the page that the whole book starts from
SOURCES = "bibliography"
NOT_ALONE = {"api", "bibliography", "glossary", "notation"}  # part of the book, but no chapters
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu"),
    *("--no-pdf-header-footer", "--generate-pdf-document-outline"),
)
# What is of no use on paper.
REMOVED = "script, noscript, nav.run-page, a.headerlink, details:is(.hide, .cff), .toctree-wrapper"


def documents() -> dict[str, list[str]]:
    """What each document is called, and its pages."""
    every = [WHOLE, *(name for names in parts().values() for name in names)]
    chapters = [name for name in every if name not in {*NOT_ALONE, WHOLE}]
    return {KEY: every, **{name: [name, SOURCES] for name in chapters}}


def parsed(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def printed(names: list[str], *, solutions: bool) -> BeautifulSoup:
    """The pages `names` as one page of HTML; only the whole book has a table of contents."""
    page = parsed(names[0])
    page.html["data-theme"] = "light"
    for tag in page.head.select("script, noscript, link:not([rel=stylesheet])"):
        tag.decompose()
    page.body.clear()
    page.body["class"] = ["bd-content", "whole" if names[0] == WHOLE else "chapter"]
    for name in names:
        page.body.append(article(name, names, solutions=solutions))
    page.title.string = titles()[names[0]]
    edition = f"Version {release().version} of {in_words(release().released)}"
    page.h1.insert_after(page.new_tag("p", string=edition))
    if names[0] == WHOLE:
        page.body.article.insert_after(contents())
    else:
        keep_cited(page)
    for tag in page.select("[src], head [href]"):
        attribute = "src" if tag.has_attr("src") else "href"
        tag[attribute] = urljoin(SITE.as_uri() + "/", tag[attribute])
        del tag["loading"]
    page.head.append(page.new_tag("style", string=STYLE.read_text(encoding="utf-8") + heads(names)))
    return page


def article(name: str, names: list[str], *, solutions: bool) -> Tag:
    """The text of a page, its solutions at its end or left out, its links within the document."""
    page = parsed(name)
    text = page.article
    for tag in text.select(f"{REMOVED}, #cite" if names[0] == WHOLE != name else REMOVED):
        tag.decompose()
    solved = [box.extract() for box in text.select(".solution")]
    if solutions and solved:
        heading = page.new_tag("h2", string="Solutions", id="solutions", style="break-before: page")
        text.section.extend([heading, *solved, *(box.extract() for box in text.select("#cite"))])
    for box in text.select("details"):  # open, but for the checks, of which one line is left
        box.summary.name = "p"
        box.name = "div"
        if "claims" in box["class"]:
            box.p["class"] = "claims"
            box.replace_with(box.p.extract())
    for number in text.select("a.check"):
        number.name = "span"
        del number["href"]
    for formula in text.select("math"):  # a PDF has no MathML: what draws a formula says it, too
        drawing = formula.parent.parent.select_one("svg, .katex-html")
        drawing["role"] = "img"
        drawing["aria-label"] = (formula.annotation or formula).get_text(" ", strip=True)
        del drawing["aria-hidden"]
        formula.parent.decompose()
    for tag in text.select("[id]"):
        tag["id"] = f"{name}-{tag['id']}"
    text["id"], text["style"] = name, f"page: {name if names[0] == WHOLE else names[0]}"
    for link in text.select("a[href]"):
        if target := target_of(str(link["href"]), name, names):
            link["href"] = target
        else:
            link.unwrap()
    return text


def target_of(href: str, page: str, names: list[str]) -> str:
    """Where a link of `page` leads from a document of the pages `names`; empty: nowhere."""
    if urlsplit(href).scheme:
        return href
    file, _, anchor = href.partition("#")
    name = file.removesuffix(".html") or page
    if name in names:
        return f"#{name}-{anchor}" if anchor else f"#{name}"
    address = addresses().page(name) if name in titles() else ""
    return f"{address}#{anchor}" if address and anchor else address


def contents() -> Tag:
    """The table of contents; its page numbers are filled in when they are known."""
    listed = "".join(
        f"<dt>{part}</dt>"
        + "".join(f'<dd><a href="#{name}">{titles()[name]} <i></i></a></dd>' for name in names)
        for part, names in parts().items()
    )
    html = f'<nav id="contents"><h1>Contents</h1><dl>{listed}</dl></nav>'
    return BeautifulSoup(html, "html.parser").nav


def keep_cited(page: BeautifulSoup) -> None:
    """Of the list of sources, what the chapter cites."""
    cited = {link["href"] for link in page.select(f'a[href^="#{SOURCES}-"]')}
    for source in page.select(".citation"):
        if f"#{source['id']}" not in cited:
            source.decompose()
    if not page.select(".citation"):
        page.select_one(f"#{SOURCES}").decompose()


def heads(names: list[str]) -> str:
    """A running head for the pages of each chapter: its title, as a string of CSS."""
    edition = f"{titles()[WHOLE]} {release().version}"
    return "".join(
        f"@page {name} {{ @top-left {{ content: {json.dumps(titles()[name], ensure_ascii=False)} }}"
        f" @top-right {{ content: {json.dumps(edition)} }} }}\n"
        for name in names
    )


def chromium() -> str:
    """The browser's path; empty if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), "")


def write(page: BeautifulSoup, path: Path) -> None:
    """Print `page` into the file `path`.

    Raises
    ------
    RuntimeError
        Chromium printed nothing; with the last line that it said.
    """
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(str(page), encoding="utf-8")
        options = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}"]
        command = [chromium(), *ARGUMENTS, *options, source.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if not target.exists():
            raise RuntimeError(f"{path.name} was not printed: {run.stderr.strip()[-300:]}")
        mend_outline(target)
        shutil.move(target, path)


def mend_outline(path: Path) -> None:
    """Chromium has a heading's words twice where the heading was moved to the next page."""
    writer = PdfWriter(path, incremental=True)
    entries = [writer.root_object["/Outlines"]["/First"]]  # type: ignore[index]
    for entry in entries:
        title = re.sub(r"^(.+)\1$", r"\1", entry["/Title"])
        entry[NameObject("/Title")] = TextStringObject(title)
        entries += [entry[way] for way in ("/First", "/Next") if way in entry]
    writer.write(path)


def number_pages(links: Iterable[Tag], printed: PdfReader) -> None:
    """Write into each link of the table of contents on which page it leads to."""
    for link in links:
        place = printed.named_destinations[f"/{str(link['href'])[1:]}"]
        link.i.string = str((printed.get_destination_page_number(place) or 0) + 1)


def main() -> int:
    known = documents()
    parser = argparse.ArgumentParser(prog="python -m tools.build_pdf", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(known)}")
    parser.add_argument(
        "--without-solutions",
        action="store_true",
        help="for a course that hands them out later: into _build/pdf/without-solutions; "
        "otherwise they stand at the end of each chapter",
    )
    arguments = parser.parse_args()
    names = arguments.names or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"NAME: expected some of {', '.join(known)}, got {unknown}")
    if not chromium():
        print("A PDF needs Chromium. On Debian: apt-get install chromium", file=sys.stderr)
        return 2
    if not SUCCEEDED.exists():
        print("The book is not built: run `make book` first.", file=sys.stderr)
        return 1
    folder = PDF / "without-solutions" if arguments.without_solutions else PDF
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in tqdm(names, unit="PDF", desc="print"):
            page = printed(known[name], solutions=not arguments.without_solutions)
            write(page, folder / f"{name}.pdf")
            if links := page.select("#contents a"):
                number_pages(links, PdfReader(folder / f"{name}.pdf"))
                write(page, folder / f"{name}.pdf")
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(names)} PDFs are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
