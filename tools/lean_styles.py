"""One style sheet from several, with the rules that some page can use; fonts cut to its characters.

A rule goes when it asks for a class or an id that is no word of any page or script.
"""

import logging
import os
import re
from pathlib import Path

import lightningcss
from fontTools import subset

# It reports every table of every font.
logging.getLogger(subset.__name__).setLevel(logging.WARNING)

WORD = re.compile(r"[A-Za-z_][\w-]*")
NAME = re.compile(rf"[.#]({WORD.pattern})")
LOCAL = re.compile(r"""url\((?!["']?(?:data:|#))["']?([^)"']+)["']?\)""")


def moved(path: Path, folder: Path) -> str:
    """A style sheet, with addresses as seen from `folder`."""

    def address(match: re.Match[str]) -> str:
        return f"url({os.path.relpath(path.parent / match[1], folder)})"

    return LOCAL.sub(address, path.read_text(encoding="utf-8"))


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
    given = "".join(moved(static / name, static) for name in sheets)
    unused = set(NAME.findall(given)) - set(WORD.findall("\n".join([*pages, *scripts])))
    rules = lightningcss.process_stylesheet(given, unused_symbols=unused)
    (static / "pages.css").write_text(credits + rules, encoding="utf-8")
    text = f"--text={''.join(sorted(set().union(rules, *pages)))}"
    for font in static.rglob("*.woff2"):
        subset.main([str(font), text, "--flavor=woff2", "--no-hinting", f"--output-file={font}"])
