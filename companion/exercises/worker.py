"""Runs a reader's file: a script that `companion.exercises.isolated` starts as a process.

A line of JSON from its standard input brings the file's text, each further one a call; it answers
each with a line. What the reader's code prints is dropped. Before that code is loaded, the process
gives up what an answer does not need: the package, every file but Python's own libraries, writing,
other processes, the network. So an answer is the reader's own.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import linecache
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

MEMORY = 8 * 2**30  # bytes
REFUSED = "an answer is written with NumPy and PyTorch alone; the package may not be used in it"


def load_calls() -> ModuleType:
    """The module `calls` beside this file, without the package around it."""
    spec = importlib.util.spec_from_file_location("calls", Path(__file__).with_name("calls.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["calls"] = module
    spec.loader.exec_module(module)
    return module


def give_up() -> None:
    """Refuse, from now on, what an answer does not need. Nothing can take an audit hook off."""
    folder = os.path.realpath(Path(__file__).parents[1]) + os.sep
    package = Path(folder).name
    paths = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    libraries = tuple(os.path.realpath(path) + os.sep for path in paths)
    refused = (
        "ctypes.dl",
        "os.",
        "pty.",
        "shutil.",
        "signal.",
        "socket.",
        "subprocess.",
        "winreg.",
    )
    harmless = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv"}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and str(arguments[0]).partition(".")[0] == package:
            raise ImportError(REFUSED)
        if event == "open" and not isinstance(arguments[0], int):
            path, mode, flags = arguments
            path = os.path.realpath(os.fsdecode(path))
            if path.startswith(folder) or not path.startswith(libraries):
                raise PermissionError(f"{REFUSED}; no file is read")
            if set(mode or "") & set("wax+") or (flags or 0) & writing:
                raise PermissionError("an answer writes no file")
        if event.startswith(refused) and event not in harmless:
            raise PermissionError(f"an answer only computes: {event} is refused")

    sys.addaudithook(guard)


def load(text: str, name: str) -> tuple[dict[str, Any], dict[str, BaseException]]:
    """Run the reader's file; return what it defines, and what it would.

    Of a notebook only the definitions are here; one that needs what another cell does is left out.
    """
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {"__name__": "answers", "__builtins__": builtins}
    failed: dict[str, BaseException] = {}
    if not name.endswith(".ipynb"):
        exec(compile(text, name, "exec"), namespace)
        return namespace, failed
    for node in ast.parse(text).body:
        try:
            exec(compile(ast.Module([node], []), name, "exec"), namespace)
        except Exception as error:
            failed[getattr(node, "name", "")] = error
    return namespace, failed


def serve(receive: Callable[[], str], answer: Callable[[dict[str, Any]], None]) -> None:
    calls = load_calls()
    import numpy  # noqa: F401  what imports these finds them loaded

    request = json.loads(receive())
    if request["torch"]:
        import torch

        torch.set_num_threads(1)
        torch.linalg.inv(torch.eye(2))  # loads what it needs
    give_up()
    try:
        namespace, failed = load(request["text"], request["name"])
    except BaseException as error:
        answer({"raised": calls.described(error)})
        return
    names = [name for name, value in namespace.items() if callable(value)]
    left_out = {name: calls.described(error) for name, error in failed.items()}
    answer({"names": names, "failed": left_out})
    while line := receive():
        request = json.loads(line)
        arguments = [calls.unpack(each) for each in request["arguments"]]
        outcome = calls.call(namespace[request["function"]], arguments)
        answer(
            {
                "value": calls.pack(outcome.value),
                "changed": outcome.changed,
                "raised": outcome.raised,
                "late": outcome.late,
            }
        )


def end_with(parent: int) -> None:
    """End when the process does that asks, whatever the reader's code is at."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    except (ImportError, ValueError):  # Windows; a lower limit is set already
        pass
    # The reader's prints go nowhere, and its reads find nothing.
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    serve(requests.readline, answer)


if __name__ == "__main__":
    main()
