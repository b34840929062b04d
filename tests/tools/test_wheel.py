"""The wheel beside the published notebooks."""

from zipfile import ZipFile

import pytest

from tools import wheel
from tools.publication import NOTEBOOKS, ROOT, release

RESULTS = "share/batchnorm-companion/results"


def in_the_sources():
    return {path for left in ("build", "dist", "*.egg-info") for path in ROOT.glob(left)}


def test_the_wheel_is_the_package_and_the_same_every_time(site, tmp_path):
    before = in_the_sources()
    made = wheel.build_wheel(tmp_path)
    assert in_the_sources() == before, "the build left something in the sources"
    published = site / NOTEBOOKS / release().wheel
    assert published.read_bytes() == made.read_bytes(), "not of these sources: run `make book`"
    with ZipFile(made) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    stem = made.name.removesuffix("-py3-none-any.whl")
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "companion").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recorded = {f"{stem}.data/data/{RESULTS}/{path.name}" for path in ROOT.glob("book/results/*.*")}
    assert names == package | recorded


def test_why_there_is_no_wheel_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(wheel, "ROOT", tmp_path / "sources")
    for name in wheel.FOLDERS:
        (tmp_path / "sources" / name).mkdir(parents=True)
    (tmp_path / "sources" / "pyproject.toml").write_text("not toml", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"the wheel was not built: (.|\n)*TOML"):
        wheel.build_wheel(tmp_path)
    assert list(tmp_path.glob("*.whl")) == []
