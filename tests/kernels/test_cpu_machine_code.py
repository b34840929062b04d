"""Machine code on the disk: other copies of the package find it, and a changed source does not."""

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
from companion.kernels.cpu import machine_code, workers

FOLDER = Path(machine_code.__file__).parent

# Two files that stand for the kernels', and the machinery without PyTorch, which takes seconds.
KERNEL = f"""
import sys, types
from pathlib import Path
import numpy as np
from numba import carray

package = sys.modules["cpu"] = types.ModuleType("cpu")
package.__path__ = [{str(FOLDER)!r}]
from cpu.machine_code import compile_function, dependencies_of, is_kept
from formula import scaled

def run(place):
    values = carray(place, 1, np.int64)
    values[0] = scaled(values[0])

files = [Path(__file__).with_name(name) for name in ("kernel.py", "formula.py")]
sources = dependencies_of(files)
before = is_kept("run", sources)
compiled = compile_function("the test", run, sources)
value = np.array([5])
compiled.call(value.ctypes.data)
assert is_kept("run", sources)
loaded = compiled.owner.cache_hits
# Another process may have compiled it in between.
assert loaded >= before
print(value[0], "loaded" if loaded else "compiled")
"""
FORMULA = "import numba\n\n@numba.njit\ndef scaled(x):\n    return {} * x\n"


def clone(folder):
    folder.mkdir()
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "formula.py").write_text(FORMULA.format(2))
    return folder


def start(folder, **environment):
    return subprocess.Popen(
        [sys.executable, str(folder / "kernel.py")],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    message = "compiling the test for this machine, once; it takes up to a minute\n"
    assert errors == (message if "compiled" in output else "")
    return output.strip()


@pytest.fixture
def environment(tmp_path):
    return {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}


def test_another_copy_finds_it_and_a_changed_dependency_does_not(tmp_path, environment):
    first, second = clone(tmp_path / "first"), clone(tmp_path / "second")
    assert answer(start(first, **environment)) == "10 compiled"
    assert answer(start(second, **environment)) == "10 loaded"
    (second / "formula.py").write_text(FORMULA.format(3))
    assert answer(start(second, **environment)) == "15 compiled"
    assert answer(start(first, **environment)) == "10 loaded"
    assert answer(start(second, **environment)) == "15 loaded"


def test_two_processes_at_once(tmp_path, environment):
    folder = clone(tmp_path / "clone")
    both = [start(folder, **environment) for _ in range(2)]
    assert {answer(process) for process in both} <= {"10 compiled", "10 loaded"}
    assert answer(start(folder, **environment)) == "10 loaded"


@pytest.mark.no_cover  # which would be measured in a file that is too large, too
@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no process's files")
def test_where_the_disk_is_full_it_is_compiled_and_said_in_a_line(tmp_path, environment):
    folder = clone(tmp_path / "copy")
    kept = 'assert is_kept("run", sources)'
    assert kept in KERNEL
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n{KERNEL}"
    (folder / "kernel.py").write_text(limited.replace(kept, f"assert not {kept[7:]}"))
    output, errors = start(folder, **environment).communicate()
    assert output == "10 compiled\n", errors
    _, line = errors.splitlines()
    place = environment["NUMBA_CACHE_DIR"]
    assert line.startswith(f"the test is compiled, but cannot be kept in {place}")
    assert line.endswith("File too large")  # what a disk's end is to a process with a limit


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache has other names elsewhere")
def test_it_is_kept_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert answer(start(clone(tmp_path / "first"), **environment)) == "10 compiled"
    assert answer(start(clone(tmp_path / "second"), **environment)) == "10 loaded"
    assert [*(tmp_path / "cache" / "batchnorm-companion").rglob("*.nbc")]


def test_a_copy_of_the_package_loads_the_kernels(tmp_path):
    workers.compiled(False, "float32")
    shutil.copytree(
        FOLDER.parents[1], tmp_path / "companion", ignore=shutil.ignore_patterns("__pycache__")
    )
    program = (
        "from companion.kernels.cpu import workers; print(workers.__file__); "
        "print(workers.compiled(False, 'float32').owner.cache_hits)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    file, hits = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert hits == "1"


def test_machine_code_depends_on_all_that_is_compiled():
    """What the compiled functions' module imports, directly or not, is among the sources."""
    needed, new = set(), {"workers"}
    while new:
        name = new.pop()
        needed.add(name)
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                new |= set(modules) - needed
    assert {"steps", "vectors", "plans", "_numba"} < needed
    assert needed <= {path.stem for path in workers.SOURCES}


@pytest.mark.parametrize(
    ("name", "value"),
    [("NUMBA_CPU_NAME", "generic"), ("NUMBA_CPU_FEATURES", "+avx2")],
)
def test_another_processor_has_its_own(monkeypatch, name, value):
    ours = machine_code.dependencies_of([])
    monkeypatch.setenv(name, value)
    assert machine_code.dependencies_of([]) != ours


@pytest.mark.parametrize("name", ["numba", "llvmlite"])
def test_another_version_has_its_own(monkeypatch, name):
    ours = machine_code.dependencies_of([])
    monkeypatch.setattr(getattr(machine_code, name), "__version__", "0.1")
    assert machine_code.dependencies_of([]) != ours


def test_what_nobody_has_used_for_a_month_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def keep(content, days=0):
        folder = machine_code.keep(lambda: 0, content)
        used = time.time() - days * 24 * 3600
        os.utime(folder / "used", (used, used))
        return folder

    recent, old, again = keep("recent", 29), keep("old"), keep("again")
    for content in ("old", "again"):
        keep(content, 31)
    machine_code.keep(lambda: 0, "again")
    new = keep("new")
    assert set(tmp_path.iterdir()) == {recent, again, new}
    assert not old.exists()


def test_where_nothing_can_be_kept_the_error_says_what_helps(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(machine_code, "_places", lambda: [tmp_path / "file"])
    with pytest.raises(OSError, match="NUMBA_CACHE_DIR may name a folder"):
        machine_code.keep(lambda: 0, "")
