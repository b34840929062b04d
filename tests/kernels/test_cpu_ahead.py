"""``python -m companion compile``: what it compiles, how many at a time, and how it ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from companion.__main__ import main

pytest.importorskip("companion.kernels.cpu", reason="Numba is not installed")
from companion.kernels.cpu import ahead, workers


def run(*arguments):
    """The command's status; in a thread, as Playwright keeps this one's event loop running."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(main, arguments).result()


@pytest.fixture
def nothing_compiled(monkeypatch):
    """On the disk; what is compiled then is found there."""
    asked = set()
    monkeypatch.setattr(workers, "is_compiled", lambda *part: part in asked or asked.add(part))
    return asked


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """What is run in place of the compilers."""
    (tmp_path / "built").touch()
    monkeypatch.setattr(ahead.calls, "path", lambda: tmp_path / "built")
    seen = []

    async def see(command, *_):
        seen.append(command[-1])
        return 0, ""

    monkeypatch.setattr(ahead, "_run", see)
    return seen


def test_half_precision_is_compiled_when_asked_for(nothing_compiled, programs, capsys):
    assert run("compile") == 0
    assert sorted(programs) == sorted(
        ahead._PROGRAM.format(backward, dtype)
        for backward in (False, True)
        for dtype in ("float32", "float64")
    )
    assert "the forward pass (float64): 0 s" in capsys.readouterr().err
    programs.clear()
    nothing_compiled.clear()
    assert run("compile", "--all") == 0
    assert len(programs) == 8
    assert ahead._PROGRAM.format(True, "bfloat16") in programs


def test_what_is_there_is_not_compiled_again(nothing_compiled, programs, monkeypatch, capsys):
    nothing_compiled |= {(backward, "float32") for backward in (False, True)}
    assert run("compile") == 0
    assert all("float64" in program for program in programs)
    assert len(programs) == 2
    monkeypatch.setattr(workers, "is_compiled", lambda *_: True)
    capsys.readouterr()
    assert run("compile") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("nothing_compiled", "programs")
@pytest.mark.parametrize("cores", [1, 3])
def test_all_cores_are_busy_and_no_more(monkeypatch, cores):
    running, most = 0, 0

    async def count(*_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return 0, ""

    monkeypatch.setattr(ahead, "_run", count)
    monkeypatch.setattr(ahead, "_cores", lambda: cores)
    assert run("compile", "--all") == 0
    assert most == cores


@pytest.mark.usefixtures("nothing_compiled")
def test_a_failure_is_told_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    (tmp_path / "built").touch()
    monkeypatch.setattr(ahead.calls, "path", lambda: tmp_path / "built")
    program = "import sys; sys.exit('no memory' if ({!r}, {!r}) == (True, 'float32') else 0)"
    monkeypatch.setattr(ahead, "_PROGRAM", program)
    assert run("compile") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[lines.index("compile: the backward pass (float32) failed:") + 1] == "no memory"
    assert sum(line.endswith(" s") for line in lines) == 3


def test_what_is_not_kept_is_told_in_a_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "built").touch()
    monkeypatch.setattr(ahead.calls, "path", lambda: tmp_path / "built")
    monkeypatch.setattr(workers, "is_compiled", lambda _, dtype: dtype == "float64")
    monkeypatch.setattr(ahead, "_PROGRAM", "print('compiling\\n{1} cannot be kept')")
    assert run("compile") == 1
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines == ["compile: float32 cannot be kept"] * 2


@pytest.mark.usefixtures("nothing_compiled")
def test_a_process_that_cannot_be_started_is_told_in_a_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "built").touch()
    monkeypatch.setattr(ahead.calls, "path", lambda: tmp_path / "built")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert run("compile") == 1
    _, *lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("pass (float" in line and "failed: [Errno 2] No such file" in line for line in lines)


def test_no_place_for_it_is_told_in_a_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert run("compile") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compile: machine code cannot be kept anywhere; NUMBA_CACHE_DIR may")


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_an_interruption_leaves_nothing_running_and_nothing_behind(tmp_path):
    """Neither the processes that compile nor those that they have started, nor their files."""
    sleep = f"echo $$ >> '{tmp_path}/started'; exec sleep 600"
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{sleep}\n")
    compiler.chmod(0o755)
    sleeping = f"import subprocess; subprocess.run({['sh', '-c', sleep]!r}); {{!r}}; {{!r}}"
    program = f"""
from companion.__main__ import main
from companion.kernels.cpu import ahead, workers
workers.is_compiled = lambda *_: False
ahead._cores = lambda: 3
ahead._PROGRAM = {sleeping!r}
raise SystemExit(main(["compile"]))
"""
    environment = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "built"), "CXX": str(compiler)}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = tmp_path / "started"
    while not started.exists() or len(started.read_text().split()) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; what has been compiled is kept"
    assert "Traceback" not in errors
    assert [path for path in (tmp_path / "built").rglob("*") if path.is_file()] == []
    deadline = time.monotonic() + 10
    while any(runs(number) for number in started.read_text().split()):
        assert time.monotonic() < deadline


def runs(number):
    """Whether there is a process of that number, and not only its last state."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", number], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1] not in {"", "Z"}
