"""What a release consists of."""

import sys
import tarfile
from zipfile import ZipFile

import pytest

from tools import release
from tools.publication import folder_of
from tools.publication import release as current

VERSION = current().version


@pytest.fixture
def gather(tmp_path, monkeypatch):
    """Run the tool on a small `_build`, with this tag."""

    def gather(*tag):
        monkeypatch.setattr(release, "BUILD", tmp_path)
        monkeypatch.setattr(release, "SITE", tmp_path / "html")
        monkeypatch.setattr(release, "RELEASE", tmp_path / "release")
        monkeypatch.setattr(release, "made", lambda: [tmp_path / "book.pdf"])
        monkeypatch.setattr(sys, "argv", ["release", *tag])
        return release.main()

    return gather


@pytest.fixture
def build(tmp_path):
    for name in ("dist/package.whl", "book.pdf", "course/README.md", "html/intro.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "of-another-version.pdf").touch()


@pytest.mark.usefixtures("build")
def test_a_release_has_the_package_the_book_and_the_kit(tmp_path, gather):
    assert gather(f"v{VERSION}") == 0
    kit, site = (f"batch-normalization-{VERSION}-{name}" for name in ("course.zip", "site.tar.gz"))
    folder = tmp_path / "release"
    assert {path.name for path in folder.iterdir()} == {"package.whl", "book.pdf", kit, site}
    with tarfile.open(folder / site) as archive:
        assert f"{folder_of(VERSION)}/intro.html" in archive.getnames()
    with ZipFile(folder / kit) as archive:
        assert "course/README.md" in archive.namelist()


@pytest.mark.usefixtures("build")
def test_another_versions_tag_is_refused(tmp_path, gather, capsys):
    assert gather("v9.9.9") == 1
    assert capsys.readouterr().err == (f"The tag v9.9.9 is not that of the version, v{VERSION}.\n")
    assert (tmp_path / "release" / "of-another-version.pdf").exists()


def test_what_is_missing_is_named(gather, capsys):
    assert gather() == 1
    assert "Not made: dist, html, course. `make release` makes all." in capsys.readouterr().err
