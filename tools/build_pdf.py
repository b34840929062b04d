"""Typeset the book, and each chapter, through LaTeX: `_build/pdf/*.pdf`.

The pages are those of the site: what `make book` has executed is not executed again.

usage: python -m tools.build_pdf [NAME ...]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils
from tqdm import tqdm

from tools.plain_markdown import BOOK, ROOT, titles
from tools.publication import KEY, release

BUILD = ROOT / "_build"
LATEX = BUILD / "latex"
PDF = BUILD / "pdf"
WHOLE = "intro"  # the page that the whole book starts from
NOT_ALONE = {"api", "bibliography", "notation"}  # part of the book, but no chapters

# What a machine needs, and what to install where it is missing.
PROGRAMS = ("latexmk", "xelatex", "rsvg-convert")
FONTS = ("LibertinusSerif-Regular.otf", "LibertinusMath-Regular.otf")
DEBIAN = (
    "apt-get install latexmk texlive-xetex texlive-latex-extra texlive-fonts-extra "
    "fonts-dejavu-core librsvg2-bin"
)

FAULT = re.compile(
    r"^! .*"
    r"|^Missing character: .*"
    r"|^LaTeX Warning: (?:Hyper r|R)eference .* undefined.*"
    r"|^Overfull \\hbox \((?:[2-9]\d|\d{3,})\.\d+pt too wide\).*"
    r"|^Overfull \\vbox \((?:[2-9]\d|\d{3,})\.\d+pt too high\).*",
    re.MULTILINE,
)

ELEMENTS = {
    "papersize": "a4paper",
    "pointsize": "10pt",
    "extraclassoptions": "openany,oneside",
    "babel": r"\usepackage{polyglossia}\setmainlanguage{english}",
    "fontpkg": "",
    "figure_align": "H",  # where it stands: a figure that floats would part a cell in two
    "fncychap": "",
    "makeindex": "",
    "printindex": "",
    "releasename": "Version",
    "preamble": r"\usepackage{book}",
    "maketitle": r"\sphinxmaketitle",
    "tableofcontents": r"\sphinxtableofcontents",
}


def missing() -> list[str]:
    """Programs and fonts that this machine lacks."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if shutil.which("kpsewhich"):
        found = subprocess.run(["kpsewhich", *FONTS], capture_output=True, text=True).stdout
        lacking += [font for font in FONTS if font not in found]
    return lacking


def documents() -> dict[str, str]:
    """Pages that make a document, and what each document is called."""
    chapters = sorted(set(titles()) - NOT_ALONE - {WHOLE})
    return {WHOLE: KEY, **{name: name for name in chapters}}


def write_latex() -> None:
    """The LaTeX sources of all documents.

    Raises
    ------
    RuntimeError
        When Sphinx warns: a figure or a reference would be missing.
    """
    author = " and ".join(author.name for author in release().authors)
    overrides = {
        "external_toc_path": str(ROOT / "_toc.yml"),
        "latex_individualpages": False,
        "latex_documents": [
            (page, f"{name}.tex", titles()[page], author, "manual")
            for page, name in documents().items()
        ],
        "latex_engine": "xelatex",
        "latex_elements": ELEMENTS,
        "latex_additional_files": [str(ROOT / "tools" / "book.sty")],
        "latex_domain_indices": False,
        "latex_show_urls": "no",
        "release": release().version,
        "today": f"{release().released:%d %B %Y}",
        "nb_mime_priority_overrides": [("latex", "image/svg+xml", 1)],
    }
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml", cli_config=overrides, sourcedir=BOOK
    )
    config["extensions"] = [
        name for name in config["extensions"] if name != "sphinx_jupyterbook_latex"
    ] + ["sphinxcontrib.rsvgconverter", "latex_book"]
    shutil.rmtree(LATEX, ignore_errors=True)
    with patch_docutils(None), docutils_namespace():
        app = Sphinx(
            srcdir=BOOK,
            confdir=None,
            outdir=LATEX,
            doctreedir=BUILD / ".doctrees-latex",
            buildername="latex",
            confoverrides=config,
            status=None,
            warningiserror=True,
            keep_going=True,
        )
        app.build()
    if app.statuscode:
        raise RuntimeError("the LaTeX sources have faults: see the warnings above")


def typeset(name: str) -> None:
    """Run LaTeX until all references are right, and move the result to `_build/pdf`.

    Raises
    ------
    RuntimeError
        With the lines of LaTeX's log that say what is wrong: an error, a missing glyph, an
        undefined reference, a line or a page that is more than 20 points too long.
    """
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    result = subprocess.run(command, cwd=LATEX, capture_output=True, text=True, errors="replace")
    log = (LATEX / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    faults = list(dict.fromkeys(FAULT.findall(log)))
    if result.returncode or faults:
        report = "\n".join(faults) or result.stdout[-2000:] + result.stderr[-2000:]
        raise RuntimeError(report)
    PDF.mkdir(parents=True, exist_ok=True)
    unfinished = PDF / f".{name}.pdf"
    shutil.copy(LATEX / f"{name}.pdf", unfinished)
    unfinished.replace(PDF / f"{name}.pdf")


def main() -> int:
    known = {name: page for page, name in documents().items()}
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_pdf",
        description="Typeset the book, and each chapter, through LaTeX: _build/pdf/*.pdf.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(known)}")
    names = parser.parse_args().names or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"NAME: expected some of {', '.join(known)}, got {unknown}")
    if lacking := missing():
        print(f"A PDF needs {', '.join(lacking)}. On Debian: {DEBIAN}", file=sys.stderr)
        return 2
    try:
        write_latex()
    except RuntimeError as error:
        print(f"No PDF was made: {error}", file=sys.stderr)
        return 1
    failed = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(typeset, name): name for name in names}
        for run in tqdm(as_completed(runs), total=len(runs), unit="PDF", desc="LaTeX"):
            if fault := run.exception():
                failed[runs[run]] = fault
    for name, fault in failed.items():
        print(f"{name}.pdf was not made:\n{fault}", file=sys.stderr)
    print(f"{len(names) - len(failed)} of {len(names)} PDFs are in {PDF}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
