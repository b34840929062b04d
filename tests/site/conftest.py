"""What the tests of the built site share: its pages as markup, and its address on this machine."""

import pytest
from _pages_server import serve
from bs4 import BeautifulSoup


@pytest.fixture(scope="session")
def pages(site):
    """Parsed pages by file name, search and index pages included."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            path.read_text(encoding="utf-8"), "html.parser"
        )
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served as GitHub Pages serves it."""
    with serve(site) as url:
        yield url
