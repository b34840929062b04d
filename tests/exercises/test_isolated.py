"""A reader's file in a process of its own: what it may do, and what comes of everything else."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import companion
from companion.exercises.isolated import Answers, LoadError

PACKAGE = Path(companion.__file__).parent

ANSWERS = textwrap.dedent(f"""
    import os, sys
    import numpy as np
    import torch

    def double(x):
        print("printed", file=sys.stderr)
        print("printed")
        return 2 * x

    def nested(a, b):
        return [(a, {{"b": b}}), None, True, np.float32(0.5), "text"]

    def in_place(x, y):
        y += 1
        return y

    def nothing():
        pass

    def a_type():
        return object

    def the_oracle(x):
        import companion.reference
        return companion.reference.forward(x).y

    def the_loaded_oracle():
        return [name for name in sys.modules if name.startswith("companion")]

    def its_file():
        return open({str(PACKAGE / "reference.py")!r}).read()

    def by_descriptor():
        return os.open({str(PACKAGE / "reference.py")!r}, os.O_RDONLY)

    def a_solution():
        return open({str(PACKAGE.parent / "book" / "identity.md")!r}).read()

    def write():
        with open("written.txt", "w") as file:
            file.write("here")

    def remove():
        os.remove({str(PACKAGE / "reference.py")!r})

    def start():
        import subprocess
        subprocess.run(["sleep", "60"])

    def fork():
        return os.fork()

    def connect():
        import socket
        socket.create_connection(("127.0.0.1", 9))

    def libc():
        import ctypes
        ctypes.CDLL(None).system(b"true")

    def everything():
        return bytes(10**11)

    def leave():
        os._exit(0)

    def exit():
        sys.exit(0)

    def forge():
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b'{{"value": {{"plain": 1}}}}\\n')
            except OSError:
                pass
        return 2

    def ask():
        return input()

    def endless():
        while True:
            pass

    def stubborn():
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass

    def threads():
        import threading
        for _ in range(3):
            threading.Thread(target=endless, daemon=False).start()
        return 1

    def tensor(x):
        return (torch.linalg.inv(x), x.dtype == torch.float32)
    """)


@pytest.fixture(scope="module")
def answers():
    with Answers(ANSWERS, "answers.py") as process:
        yield process


def test_arguments_and_results_arrive_as_they_were_sent(answers):
    x = np.array([[1.0, np.inf], [np.nan, -0.0]])
    np.testing.assert_array_equal(answers.call("double", [x]).value, 2 * x)
    assert answers.call("double", [x.astype(np.float32)]).value.dtype == np.float32
    came = answers.call("nested", [(1, 2.5), [3]]).value
    assert came == [((1, 2.5), {"b": [3]}), None, True, 0.5, "text"]
    assert isinstance(came[0], tuple)
    import torch

    inverse, single = answers.call("tensor", [2 * torch.eye(2)]).value
    assert single is True
    assert torch.equal(inverse, torch.eye(2) / 2)


def test_a_tensor_arrives_also_where_the_file_does_not_name_its_library():
    import torch

    with Answers("def total(x):\n    return x.sum()", "mine.py") as process:
        assert process.call("total", [np.ones(3)]).value == 3
        assert process.call("total", [[np.ones(3)]]).raised.startswith("AttributeError")
        assert process.call("total", [torch.ones(3)]).value == 3


def test_what_is_changed_or_of_another_type_is_said(answers):
    x = np.ones(3)
    outcome = answers.call("in_place", [1.0, x])
    assert outcome.changed == (1,)
    np.testing.assert_array_equal(x, 1)
    assert answers.call("nothing", []).value is None
    assert answers.call("a_type", []).value.type_name == "type"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("the_oracle", "NumPy and PyTorch alone"),
        ("its_file", "no file is read"),
        ("by_descriptor", "no file is read"),
        ("a_solution", "no file is read"),
        ("write", "no file is read"),
        ("remove", "os.remove is refused"),
        ("start", "is refused"),
        ("fork", "os.fork is refused"),
        ("connect", "is refused"),
        ("libc", "ctypes.dlopen is refused"),
        ("everything", "MemoryError"),
        ("exit", "SystemExit"),
        ("ask", "EOFError"),
    ],
)
def test_an_answer_computes_and_does_nothing_else(answers, function, words):
    arguments = [np.ones((2, 1))] if function == "the_oracle" else []
    raised = answers.call(function, arguments).raised
    assert raised
    assert words in raised


def test_the_package_is_not_even_loaded(answers):
    assert answers.call("the_loaded_oracle", []).value == []


@pytest.mark.parametrize("function", ["leave", "forge"])
def test_what_disturbs_its_process_ends_it_and_the_next_call_works(answers, function):
    outcome = answers.call(function, [])
    assert outcome.raised or outcome.value == 2
    assert answers.call("double", [4]).value == 8


def test_what_does_not_end_is_stopped(answers):
    for function in ("endless", "stubborn"):
        started = time.monotonic()
        assert answers.call(function, []).late
        assert time.monotonic() - started < 6
    assert answers.call("threads", []).value == 1
    pid = answers._process.pid
    answers._end()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert answers.call("double", [4]).value == 8


def test_it_ends_with_the_process_that_asks():
    code = f"""if True:
        from companion.exercises.isolated import Answers
        import json, os, signal
        answers = Answers({ANSWERS!r}, "mine.py")
        answers.load()
        # The call is in its pipe, and outlives who sent it.
        request = json.dumps({{"function": "stubborn", "arguments": []}})
        answers._process.stdin.write(request + chr(10))
        answers._process.stdin.flush()
        print(answers._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 10
    while runs(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero, at line 1: 1 / 0"),
        ("import os; os._exit(3)", "running the file ended its process"),
        ("import companion", "NumPy and PyTorch alone"),
        (
            "import os\nfor n in range(9):\n  try: os.write(n, b'{}\\n')\n  except OSError: pass",
            "disturbed its process",
        ),
    ],
)
def test_a_file_that_does_not_run_says_why(text, words):
    with (
        Answers(text, "mine.py") as process,
        pytest.raises(LoadError, match=r"mine\.py: ") as error,
    ):
        process.load()
    assert words in str(error.value)
