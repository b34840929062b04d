"""What the tests of the built site share: its pages as markup, and its address on this machine."""

from collections.abc import Mapping

import pytest
from _pages_server import serve
from bs4 import BeautifulSoup


class Parsed(Mapping):
    """Pages by file name, search and index pages included, each parsed when it is first read."""

    def __init__(self, site):
        self.paths = {
            path.relative_to(site).as_posix(): path
            for path in site.rglob("*.html")
            if "_static" not in path.parts
        }
        self.read = {}

    def __getitem__(self, name):
        if name not in self.read:
            text = self.paths[name].read_text(encoding="utf-8")
            self.read[name] = BeautifulSoup(text, "html.parser")
        return self.read[name]

    def __iter__(self):
        return iter(self.paths)

    def __len__(self):
        return len(self.paths)


@pytest.fixture(scope="session")
def pages(site):
    return Parsed(site)


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served as GitHub Pages serves it."""
    with serve(site) as url:
        yield url
