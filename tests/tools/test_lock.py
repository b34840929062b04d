"""The lock and environment.yml agree with pyproject.toml, and the lock with what PyPI has."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import yaml
from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
# PyTorch has no wheels for Intel's Macs, and those for Apple's need macOS 14.
PLATFORMS = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}


def pythons():
    """The versions that the package declares."""
    classified = [name.rpartition(" ") for name in PROJECT["classifiers"]]
    versions = [version for kind, _, version in classified if kind.endswith("Python ::")]
    first, last = (int(version.removeprefix("3.")) for version in (versions[0], versions[-1]))
    assert PROJECT["requires-python"] == f">=3.{first},<3.{last + 1}"
    return versions


def complaint(platform, python):
    """What uv finds wrong with the lock there, downloading descriptions of wheels only."""
    command = [find_uv_bin(), "pip", "compile", "pyproject.toml", "--quiet"]
    for extra in ("book", "course", "test", "dev", "networks"):
        command += ["--extra", extra]
    command += ["--constraint", "requirements.lock", "--only-binary", ":all:"]
    command += ["--python-platform", platform, "--python-version", python]
    # Which Python resolves; without it uv asks every one that it can find.
    command += ["--python", sys.executable]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return f"{platform}, Python {python}: {done.stderr}" if done.returncode else ""


def test_the_lock_resolves_for_every_platform_and_python():
    places = list(product(PLATFORMS, pythons()))
    with ThreadPoolExecutor(len(places)) as pool:
        complaints = [text for text in pool.map(complaint, *zip(*places, strict=True)) if text]
    assert not complaints, "\n".join(complaints)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_lock_is_what_make_lock_writes(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)  # a name that has no spaces
    make = ["make", "--silent", "--old-file=.venv/.installed", "lock"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    written, kept = ((folder / "requirements.lock").read_text() for folder in (tmp_path, ROOT))
    assert written == kept


def test_conda_and_the_readme_install_what_make_installs():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, _, pip = conda["dependencies"]
    assert python.removeprefix("python=") in pythons()
    assert pip["pip"][0] == "-c requirements.lock"
    extras = re.compile(r"-e(?:ditable)? \W*\.\[([\w,]+)\]")
    [by_conda] = extras.findall(pip["pip"][1])
    assert set(by_conda.split(",")) <= set(PROJECT["optional-dependencies"])
    for name in ("Makefile", "README.md"):
        assert by_conda in extras.findall((ROOT / name).read_text(encoding="utf-8")), name
