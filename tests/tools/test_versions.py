"""Several versions of a small book become one site."""

import shutil
import sys
import tarfile

import pytest
from bs4 import BeautifulSoup

from tools import versions

PAGE = "<nav><!-- versions --></nav><main><!-- newest --><h1>{}</h1></main>"


def book(folder, words, pages):
    folder.mkdir(parents=True)
    for name in ("index", "404", *pages):
        (folder / f"{name}.html").write_text(PAGE.format(words), encoding="utf-8")
    return folder


def release(tmp_path, version, pages):
    """The archive of a release."""
    folder = book(tmp_path / version / versions.folder_of(version), version, pages)
    (tmp_path / "releases").mkdir(exist_ok=True)
    with tarfile.open(
        tmp_path / "releases" / f"batch-normalization-{version}-site.tar.gz", "w:gz"
    ) as archive:
        archive.add(folder, folder.name)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Make the site; its folder. The first call makes the book in preparation, too."""

    def publish():
        if not (tmp_path / "html").exists():
            book(tmp_path / "html", "dev", ["old", "new", "newer"])
        folders = {"dev": "html", "releases": "releases", "target": "published"}
        options = [f"--{name}={tmp_path / folder}" for name, folder in folders.items()]
        monkeypatch.setattr(sys, "argv", ["versions", *options])
        assert versions.main() == 0
        return tmp_path / "published"

    return publish


@pytest.fixture
def published(tmp_path, publish):
    for version, pages in [("0.9.1", ["old"]), ("0.10.0", ["old"]), ("0.10.2", ["old", "new"])]:
        release(tmp_path, version, pages)
    release(tmp_path, "0.10.1", ["old", "withdrawn"])
    (tmp_path / "releases" / "another.tar.gz").write_text("of something else")
    return publish()


def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_a_minor_version_is_its_last_patch_and_stable_the_newest(published):
    folders = {path.name: parsed(path / "old.html").h1.text for path in published.glob("*/")}
    assert folders == {"stable": "0.10.2", "v0.10": "0.10.2", "v0.9": "0.9.1", "dev": "dev"}
    assert not list(published.glob("*/withdrawn.html"))


def test_a_page_links_to_the_other_versions_that_have_it(published):
    for path in published.glob("*/*.html"):
        targets = [link["href"] for link in parsed(path).select("nav.versions a")]
        having = sorted(other.parent.name for other in published.glob(f"*/{path.name}"))
        having.remove(path.parent.name)
        assert sorted(targets) == [f"../{folder}/{path.name}" for folder in having]
    old = parsed(published / "v0.9" / "old.html")
    assert old.summary.text == "Version: 0.9.1"
    names = [link.text for link in old.select("nav.versions a")]
    assert names == ["0.10.2, the newest", "0.10.2", "in preparation"]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("stable/old", None),
        ("v0.10/old", None),
        ("v0.9/old", "This is version 0.9.1. The newest is version 0.10.2."),
        ("dev/old", "This is the version in preparation. The newest is version 0.10.2."),
        ("dev/newer", None),
    ],
)
def test_what_is_not_the_newest_says_so(published, page, said):
    found = parsed(published / f"{page}.html").select_one("p.newest")
    assert (found and found.text) == said
    assert said is None or found.a["href"] == "../stable/old.html"


def test_the_first_page_leads_to_the_newest(published):
    page = parsed(published / "index.html")
    assert page.a["href"] == "stable/"
    assert page.select_one("meta[http-equiv=refresh]")["content"].endswith("url=stable/")
    assert parsed(published / "404.html").h1.text == "0.10.2"


def test_before_the_first_release_there_is_one_version(publish):
    published = publish()
    assert [path.name for path in published.glob("*/")] == ["dev"]
    assert parsed(published / "index.html").a["href"] == "dev/"
    assert not parsed(published / "dev" / "old.html").select(".versions, .newest")


@pytest.mark.usefixtures("published")
def test_what_was_published_is_not_mixed_with_what_is(tmp_path, publish):
    shutil.rmtree(tmp_path / "releases")
    assert [path.name for path in publish().glob("*/")] == ["dev"]


def test_without_a_book_nothing_is_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["versions", f"--dev={tmp_path}"])
    assert versions.main() == 1
    assert capsys.readouterr().err == f"There is no book in {tmp_path}: run `make book` first.\n"
