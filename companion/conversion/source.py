"""The source of a function as a tree, and a function from such a tree."""

from __future__ import annotations
import __future__

import ast
import copy
import linecache
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple

__all__ = ["SourceError", "build", "parse"]

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag

_COMPARED = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount")


class SourceError(ValueError):
    """The source of a function is not there, or is not what runs."""


class _Parsed(NamedTuple):
    definition: ast.FunctionDef
    imported: tuple[str, ...]
    """Names that the module imports: calls of their attributes compile to other instructions."""


def parse(function: FunctionType) -> ast.FunctionDef:
    """The definition of a function, decorators left out; the caller may change it.

    What is read is compiled again and compared with what runs, so that an edited file, a decorator
    that wraps, or a tool that rewrites code when it is imported is noticed.

    Raises
    ------
    SourceError
        there is no source, or it does not compile to the function's code
    """
    return copy.deepcopy(_parsed(function).definition)


def build(
    function: FunctionType, definition: ast.FunctionDef, names: Mapping[str, Any]
) -> FunctionType:
    """A function like `function` in all but its body.

    Parameters
    ----------
    function
        lends globals, closure, defaults, annotations, and where it stands in the file
    definition
        as :func:`parse` returned it, and changed since
    names
        what the changed body uses beyond that
    """
    free = function.__code__.co_freevars
    parsed = _Parsed(definition, _parsed(function).imported)
    code = _compiled(function, parsed, (*free, *names))
    cells = dict(zip(free, function.__closure__ or (), strict=True))
    cells |= {name: CellType(value) for name, value in names.items()}
    closure = tuple(cells[name] for name in code.co_freevars)
    result = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    for name in ("__kwdefaults__", "__annotations__", "__doc__", "__module__", "__qualname__"):
        setattr(result, name, getattr(function, name))
    result.__dict__.update(function.__dict__)
    return result


@cache
def _parsed(function: FunctionType) -> _Parsed:
    code = function.__code__
    try:
        lines = linecache.getlines(code.co_filename, function.__globals__)
        tree = _tree("".join(lines))
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"the source of {function.__qualname__} cannot be read") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = node.decorator_list[0] if node.decorator_list else node
            if first.lineno == code.co_firstlineno:
                definition = copy.deepcopy(node)
                definition.decorator_list = []
                parsed = _Parsed(definition, tuple(_imported(tree.body)))
                if _same(_compiled(function, parsed, code.co_freevars), code):
                    return parsed
                raise SourceError(f"the source of {function.__qualname__} is not what runs")
    raise SourceError(f"the source of {function.__qualname__} is not available")


@lru_cache(maxsize=8)
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _imported(statements: Iterable[ast.AST]) -> Iterator[str]:
    """Names that a module imports, on its outermost level."""
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from _imported(ast.iter_child_nodes(node))
        elif isinstance(node, ast.ExceptHandler):
            yield from _imported(node.body)


def _compiled(function: FunctionType, parsed: _Parsed, free: tuple[str, ...]) -> CodeType:
    """Compile a method, in a class of its class's name, where the names in `free` are around."""
    around = function.__qualname__.split(".")[-2:-1]
    # Names such as self.__x belong to the class, and so does what super() asks for.
    owner = around[0] if around and around[0].isidentifier() else None
    bound = owner or parsed.definition.name
    arguments = ", ".join(name for name in free if name != "__class__")
    outer = ast.parse(
        f"def f({arguments}):\n {'pass' if bound in free else f'global {bound}'}\n class {bound}: 0"
    )
    factory: Any = outer.body[0]
    if owner:
        factory.body[1].body = [parsed.definition]
    else:
        factory.body[1] = parsed.definition
    for module in parsed.imported:
        if module not in ("*", "__future__"):
            outer.body.insert(0, ast.Import([ast.alias(module)]))
    ast.fix_missing_locations(outer)
    flags = function.__code__.co_flags & _FUTURE
    code = compile(outer, function.__code__.co_filename, "exec", flags, dont_inherit=True)
    for inner in ("f", *([owner] if owner else []), parsed.definition.name):
        codes = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == inner]
        if not codes:
            raise SourceError(f"the source of {function.__qualname__} cannot be compiled alone")
        code = codes[0]
    return code


def _same(one: CodeType, other: CodeType) -> bool:
    """Whether two functions do the same, wherever they stand."""
    if any(getattr(one, field) != getattr(other, field) for field in _COMPARED):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    pairs = zip(one.co_consts, other.co_consts, strict=True)
    return all(
        _same(a, b)
        if isinstance(a, CodeType) and isinstance(b, CodeType)
        else type(a) is type(b) and a == b
        for a, b in pairs
    )
