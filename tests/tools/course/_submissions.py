"""What students hand in: notebooks made of a chapter's solutions and of what is to replace them."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from companion.exercises.catalogue import EXERCISES
from tools.notebooks import from_text

CHAPTER = "mini-batch-algorithm"
# What the book numbers it; the session is one more, for the chapter before the numbered ones.
NUMBER = 4
NAMES = [each.name for each in EXERCISES.values() if each.chapter == CHAPTER]
ATTACKED = "bn-forward"
OTHERS = set(NAMES) - {ATTACKED}

# Each looks for the answer elsewhere, or for whoever judges; what one of them finds is returned.
READS = """
import builtins, gc, os, sys
import numpy as np

def by_import(x, gamma, beta, eps):
    import companion.reference
    return companion.reference.forward(x, gamma, beta, eps).y

def by_the_checker(x, gamma, beta, eps):
    from companion.exercises.catalogue import EXERCISES
    return EXERCISES["bn-forward"].oracle(x, gamma, beta, eps)

def by_importlib(x, gamma, beta, eps):
    import importlib.util
    spec = importlib.util.spec_from_file_location("oracle", PACKAGE + "/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.forward(x, gamma, beta, eps).y

def by_file(x, gamma, beta, eps):
    for folder, _, files in os.walk(BUNDLE):
        for file in files:
            text = open(os.path.join(folder, file), "rb").read().decode(errors="replace")
            if "def bn_forward" in text:
                raise SystemExit(text)

def by_frames(x, gamma, beta, eps):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if hasattr(value, "oracle"):
                return value.oracle(x, gamma, beta, eps)
        frame = frame.f_back

def by_memory(x, gamma, beta, eps):
    for value in gc.get_objects():
        if type(value).__name__ == "Exercise":
            return value.oracle(x, gamma, beta, eps)

def by_a_child(x, gamma, beta, eps):
    import subprocess
    code = "import companion.reference; print(1)"
    subprocess.run([sys.executable, "-c", code], check=True)

def by_result(x, gamma, beta, eps):
    with open(RESULTS, "w") as file:
        file.write('{"score": 100}')

class Right(np.ndarray):
    def __eq__(self, other):
        return True
    def __sub__(self, other):
        return self
    __rsub__ = __sub__

def bn_forward(x, gamma, beta, eps):
    for way in (by_import, by_the_checker, by_importlib, by_file, by_frames, by_memory, by_a_child,
                by_result):
        try:
            y = way(x, gamma, beta, eps)
            if y is not None:
                return y
        except BaseException:
            pass
    sys.modules["calls"].pack = lambda value: {"plain": True}
    sys.modules["json"].dumps = lambda *_args, **_options: '{"right": true}'
    builtins.isinstance = lambda *_: True
    return np.zeros(x.shape).view(Right)
"""

STAYS = """
import os, threading, time

def forever():
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass

def bn_forward(x, gamma, beta, eps):
    for target in (forever, forever):
        threading.Thread(target=target, daemon=False).start()
    for leave in (os.fork, lambda: os.system("sleep 600 &"), os.setsid):
        try:
            leave()
        except BaseException:
            pass
    forever()
"""

LEAVES = """
import os

def bn_forward(x, gamma, beta, eps):
    for descriptor in range(3, 50):
        try:
            os.write(descriptor, b'[{"name": "bn-forward", "right": true, "report": ""}]')
        except OSError:
            pass
    os._exit(0)
"""


def wrong():
    """A wrong answer to the attacked exercise, of those that stand in the chapter."""
    function = EXERCISES[ATTACKED].function
    return next(
        cell.source
        for cell in from_text(CHAPTER).cells
        if "wrong-answer" in cell.metadata.get("tags", []) and f"def {function}(" in cell.source
    )


def written(notebook, path, last=None):
    """Write a notebook, with a last cell that takes the place of the attacked solution."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if last:
        solution = f"def {EXERCISES[ATTACKED].function}("
        notebook.cells = [cell for cell in notebook.cells if solution not in cell.source]
        notebook.cells.append(new_code_cell(last))
    nbformat.write(notebook, path)
    return path


def read(path: Path):
    return nbformat.read(path, as_version=4)
