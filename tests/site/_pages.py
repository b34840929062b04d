"""The pages of the book, by kind, in the order of the table of contents, and their figures."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PARTS = {part["caption"]: [entry["file"] for entry in part["chapters"]] for part in TOC["parts"]}
APPENDICES = PARTS["Appendices"]
CHAPTERS = [name for names in PARTS.values() for name in names if name not in APPENDICES]
PAGES = [TOC["root"], *CHAPTERS, *APPENDICES]
# The interactive figures that a page calls.
FIGURES = {
    name: re.findall(
        r"^explore\.(\w+)\(",
        (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for name in PAGES
}
