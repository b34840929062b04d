"""A reader's file in a process of its own, whose functions are called from this one."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .calls import SECONDS, Outcome, pack, unpack

LOADING_SECONDS = 30.0  # PyTorch has to be imported, perhaps on a machine with other work
GRACE = 1.0


class LoadError(Exception):
    """The reader's file cannot be run; the message says why."""


class Answers:
    """What a reader's file defines; each call is made in that process, and ends in time.

    Parameters
    ----------
    text
        the file's Python
    name
        what its error messages call it

    Raises
    ------
    LoadError
        by :meth:`call`: the text raises, or does not end
    """

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._torch = "torch" in text
        self._process: subprocess.Popen[str] | None = None
        self.names: list[str] = []
        self.failed: dict[str, str] = {}  # what a notebook would define, and why it does not

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()

    def load(self) -> list[str]:
        """Start the process if it does not run, and return the names of its functions."""
        if self._process is None:
            self._start()
        return self.names

    def call(self, function: str, arguments: Sequence[object]) -> Outcome:
        """As :func:`companion.exercises.calls.call`, with a limit that nothing escapes."""
        packed = [pack(each) for each in arguments]
        if not self._torch and '"tensor"' in json.dumps(packed):
            self._end()  # once started, the process cannot import PyTorch any more
            self._torch = True
        self.load()
        try:
            answer = self._ask({"function": function, "arguments": packed}, SECONDS + GRACE)
            value = unpack(answer["value"])
            return Outcome(value, tuple(answer["changed"]), answer["raised"], answer["late"])
        except TimeoutError:
            self._end()
            return Outcome(late=True)
        except (EOFError, KeyError, TypeError, ValueError):
            self._end()
            return Outcome(raised="it ended its process, or disturbed it")

    def _start(self) -> None:
        worker = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # without effect on Windows
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(
            target=self._listen, args=(self._process, self._lines), daemon=True
        ).start()
        try:
            start = {"text": self._text, "name": self._name, "torch": self._torch}
            answer = self._ask(start, LOADING_SECONDS)
        except TimeoutError:
            answer = {"raised": "running the file does not end"}
        except (EOFError, ValueError):
            answer = {"raised": "running the file ended its process"}
        if "raised" in answer:
            self._end()
            raise LoadError(f"{self._name}: {answer['raised']}")
        try:
            self.names = [str(name) for name in answer["names"]]
            self.failed = {str(name): str(why) for name, why in answer["failed"].items()}
        except (AttributeError, KeyError, TypeError):
            self._end()
            raise LoadError(f"{self._name}: running the file disturbed its process") from None

    @staticmethod
    def _listen(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The process's answer to a message.

        Raises
        ------
        TimeoutError, EOFError, ValueError
            there is none in time; the process has ended; it is not of this form
        """
        assert self._process
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        except OSError:
            raise EOFError from None
        if not line:
            raise EOFError
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError(line)
        return answer

    def _end(self) -> None:
        if self._process is None:
            return
        if hasattr(os, "killpg") and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # whatever it may have started, too
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # it never read the last line
                    pipe.close()
        self._process = None
