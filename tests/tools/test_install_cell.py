"""The first cell of a twin, run where the package is missing, with packages made for the test."""

import os
import subprocess
import sys
import tomllib
import venv
from contextlib import nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, util
from itertools import product
from threading import Thread
from zipfile import ZipFile

import pytest

from tools.install_cell import EXTRAS, install_cell
from tools.publication import DEV, NOTEBOOKS, ROOT, Addresses, folder_of, release

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("install-cell")

SLOW = pytest.mark.slow(reason="makes an environment, and installs into it")
VERSION = release().version
CELL = install_cell(release(), Addresses())
REPORT = """
import companion
print(companion.VERSION, *(f"{name}={metadata.version(name)}" for name in ("numpy", "torch")))
"""
LIBRARIES = ("matplotlib", "sklearn", "numba", "jupyterquiz")
NEEDS = ("numpy>=1.26", "torch>=2.8", *(f"{name}; extra == 'plots'" for name in LIBRARIES))


def wheel(folder, name, version, module, *, requires=()):
    """A wheel of one module, which says its version."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Provides-Extra: {extra}\n" for extra in EXTRAS[1:-1].split(","))
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
    there = [wheel(wheels, "numpy", "2.0.1", "numpy"), wheel(wheels, "torch", "2.9.0", "torch")]
    pip = [python(environment), "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, *there], check=True)
    return environment


@pytest.fixture
def index(tmp_path):
    """What an index has: newer ones of what is there, and another's package under our name."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, "numpy", "2.9.0", "numpy")
    wheel(folder, "torch", "2.99.0", "torch")
    wheel(folder, "batchnorm-companion", VERSION, "others")
    return folder


@pytest.fixture
def run(colab, index, tmp_path):
    """Run a cell as a notebook in `book` would; afterwards take away what it has installed."""
    # Where this book's own package is on the path, pip would find it there, too.
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outside |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    options = {"env": outside, "capture_output": True, "text": True}
    (tmp_path / "book" / "solutions").mkdir(parents=True)

    def run(source, folder="book"):
        return subprocess.run([python(colab), "-c", source], cwd=tmp_path / folder, **options)

    yield run
    pip = [python(colab), "-m", "pip", "uninstall", "--yes", "--quiet", "batchnorm-companion"]
    subprocess.run([*pip, *LIBRARIES], check=True, **options)


def offer(folder, *, requires=NEEDS):
    folder.mkdir(parents=True, exist_ok=True)
    wheel(folder, "batchnorm-companion", VERSION, "companion", requires=requires)


def test_where_the_package_is_there_nothing_happens():
    no_process = (
        "import sys; sys.addaudithook(lambda event, _: event != 'subprocess.Popen' or 1 / 0)"
    )
    command = [sys.executable, "-c", f"{no_process}\n{CELL}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("beside", "addresses", "sources"),
    [
        (".", Addresses(site="https://site.example"), ["{folder}/{wheel}"]),
        ("..", Addresses(site="https://site.example"), ["{above}/{wheel}"]),
        (
            None,
            Addresses("https://github.com/o/n", site="https://o.github.io/n/"),
            [
                f"https://o.github.io/n/{folder_of(VERSION)}/notebooks/{{wheel}}",
                "https://o.github.io/n/dev/notebooks/{wheel}",
            ],
        ),
        (None, Addresses("https://github.com/o/n/"), ["git+https://github.com/o/n@v{version}"]),
        (None, Addresses(), ["{folder}/{wheel}"]),
    ],
)
@pytest.mark.parametrize("fits", [True, False])
def test_pip_is_asked_for_the_package_and_for_what_is_there(
    monkeypatch, tmp_path, fits, beside, addresses, sources
):
    there = {name: metadata.version(name) for name in ("numpy", "torch")}
    commands = []

    def pip(command, **_options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0 if fits else 1, "", "pip's reason")

    notebook = tmp_path / "a folder"
    notebook.mkdir()
    if beside:
        (notebook / beside / release().wheel).touch()
    monkeypatch.chdir(notebook)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(util, "find_spec", lambda name: name in there or None)
    with nullcontext() if fits else pytest.raises(ModuleNotFoundError, match="pip's reason"):
        exec(install_cell(release(), addresses), {})
    folders = {"folder": notebook.as_uri(), "above": tmp_path.as_uri()}
    tries = [
        f"batchnorm-companion{extras} @ {source}".format(
            wheel=release().wheel, version=VERSION, **folders
        )
        for source, extras in product(sources, [EXTRAS, ""])
    ]
    kept = [f"{name}=={there[name]}" for name in there]
    tried = tries[:1] if fits else tries
    assert [command[-3:] for command in commands] == [[package, *kept] for package in tried]


def test_the_extras_have_what_the_cell_misses():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        requirement
        for extra in EXTRAS[1:-1].split(",")
        for requirement in settings["optional-dependencies"][extra]
    ]
    for name in LIBRARIES:
        distribution = name.replace("sklearn", "scikit-learn")
        assert any(requirement.startswith(distribution) for requirement in asked), name
        assert f'"{name}"' in CELL


@SLOW
@pytest.mark.parametrize("folder", ["book", "book/solutions"])
def test_the_package_is_installed_and_what_is_there_stays(run, tmp_path, index, folder):
    offer(tmp_path / "book")
    for name in LIBRARIES:
        wheel(index, name, "1.0", name)
    result = run(CELL + REPORT + "import matplotlib", folder)
    assert result.stdout.split() == [VERSION, "numpy=2.0.1", "torch=2.9.0"], result.stderr


@SLOW
def test_without_an_index_the_package_comes_alone(run, tmp_path, index):
    offer(tmp_path / "book")
    wheel(index, "matplotlib", "1.0", "matplotlib")  # one of several is not enough
    said, report = run(CELL + REPORT).stdout.splitlines()
    assert said.endswith(f"could not be installed: {', '.join(LIBRARIES)}")
    assert report.split() == [VERSION, "numpy=2.0.1", "torch=2.9.0"]


@SLOW
def test_from_a_published_book_it_comes_by_http(run, tmp_path):
    offer(tmp_path / DEV / NOTEBOOKS)  # not yet released
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        site = Addresses("https://github.com/o/n", site=f"http://127.0.0.1:{server.server_port}/")
        result = run(install_cell(release(), site) + REPORT)
        server.shutdown()
    assert VERSION in result.stdout.split(), result.stderr


@SLOW
def test_what_does_not_fit_is_kept_and_said(run, tmp_path):
    offer(tmp_path / "book", requires=("numpy>=1.26", "torch>=2.10"))
    result = run(CELL)
    assert "ModuleNotFoundError: The book's package is missing" in result.stderr
    assert "torch==2.9.0" in result.stderr, "pip's reason is not shown"
    kept = run("import torch; print(torch.VERSION)")
    assert kept.stdout.strip() == "2.9.0"


@SLOW
def test_without_a_wheel_the_message_says_where_it_is(run):
    result = run(CELL)
    assert "ModuleNotFoundError" in result.stderr
    assert "Its wheel is in the folder `notebooks` of the built book" in result.stderr
    assert release().wheel in result.stderr
    assert run("import others").returncode, "it was taken from an index"
