"""The first cell of a twin, run where the package is missing, with packages made for the test."""

import os
import subprocess
import sys
import venv
from contextlib import nullcontext
from importlib import metadata, util
from zipfile import ZipFile

import pytest

from tools.install_cell import install_cell
from tools.publication import Addresses, release

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("install-cell")

SLOW = pytest.mark.slow(reason="makes an environment, and installs into it")
VERSION = release().version
CELL = install_cell(VERSION, Addresses())
REPORT = """
import companion
print(companion.VERSION, *(f"{name}={metadata.version(name)}" for name in ("numpy", "torch")))
"""


def wheel(folder, name, version, module, *, requires=()):
    """A wheel of one module, which says its version."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    path = folder / f"{stem}-py3-none-any.whl"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in [*files, record])
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def python(environment):
    return environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """An environment that has NumPy and PyTorch, as Colab has; and a folder for what it runs."""
    environment = tmp_path_factory.mktemp("colab")
    venv.create(environment, with_pip=True)
    wheels = tmp_path_factory.mktemp("there")
    there = [wheel(wheels, "numpy", "2.0.1", "numpy"), wheel(wheels, "torch", "2.7.0", "torch")]
    pip = [python(environment), "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, *there], check=True)
    return environment


@pytest.fixture
def run(colab, tmp_path):
    """Run a cell as a notebook in `tmp_path` would; afterwards take the package away again."""
    # Where this book's own package is on the path, pip would find it there, too.
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": outside, "capture_output": True, "text": True}

    def run(source):
        return subprocess.run([python(colab), "-c", source], **options)

    yield run
    pip = [python(colab), "-m", "pip", "uninstall", "--yes", "--quiet", "batchnorm-companion"]
    subprocess.run(pip, check=True, **options)


def offer(folder, *, requires, version=VERSION):
    wheel(folder, "batchnorm-companion", version, "companion", requires=requires)


def test_where_the_package_is_there_nothing_happens():
    no_process = (
        "import sys; sys.addaudithook(lambda event, _: event != 'subprocess.Popen' or 1 / 0)"
    )
    command = [sys.executable, "-c", f"{no_process}\n{CELL}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("fits", [True, False])
def test_pip_is_asked_for_the_package_and_for_what_is_there(monkeypatch, fits):
    there = {name: metadata.version(name) for name in ("numpy", "torch")}
    commands = []

    def pip(command, **_options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0 if fits else 1, "", "pip's reason")

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(util, "find_spec", lambda name: name in there or None)
    with nullcontext() if fits else pytest.raises(ModuleNotFoundError, match="pip's reason"):
        exec(CELL, {})
    expected = [f"batchnorm-companion=={VERSION}", *(f"{name}=={there[name]}" for name in there)]
    assert [command[-3:] for command in commands] == [expected]


@SLOW
def test_the_package_is_installed_and_what_is_there_stays(run, tmp_path):
    offer(tmp_path, requires=("numpy>=1.26", "torch>=2.6"))
    wheel(tmp_path, "numpy", "2.9.0", "numpy")  # newer ones are on offer
    wheel(tmp_path, "torch", "2.99.0", "torch")
    offer(tmp_path, requires=(), version="99.0")
    result = run(CELL + REPORT)
    assert result.stdout.split() == [VERSION, "numpy=2.0.1", "torch=2.7.0"], result.stderr


@SLOW
def test_what_does_not_fit_is_kept_and_said(run, tmp_path):
    offer(tmp_path, requires=("numpy>=1.26", "torch>=2.8"))
    wheel(tmp_path, "torch", "2.99.0", "torch")
    result = run(CELL)
    assert "ModuleNotFoundError: The book's package is missing" in result.stderr
    assert "torch==2.7.0" in result.stderr, "pip's reason is not shown"
    kept = run("import torch; print(torch.VERSION)")
    assert kept.stdout.strip() == "2.7.0"


@SLOW
def test_without_a_wheel_the_message_says_how_to_make_one(run):
    result = run(CELL)
    assert "ModuleNotFoundError" in result.stderr
    assert "`pip wheel --no-deps .`" in result.stderr


def test_the_published_book_installs_its_own_version_from_its_own_repository():
    source = install_cell("1.2.3", Addresses("https://github.com/owner/name/"))
    compile(source, "cell", "exec")
    assert '"batchnorm-companion[questions] @ git+https://github.com/owner/name@v1.2.3"' in source
    assert "--no-index" not in source
