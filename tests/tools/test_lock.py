"""``requirements.lock`` resolves, with what PyPI has, wherever the package declares to run."""

import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
# PyTorch has no wheels for Intel's Macs, and those for Apple's need macOS 14.
PLATFORMS = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
]
ENVIRONMENT = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}


def pythons():
    """The versions that the package declares."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    versions = [name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name]
    assert len(versions) >= 3
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
