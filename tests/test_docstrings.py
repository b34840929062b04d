"""Public docstrings: literal, in NumPy's form as napoleon reads it, each parameter described."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
from sphinx.ext.napoleon import Config, NumpyDocstring
from test_api import DISTINCT, PUBLIC

NAMES = sorted(name for name in DISTINCT.values() if not inspect.ismodule(PUBLIC[name]))
FAMILIES = sorted({name[:-2] for name in NAMES if re.search(r"[123]d$", name)})
# A line that no section of NumPy's form consists of, but those that this form took the place of.
ON_ONE_LINE = re.compile(r"^\s*\S.*? : \S.{30}|^\s*Source: ", re.MULTILINE)
FIELD = re.compile(r"^:(?:param|ivar) (?P<name>\w+):(?P<text>.*(?:\n +\S.*)*)", re.MULTILINE)


def literal_docstring(value):
    """The docstring that stands in the source, as an editor finds it; None if none does."""
    path = Path(sys.modules[value.__module__].__file__)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for name in value.__qualname__.split("."):
        # The last, of a function with overloads.
        *_, node = (node for node in body if getattr(node, "name", None) == name)
        body = node.body
    return ast.get_docstring(node)


def described(docstring):
    """The descriptions of parameters and fields, by name."""
    config = Config(napoleon_use_param=True, napoleon_use_ivar=True)
    text = str(NumpyDocstring(docstring, config, what="class"))
    return {field["name"]: field["text"].strip() for field in FIELD.finditer(text)}


def faults(docstring, parameters, optional=()):
    """What is wrong with a docstring, as a list."""
    if docstring is None:
        return ["no literal docstring"]
    descriptions = described(docstring)
    result = [f"{name} is not described" for name in parameters if not descriptions.get(name)]
    known = {*parameters, *optional}
    result += [f"{name} is no parameter" for name in descriptions if name not in known]
    return result + [f"not NumPy's form: {line}" for line in ON_ONE_LINE.findall(docstring)]


def parameters_of(value):
    """The names that a call can give; not those of exceptions, whose arguments are Python's."""
    if isinstance(value, type) and issubclass(value, Exception):
        return []
    return list(inspect.signature(value).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_described_in_a_literal_docstring(name):
    value = PUBLIC[name]
    # PyTorch's GroupNorm takes a `bias` since 2.13.
    optional = ["bias"] if name.endswith("GroupNorm") else []
    assert not faults(literal_docstring(value), parameters_of(value), optional)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_a_family_describe_the_same_parameters(family):
    layers = [PUBLIC[f"{family}{rank}d"] for rank in "123" if f"{family}{rank}d" in PUBLIC]
    first, *others = [list(described(literal_docstring(layer))) for layer in layers]
    assert others
    assert all(names == first for names in others)


def test_faults_are_found():
    good = "Do it.\n\nParameters\n----------\nx, y\n    numbers\n"
    assert not faults(good, ["x", "y"])
    assert faults(good, ["x", "z"]) == ["z is not described", "y is no parameter"]
    old = "Do it.\n\nParameters\n----------\nx : the number that this is all about, given by you\n"
    assert len(faults(old, ["x"])) == 2
    assert faults(None, []) == ["no literal docstring"]
