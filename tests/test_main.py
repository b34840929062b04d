"""The commands as a user runs them. No test here, or in tests/bench, expects a speed."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import types
import typing
from functools import partial
from pathlib import Path

import pytest
import torch

import companion
from companion.__main__ import main
from companion.bench import command, document, machine, session
from companion.bench.operations import PASSES

# In one process, which makes once what they share.
pytestmark = pytest.mark.xdist_group("main")

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "companion"]
TWO = "tiny/32x10$|BatchNorm1d"


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, **options
    )


def refused(capsys, *arguments):
    """Run with a mistake; returns the one line that says what it is."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def conforms(value, kind, where="document"):
    """Check a JSON value against the type that documents it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        assert set(value) == set(hints), where
        for key, hint in hints.items():
            conforms(value[key], hint, f"{where}.{key}")
    elif origin is list:
        assert isinstance(value, list), where
        for item in value:
            conforms(item, arguments[0], f"{where}[]")
    elif origin is dict:
        assert isinstance(value, dict), where
        for key, item in value.items():
            conforms(item, arguments[1], f"{where}.{key}")
    elif origin is types.UnionType:
        if value is not None:
            conforms(value, *(one for one in arguments if one is not types.NoneType), where)
    elif origin is typing.Literal:
        assert value in arguments, where
    elif kind is float:
        assert type(value) in (int, float), where
    else:
        assert type(value) is kind, where


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One real run: what was printed, and the file."""
    path = tmp_path_factory.mktemp("bench") / "found.json"
    options = ["--quick", "--only", TWO, "--threads", "1", "--seconds-per-case", "0.1"]
    # More threads than asked for, unless the option is obeyed.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = run("bench", *options, "--json", str(path), env=environment)
    assert done.returncode == 0, done.stderr
    return done, json.loads(path.read_text(encoding="utf-8"))


def test_a_run_writes_a_file_of_the_documented_schema(quick):
    _, written = quick
    conforms(written, document.Document)
    assert written["schema"] == 2
    assert [case["name"] for case in written["cases"]] == ["32x10", "BatchNorm1d-60x100"]
    assert [case["module"] for case in written["cases"]] == [False, True]
    assert written["settings"]["only"] == TWO
    assert written["settings"]["dtypes"] == ["float32"]
    assert written["settings"]["seconds_per_case"] == 0.1
    assert written["machine"]["threads"] == 1
    assert written["versions"]["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", written["date"])


def test_a_run_measures_every_pass(quick):
    _, written = quick
    for case in written["cases"]:
        assert case["bytes"] == 4 * case["shape"][0] * case["shape"][1]
        assert set(case["noise"]) == set(PASSES)
        for output in ("y", "grad_x"):
            assert 0 < case["error"][output]["ours"] < 1e-6
        for name in PASSES:
            record = case[name]
            assert min(record["copy_us"], record["ours_us"], record["torch_us"]) > 0
            assert record["ours_copies"] > 0
            assert record["samples"] >= 4
            assert record["compile_us"] is None
    assert written["summary"]["cases"] == 2
    assert written["summary"]["module_ratio"] > 0
    assert set(written["summary"]["speedup"]) == set(PASSES)


def test_a_run_is_free_of_page_faults(quick):
    _, written = quick
    if not written["settings"]["memory_reused"]:
        pytest.skip("this C library cannot be told to reuse memory")
    faults = [case[name]["page_faults"] for case in written["cases"] for name in PASSES]
    assert max(faults) < 200


def test_a_run_prints_tables_and_no_progress_where_nobody_sees_it(quick):
    done, written = quick
    # A bar would say how many cases there are, and how fast they go.
    assert "case" not in done.stderr
    assert "%" not in done.stderr
    lines = done.stdout.split("\n")
    assert lines[0].startswith("companion ")
    for name in ("32x10", "BatchNorm1d-60x100"):
        # Of training, of fixed statistics, of errors.
        assert sum(line.startswith(name + " ") for line in lines) == 3
    assert "tiny" in lines
    assert "module" in lines
    assert re.search(r"Slower than PyTorch beyond noise:( no case\.)?$", done.stdout, re.MULTILINE)
    assert "torch.compile: off (--quick)" in done.stdout
    assert written["machine"]["processor"] in done.stdout


def test_the_file_names_no_host_and_no_folder(quick):
    _, written = quick
    text = json.dumps(written)
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
    assert not platform.node() or platform.node() not in text


def test_the_second_interruption_leaves_the_old_file_and_one_line(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")
    # Kernels that need no compiling, which is announced where nothing else should be said.
    command = [*COMMAND, "bench", "--quick", "--backend", "eager", "--json", str(path)]
    command += ["--only", "tiny/32x10$"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    # A shell's background jobs ignore interruptions, and what they start does, too.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options["env"] = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen([*command, "--seconds-per-case", "100"], **options) as process:
        # The table's titles are printed once Ctrl-C is waited for.
        assert any("copy µs" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        # The first one waits for the case under way. Two at once would count as one.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "interrupted; no file was written"
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]


def test_a_reader_that_has_enough_is_no_error():
    read, written = os.pipe()
    os.close(read)
    options = {"stderr": subprocess.PIPE, "text": True, "check": False, "cwd": ROOT}
    # As at a shell: the output goes out in blocks, the last one at the end.
    options["env"] = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run([*COMMAND, "bench", "--list"], stdout=written, **options)
    os.close(written)
    assert (done.returncode, done.stderr) == (1, "")


def test_importing_the_package_imports_no_command():
    # PyTorch imports tqdm, where there is one.
    code = """
import sys
sys.modules["tqdm"] = None
import companion
assert not [name for name in sys.modules if name.startswith(("companion.bench", "companion.__"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"companion {companion.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"]])
def test_help_is_printed(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "usage: python -m companion" in text
    assert "bench" in text


def test_every_option_is_explained(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out
    for option in (
        *("--device", "--dtype", "--backend", "--threads", "--quick", "--only", "--list"),
        *("--compile", "--no-compile", "--seconds-per-case", "--json"),
    ):
        assert option in text


def test_the_cases_are_listed(capsys):
    assert main(["bench", "--list", "--only", "tiny|BatchNorm1d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("tiny/4x16x8x8", "tiny/2x3x5x5", "tiny/32x10", "module/BatchNorm1d-60x100")
    ]
    assert main(["bench", "--list", "--device", "cuda", "--quick"]) == 0
    assert "rows/8192x512-bfloat16" in capsys.readouterr().out
    assert main(["bench", "--list", "--dtype", "float64", "--backend", "eager"]) == 0
    text = capsys.readouterr().out
    # The layers choose their kernels themselves.
    assert "module" not in text
    assert text.count("-float64 ") == text.count("\n") == 79


@pytest.fixture
def nothing_measured(monkeypatch):
    def fails(*_):
        pytest.fail("measuring started")

    monkeypatch.setattr(session, "run", fails)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bunch"], "invalid choice: 'bunch'"),
        (["bench", "--threads", "none"], "--threads: invalid integer value: 'none'"),
        (["bench", "--threads", "0"], "--threads: expected a positive integer, got 0"),
        (["bench", "--seconds-per-case", "-1"], "expected a positive number, got -1"),
        (["bench", "--seconds-per-case", "nan"], "expected a positive number, got nan"),
        (["bench", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["bench", "--only", "("], "'(' is no regular expression"),
        (["bench", "--only", "nothing"], "--only nothing: no case matches; --list lists them"),
        (["bench", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_mistake_is_answered_with_one_line(capsys, arguments, expected):
    line = refused(capsys, *arguments)
    assert line.startswith("python -m companion")
    assert "error: " in line
    assert expected in line


@pytest.mark.usefixtures("nothing_measured")
def test_a_file_that_cannot_be_written_is_refused_first(capsys, tmp_path):
    line = refused(capsys, "bench", "--json", str(tmp_path / "nowhere" / "found.json"))
    assert "there is no folder" in line
    assert "is not a file" in refused(capsys, "bench", "--json", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_measured")
def test_a_missing_device_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(capsys, "bench", "--device", "cuda")
    assert line.endswith("error: --device cuda: no CUDA device is available\n")


@pytest.mark.usefixtures("nothing_measured")
def test_a_missing_tqdm_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert "pip install tqdm" in refused(capsys, "bench")


def test_a_missing_compiler_is_an_error_only_if_compiling_was_asked_for(capsys, monkeypatch):
    requests = []

    def run(_cases, request):
        requests.append((request.compiled, request.compile_note))
        return {"summary": {"interrupted": False, "failed": []}}

    monkeypatch.setattr(session, "run", run)
    monkeypatch.setenv("CXX", sys.executable)
    for options in ([], ["--quick"], ["--quick", "--compile"], ["--no-compile"]):
        assert main(["bench", *options]) == 0
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert main(["bench"]) == 0
    assert requests == [
        *((True, None), (False, "--quick"), (True, None), (False, "--no-compile")),
        (False, "there is no C++ compiler"),
    ]
    assert "--compile: there is no C++ compiler" in refused(capsys, "bench", "--compile")


@pytest.mark.parametrize("error", [ImportError, RuntimeError, ValueError])
@pytest.mark.usefixtures("nothing_measured")
def test_a_backend_that_cannot_be_used_is_refused(capsys, monkeypatch, error):
    def fails(*_, backend, **__):
        raise error(f"backend: {backend} needs Numba")

    monkeypatch.setattr(command.functional, "batch_norm", fails)
    assert "--backend cpu: backend: cpu needs Numba" in refused(capsys, "bench", "--backend", "cpu")


def test_defaults_are_filled_in(monkeypatch):
    requests = []

    def run(cases, request):
        requests.append((cases, request))
        return {"summary": {"interrupted": True}}

    monkeypatch.setattr(session, "run", run)
    assert main(["bench", "--no-compile"]) == 130, "the status of an interruption"
    main(["bench", "--quick", "--only", "rows", "--threads", "3", "--seconds-per-case", "2.5"])
    (cases, full), (quick_cases, quick) = requests
    assert (len(cases), {case.dtype for case in cases}) == (80, {"float32"})
    assert (full.device, full.backend, full.threads) == ("cpu", "auto", None)
    assert (full.seconds_per_case, full.only, full.quick) == (1.0, None, False)
    assert {case.group for case in quick_cases} == {"rows"}
    assert (quick.seconds_per_case, quick.only, quick.threads) == (2.5, "rows", 3)


def test_a_file_that_cannot_be_written_at_the_end_is_one_line(capsys, monkeypatch, tmp_path):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "run", lambda *_: {})
    monkeypatch.setattr(document, "write", fails)
    assert main(["bench", "--no-compile", "--json", str(tmp_path / "found.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interruption_has_its_status(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run", interrupted)
    assert main(["bench", "--no-compile"]) == 130
    assert capsys.readouterr().err == "\ninterrupted; no file was written\n"


def test_cases_beyond_the_gpu_s_memory_are_skipped(capsys, monkeypatch):
    request = session.Request("cpu", "auto", True, None, 0.01, None, False, "no")

    def fails(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(session.Bench, "case", fails)
    monkeypatch.setattr(machine, "reuse_memory", lambda: False)
    cases = session.Case("tiny", (32, 10)), session.Case("tiny", (2, 3, 5, 5))
    written = session.run(list(cases), request)
    assert written["cases"] == []
    assert written["summary"]["skipped"] == ["32x10", "2x3x5x5"]
    assert "skipped, not enough memory on the GPU: 2x3x5x5" in capsys.readouterr().out


@pytest.mark.parametrize("compiler_fails", [False, True])
def test_an_interrupted_run_reports_what_it_has(capsys, monkeypatch, compiler_fails):
    """Ctrl-C reaches this process, and a compiler that works for it."""
    measured = session.Bench.case
    cases = [session.Case("tiny", shape) for shape in ((32, 10), (2, 3, 5, 5), (4, 16, 8, 8))]

    def interrupted(bench, case):
        if case is cases[1]:
            signal.raise_signal(signal.SIGINT)
            if compiler_fails:
                raise RuntimeError("the compiler was interrupted")
        return measured(bench, case)

    monkeypatch.setattr(session.Bench, "case", interrupted)
    monkeypatch.setattr(machine, "reuse_memory", lambda: False)
    request = session.Request("cpu", "auto", True, None, 0.01, None, False, "no")
    written = session.run(cases, request)
    names = ["32x10"] if compiler_fails else ["32x10", "2x3x5x5"]
    assert [case["name"] for case in written["cases"]] == names
    assert written["summary"]["interrupted"]
    assert "ended by Ctrl-C" in capsys.readouterr().out


def test_a_case_that_fails_costs_no_other(capsys, monkeypatch, tmp_path):
    measured = session.Bench.case

    def fails(bench, case):
        if case.name == "32x10":
            raise RuntimeError("by itself")
        return measured(bench, case)

    monkeypatch.setattr(session.Bench, "case", fails)
    monkeypatch.setattr(machine, "reuse_memory", lambda: False)
    path = tmp_path / "found.json"
    options = ["--quick", "--only", TWO, "--seconds-per-case", "0.01", "--json", str(path)]
    assert main(["bench", *options]) == 1
    printed = capsys.readouterr()
    assert "failed, see the error above: 32x10" in printed.out
    assert "32x10: Traceback" in printed.err
    assert "RuntimeError: by itself" in printed.err
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [case["name"] for case in written["cases"]] == ["BatchNorm1d-60x100"]
    assert written["summary"]["failed"] == ["32x10"]
    assert not written["summary"]["interrupted"]


def test_the_machine_is_described(monkeypatch, tmp_path):
    assert machine.cores() >= 1
    assert machine.processor()
    for reported, counted_on in ((2**28, 2**25), (2**21, 2**21)):
        monkeypatch.setattr(machine.caches, "sizes", lambda size=reported: {2: 2**18, 3: size})
        assert machine.last_level_cache() == reported
        assert machine.dependable_cache() == counted_on
    assert machine.version("there-is-no-such-package") is None
    # In a checkout of something else, and in none.
    monkeypatch.setattr(machine, "_PACKAGE", tmp_path)
    assert machine.revision() is None
    monkeypatch.setattr(machine, "_git", lambda *_: "vendor/companion/\nabc\n")
    assert machine.revision() is None


def test_the_revision_is_that_of_this_checkout(monkeypatch):
    answers = {"rev-parse": "companion/\nabc\n", "status": " M companion/data.py\n"}
    monkeypatch.setattr(machine, "_git", lambda name, *_: answers[name])
    assert machine.revision() == ("abc", True)
    answers["status"] = ""
    assert machine.revision() == ("abc", False)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: object())
    assert machine.reuse_memory() is False


def test_compile(monkeypatch, capsys):
    command = [sys.executable, "-m", "companion", "compile"]
    assert subprocess.run(command, check=False).returncode == 0
    monkeypatch.setattr("companion.kernels.select.installed", lambda _: False)
    assert main(["compile"]) == 2
    assert "pip install 'batchnorm-companion[cpu]'" in capsys.readouterr().err
