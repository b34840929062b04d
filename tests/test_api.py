"""The public names: listed on the book's page, with an example each that works; a light import."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import companion

PAGE = Path(__file__).parents[1] / "book" / "api.md"
# They say what is public in `__all__`.
PACKAGES = [
    "companion",
    "companion.closed_forms",
    "companion.contexts",
    "companion.conversion",
    "companion.data",
    "companion.diagnosis",
    "companion.exercises",
    "companion.explore",
    "companion.functional",
    "companion.fused",
    "companion.inference",
    "companion.modules",
    "companion.questions",
    "companion.stages",
    "companion.statistics",
    "companion.testing",
    "companion.variants",
    "companion.whitening",
]
# Of these, the functions and classes that they define and do not mark as private are public.
PLAIN_MODULES = ["companion.reference"]
DIRECTIVE = re.compile(r"^\s*\.\. (currentmodule|auto\w+):: ([^\s(]+)", re.MULTILINE)
HEAVY = ["jupyterquiz", "matplotlib", "numba", "onnx", "pooch", "requests", "sklearn", "triton"]


def public_objects():
    """Every public object by its full name; one that several modules export has several."""
    objects = {}
    for module_name in PACKAGES:
        module = importlib.import_module(module_name)
        objects |= {f"{module_name}.{name}": getattr(module, name) for name in module.__all__}
    for module_name in PLAIN_MODULES:
        for name, value in vars(importlib.import_module(module_name)).items():
            if getattr(value, "__module__", None) == module_name and not name.startswith("_"):
                objects[f"{module_name}.{name}"] = value
    return objects


PUBLIC = public_objects()
DISTINCT = {id(value): name for name, value in PUBLIC.items()}


def documented_names():
    """The full names that the page's autodoc directives give."""
    names, module = [], ""
    for directive, name in DIRECTIVE.findall(PAGE.read_text(encoding="utf-8")):
        if directive == "currentmodule":
            module = name
        else:
            names.append(name if name.startswith("companion.") else f"{module}.{name}")
    return names


def test_there_are_public_names():
    assert len(DISTINCT) > 90
    assert PUBLIC["companion.fold"] is PUBLIC["companion.inference.fold"]


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_a_public_name_has_an_example_that_works(name):
    value = PUBLIC[name]
    home = value if isinstance(value, ModuleType) else sys.modules[value.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(value, name, module=home, globs=vars(home))
    assert re.search(r"^\s*Examples\n\s*--------\n", value.__doc__, re.MULTILINE), "no section"
    assert test.examples, "no example"
    report = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    torch.manual_seed(0)
    result = doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert result.failed == 0, "".join(report)
    assert result.attempted == len(test.examples)


def test_the_page_lists_every_public_name():
    listed = {id(PUBLIC[name]) for name in documented_names() if name in PUBLIC}
    missing = sorted(name for key, name in DISTINCT.items() if key not in listed)
    assert not missing, f"not in {PAGE.name}: {', '.join(missing)}"


def test_the_page_lists_public_names_only_and_once():
    names = documented_names()
    assert not set(names) - set(PUBLIC), sorted(set(names) - set(PUBLIC))
    assert len(names) == len({id(PUBLIC[name]) for name in names}), "an object is listed twice"


EVERYTHING = "import companion; [getattr(companion, name) for name in companion.__all__]"


def run(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_package_imports_nothing_heavy():
    result = run(
        f"{EVERYTHING}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_importing_the_package_takes_little_longer_than_importing_torch():
    # A ratio of the process's own times: a busy machine does not count against it, nor a slow one.
    code = (
        "from time import process_time; start = process_time(); import torch;"
        f"middle = process_time(); {EVERYTHING};"
        "print((process_time() - middle) / (middle - start))"
    )
    ratios = [float(run(code).stdout) for _ in range(3)]
    assert min(ratios) < 0.25, ratios


ONLY_NUMPY = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first not in {"numpy", "companion"} and first not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def test_the_oracle_and_the_closed_forms_need_numpy_alone():
    result = run(
        ONLY_NUMPY + "import companion\n"
        "from companion import closed_forms, reference\n"
        "batch = companion.reference.forward([[1.0], [3.0]], eps=0.0)\n"
        "print(batch.y.tolist(), closed_forms.__name__, 'torch' in sys.modules)\n"
        "try:\n    companion.BatchNorm1d\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    assert result.stdout.splitlines() == [
        "[[-1.0], [1.0]] companion.closed_forms False",
        "No module named 'torch'",
    ], result.stderr


def test_the_command_line_needs_no_numba():
    code = (
        "import runpy, sys; sys.modules['numba'] = None; sys.argv[1:] = ['--help'];"
        "runpy.run_module('companion', run_name='__main__')"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert "bench" in result.stdout


def test_names_are_there_before_anything_else_is_imported():
    """Each in a process that has imported only the package: submodules, the star, dir, errors."""
    result = run(
        "import companion, pickle, sys\n"
        "assert {'BatchNorm2d', 'functional', 'fold'} <= set(dir(companion))\n"
        "assert 'torch' not in sys.modules\n"
        "assert companion.functional.batch_norm and companion.variants.GroupNorm\n"
        "from companion import *\n"
        "assert set(companion.__all__) <= set(globals())\n"
        "layer = pickle.loads(pickle.dumps(companion.BatchNorm2d(3)))\n"
        "assert type(layer) is BatchNorm2d is companion.modules.BatchNorm2d"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["BatchNorm4d", "_private", "__wrapped__"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'companion' has no attribute '{name}'"):
        getattr(companion, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'companion'"):
        exec(f"from companion import {name}", {})


def test_type_checkers_read_the_names_that_are_exported():
    tree = ast.parse(Path(companion.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and "ImportFrom" in ast.dump(node)
    )
    read = {}
    for line in block.body:
        module = importlib.import_module(line.module)
        read |= {alias.name: getattr(module, alias.name) for alias in line.names}
    assert read == {name: getattr(companion, name) for name in companion.__all__}
