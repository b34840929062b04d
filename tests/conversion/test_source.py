"""A function's source is read, compared with what runs, and compiled to a function again."""

import inspect

import pytest
from torch import nn

from companion.conversion.source import SourceError, build, parse

MODULES = (nn.modules.module, nn.modules.container, nn.modules.batchnorm, nn.modules.activation)


def test_what_is_read_is_what_runs():
    """Else a class, ``super()``, a name that a module imports, would not be as they were."""
    functions = [
        function
        for module in MODULES
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
        for function in vars(cls).values()
        # Of Python 3.14 on, what makes a class's annotations is a function without a source.
        if inspect.isfunction(function) and function.__name__ != "__annotate__"
    ]
    assert len(functions) > 150
    for function in functions:
        parse(function)


def made(scale):
    class Owner(list):
        """Has what a method may depend on."""

        __hidden = 5

        def method(self, x, /, y=2, *rest, key=3, **others):
            """Text.

            With more of it.
            """
            parts = [x * scale for _ in rest]
            return len(super().__repr__()), self.__hidden, y, key, parts, others, Owner.__name__

    return Owner


def test_a_function_is_built_with_all_that_it_had():
    owner = made(7)
    method = owner.method
    method.note = "kept"
    definition = parse(method)
    twin = build(method, definition, {"unused": None})
    assert twin(owner(), 1, 4, 5, more=6) == method(owner(), 1, 4, 5, more=6)
    assert (twin.__doc__, twin.note) == (method.__doc__, "kept")
    assert inspect.signature(twin) == inspect.signature(method)
    assert twin.__code__.co_firstlineno == method.__code__.co_firstlineno
    # The caller may change what was parsed.
    definition.body.clear()
    assert parse(method).body


def needs():
    return added  # noqa: F821


def test_names_are_added():
    assert build(needs, parse(needs), {"added": 3})() == 3


def test_no_source():
    names = {}
    exec("def function(): return 1", names)
    with pytest.raises(SourceError, match=r"^the source of function is not available$"):
        parse(names["function"])
    with pytest.raises(SourceError, match=r"^the source of .*<lambda> is not available$"):
        parse(lambda: 1)
