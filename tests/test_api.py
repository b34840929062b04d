"""The public names: listed on the book's page, with an example each that works; a light import."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PAGE = Path(__file__).parents[1] / "book" / "api.md"
# They say what is public in `__all__`.
PACKAGES = [
    "companion",
    "companion.contexts",
    "companion.data",
    "companion.explore",
    "companion.functional",
    "companion.fused",
    "companion.inference",
    "companion.modules",
    "companion.stages",
    "companion.statistics",
    "companion.variants",
    "companion.whitening",
]
# Of these, the functions and classes that they define and do not mark as private are public.
PLAIN_MODULES = ["companion.closed_forms", "companion.reference"]
DIRECTIVE = re.compile(r"^\s*\.\. (currentmodule|auto\w+):: (\S+)", re.MULTILINE)
HEAVY = ["matplotlib", "numba", "onnx", "pooch", "requests", "sklearn", "triton"]


def public_objects():
    """Every public object by its full name; one that several modules export has several."""
    found = {}
    for module_name in PACKAGES:
        module = importlib.import_module(module_name)
        found |= {f"{module_name}.{name}": getattr(module, name) for name in module.__all__}
    for module_name in PLAIN_MODULES:
        for name, value in vars(importlib.import_module(module_name)).items():
            if getattr(value, "__module__", None) == module_name and not name.startswith("_"):
                found[f"{module_name}.{name}"] = value
    return found


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


def test_importing_the_package_imports_nothing_heavy():
    code = f"import companion, sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_importing_the_package_takes_little_longer_than_importing_torch():
    # The process's own time, so that a busy machine does not count against it.
    code = (
        "import time, torch; start = time.process_time(); import companion;"
        "print(time.process_time() - start)"
    )
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(3)
    ]
    assert min(seconds) < 0.3, seconds
