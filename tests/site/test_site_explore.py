"""The scripts of the interactive figures in the built pages."""

import re
from pathlib import Path

import pytest

from companion import explore

FIGURES = [name for name in explore.__all__ if name[0].islower()]
BOOK = Path(__file__).parents[2] / "book"
CALL = re.compile(r"^explore\.(\w+)\(", re.MULTILINE)
PLACES = {
    path.stem: CALL.findall(path.read_text(encoding="utf-8")) for path in sorted(BOOK.glob("*.md"))
}
WITH_FIGURES = [name for name, figures in PLACES.items() if figures]


def test_chapters_show_the_figures():
    shown = [figure for name in WITH_FIGURES for figure in PLACES[name]]
    assert len(shown) == len(set(shown)) >= 6
    assert set(shown) <= set(FIGURES)


@pytest.mark.parametrize("name", PLACES)
def test_scripts_are_loaded_once_and_only_where_a_figure_is(site, name):
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    scripts = re.findall(r'src="_static/explore/(\w+)\.js', text)
    assert scripts == (["loader"] if PLACES[name] else [])
    assert "bnExplore" not in text, "a script inside the page"
    for figure in PLACES[name]:
        assert f'src="_images/explore-{name}-{figure}.svg"' in text
        assert (site / "_static" / "explore" / f"{figure}.js").exists()
